"""BLEU and ROUGE beside the libraries called directly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from llm_blender.errors import InputError, MissingExtraError, NotFoundError
from llm_blender.metrics import ROUGE, bleu, rouge


class TestBLEU:
    def test_the_scores_of_sacrebleu(self, golden):
        import sacrebleu

        predictions, references = golden["predictions"], golden["references"]
        found = bleu(predictions, references)
        expected = [sacrebleu.sentence_bleu(a, [b]).score for a, b in zip(predictions, references, strict=True)]
        assert found.values.tolist() == expected
        assert np.ptp(expected) > 10
        assert found.corpus == sacrebleu.corpus_bleu(predictions, [references]).score
        assert found.corpus != pytest.approx(found.mean, abs=1)

    def test_several_references_some_with_more(self):
        import sacrebleu

        predictions = ["the sky is very blue today", "a bird sings in the tree"]
        references = [["the sky is blue today", "today the sky is very blue"], ["a bird sings in a tree"]]
        found = bleu(predictions, references)
        expected = [sacrebleu.sentence_bleu(a, b).score for a, b in zip(predictions, references, strict=True)]
        assert found.values.tolist() == expected
        assert found.values[0] > sacrebleu.sentence_bleu(predictions[0], references[0][:1]).score
        streams = [[references[0][0], references[1][0]], [references[0][1], None]]
        assert found.corpus == sacrebleu.corpus_bleu(predictions, streams).score

    def test_settings_are_sacrebleus(self):
        import sacrebleu

        texts = (["天空是蓝色的。"], ["天空是蓝色。"])
        found = bleu(*texts, tokenize="zh", lowercase=True)
        assert found.values[0] == sacrebleu.sentence_bleu(texts[0][0], texts[1], tokenize="zh", lowercase=True).score
        assert found.values[0] > bleu(*texts).values[0]
        assert "tok:zh" in found.settings["signature"]
        with pytest.raises(InputError, match="did you mean 'zh'"):
            bleu(*texts, tokenize="zhh")

    def test_an_empty_prediction_has_none(self):
        assert bleu(["", "the sky is blue"], ["the sky is blue"] * 2).values.tolist() == [0.0, pytest.approx(100)]


class TestROUGE:
    @pytest.mark.parametrize("variant", ROUGE)
    @pytest.mark.parametrize("stemmer", [True, False])
    def test_the_scores_of_rouge_score(self, golden, variant, stemmer):
        from rouge_score.rouge_scorer import RougeScorer

        predictions = [text.replace(". ", ".\n").replace(", ", ",\n") for text in golden["predictions"]]
        references = [text.replace("; ", "\n").replace(", ", ",\n") for text in golden["references"]]
        found = rouge(predictions, references, variant=variant, stemmer=stemmer, sentences="lines")
        scorer = RougeScorer([variant], use_stemmer=stemmer)
        expected = [scorer.score(b, a)[variant] for a, b in zip(predictions, references, strict=True)]
        assert found.values.tolist() == [score.fmeasure for score in expected]
        assert found.parts["precision"].tolist() == [score.precision for score in expected]
        assert found.parts["recall"].tolist() == [score.recall for score in expected]
        assert found.metric == variant
        assert found.values[2] == 0  # the empty one

    def test_stems(self):
        texts = (["it rained and birds were singing"], ["it rains and a bird sings"])
        assert rouge(*texts, variant="rouge1").values[0] > rouge(*texts, variant="rouge1", stemmer=False).values[0]

    def test_the_best_reference_counts_in_any_order(self, golden):
        several = [list(pair) for pair in zip(golden["references"], golden["second_references"], strict=True)]
        alone = [rouge(golden["predictions"], golden[key]).values for key in ("references", "second_references")]
        assert (alone[0] != alone[1]).any()
        for references in (several, [pair[::-1] for pair in several]):
            assert rouge(golden["predictions"], references).values.tolist() == np.maximum(*alone).tolist()

    def test_sentences_by_nltk(self, punkt):
        texts = (["Birds sing. The sky is blue."], ["The sky is blue. Birds sing."])
        found = rouge(*texts, variant="rougeLsum")
        assert found.values[0] == 1
        assert rouge(*texts, variant="rougeLsum", sentences="lines").values[0] < 1
        assert found.settings == {"stemmer": True, "sentences": "nltk"}

    def test_without_nltks_data_it_says_where_they_come_from(self, no_punkt):
        with pytest.raises(NotFoundError, match=r"python -m nltk.downloader punkt_tab.*\"sentences\": \"lines\""):
            rouge(["a"], ["a"], variant="rougeLsum")
        assert rouge(["a"], ["a"], variant="rougeL").values[0] == 1

    def test_unknown_names(self):
        with pytest.raises(InputError, match="did you mean 'rougeLsum'"):
            rouge(["a"], ["a"], variant="rougeLsun")
        with pytest.raises(InputError, match="did you mean 'lines'"):
            rouge(["a"], ["a"], variant="rougeLsum", sentences="line")


@pytest.fixture
def no_punkt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """NLTK finds its data in an empty folder alone."""
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    nltk.tokenize._get_punkt_tokenizer.cache_clear()
    yield tmp_path
    nltk.tokenize._get_punkt_tokenizer.cache_clear()


@pytest.fixture
def punkt(no_punkt: Path) -> None:
    """Write Punkt's data, without any abbreviation."""
    folder = no_punkt / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (folder / name).write_text("")


@pytest.mark.parametrize(("metric", "library"), [(bleu, "sacrebleu.metrics.bleu"), (rouge, "rouge_score.rouge_scorer")])
def test_without_its_library_the_pip_line_is_said(metric, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'llm-blender\[metrics\]'"):
        metric(["a"], ["a"])


@pytest.mark.parametrize("metric", [bleu, rouge])
def test_progress(metric):
    calls = []
    metric(["a", "b", "c"], ["a", "b", "d"], progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]

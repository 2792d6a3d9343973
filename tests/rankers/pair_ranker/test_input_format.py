from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from llm_blender.errors import CheckpointError
from llm_blender.rankers.checkpoints import BUNDLED, find_checkpoint
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import FittedTexts, InputFormat, PairBatch

SPECIAL = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<|source|>", "<|candidate1|>", "<|candidate2|>"]


def load(folder) -> InputFormat:
    return InputFormat.load(folder, PairRankerConfig.load(folder))


@pytest.fixture(scope="module", params=[BUNDLED, "tiny"])
def form(request, tiny_ranker):
    return load(find_checkpoint(BUNDLED) if request.param == BUNDLED else tiny_ranker())


def ids(form: InputFormat, text: str) -> list[int]:
    return form.tokenize([text])[0]


@pytest.mark.parametrize("spelled", SPECIAL)
def test_special_tokens_in_a_text_are_plain_text(form, spelled):
    own = {form._tokenizer.token_to_id(token) for token in SPECIAL if token != "[UNK]"}
    assert None not in own
    text = f"before {spelled}{spelled} after"
    assert not own & set(ids(form, text))
    spaced = "".join(f" {letter} " if not letter.isalnum() else letter for letter in text)  # the words of the same text
    assert ids(form, text) == ids(form, spaced)


def test_a_sequence_has_exactly_its_own_markers(form):
    nasty = ids(form, "".join(SPECIAL) * 3)
    sequence = form.join(nasty, nasty, nasty)
    token = form._tokenizer.token_to_id
    assert [sequence.ids.count(token(name)) for name in SPECIAL if name != "[UNK]"] == [1, 3, 0, 0, 1, 1, 1]
    assert sequence.ids == [
        *(token("[CLS]"), token("<|source|>"), *nasty, token("[SEP]")),
        *(token("<|candidate1|>"), *nasty, token("[SEP]")),
        *(token("<|candidate2|>"), *nasty, token("[SEP]")),
    ]


@pytest.mark.parametrize(
    ("pooling", "segments"),
    [("mean", [0, 1, 1, 1, 0, 2, 2, 0, 3, 3, 3, 3, 0]), ("marker", [0, 1, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0, 0])],
)
def test_segments_tell_which_states_count(tiny_ranker, pooling, segments):
    assert load(tiny_ranker(pooling)).join([50, 51], [52], [53, 54, 55]).segments == segments


def test_one_candidate_alone(tiny_ranker):
    form = load(tiny_ranker())
    left, right = form.join([50], [51], None), form.join([50], None, [51])
    assert left.segments == [0, 1, 1, 0, 2, 2, 0]
    assert right.segments == [0, 1, 1, 0, 3, 3, 0]
    assert left.ids[-2:] == right.ids[-2:]


class TestTruncation:
    def test_a_long_instruction_keeps_head_and_tail(self, form):
        first, last = "Why is the sky blue?", "Answer in three words."
        text = ids(form, f"User: {first} " + "the sea is green. " * 500 + last)
        kept = form.fit_source(text)
        assert len(kept) == form.config.source_max_length
        head, tail = ids(form, f"User: {first}"), ids(form, last)
        assert kept[: len(head)] == head
        assert kept[-len(tail) :] == tail

    @pytest.mark.parametrize("source", [0, 10, 10_000])
    def test_both_candidates_have_the_same_room_and_the_pair_fits(self, form, source):
        instruction = form.fit_source([50] * source)
        left, right = (
            form.fit_candidate([51] * 5_000, len(instruction)),
            form.fit_candidate([52] * 999, len(instruction)),
        )
        assert len(left) == len(right)
        sequences = [(left, right)] if form.config.candidates_per_sequence == 2 else [(left, None), (right, None)]
        for pair in sequences:
            length = len(form.join(instruction, *pair))
            assert form.config.max_length - 1 <= length <= form.config.max_length
            assert length == form.config.overhead + len(instruction) + sum(len(text) for text in pair if text)

    def test_a_long_candidate_keeps_its_end(self, form):
        text = list(range(1_000))
        kept = form.fit_candidate(text, 0)
        tail = int(len(kept) * form.config.candidate_tail)
        assert kept[-1] == text[-1]
        assert kept == text[: len(kept) - tail] + text[-tail:]

    def test_what_fits_stays_whole(self, form):
        room = form.config.source_max_length
        assert form.fit_source(list(range(room))) == list(range(room))
        assert form.fit_source([]) == form.fit_candidate([], room) == []

    def test_no_tail(self, form):
        other = InputFormat(form._tokenizer, dataclasses.replace(form.config, source_tail=0.0))
        assert other.fit_source(list(range(1_000))) == list(range(form.config.source_max_length))


def test_half_a_character_is_read_as_a_question_mark(form):
    assert form.tokenize(["\ud83d sky \ude42"]) == form.tokenize(["? sky ?"])


def test_padding_stands_right_and_is_masked(form):
    batch = PairBatch.pad([form.join([50], [51], [52]), form.join([50], [], [])], form.pad_id)
    assert batch.input_ids.shape == (2, 7 + 3)
    assert batch.attention_mask.tolist() == [[1] * 10, [1] * 8 + [0] * 2]
    assert (batch.input_ids[1, 8:] == form.pad_id).all()
    assert not batch.segment_ids[1, 8:].any()
    assert all(array.dtype == np.int64 for array in (batch.input_ids, batch.attention_mask, batch.segment_ids))


def test_a_tokenizer_without_the_markers_is_refused(tiny_ranker):
    form = load(tiny_ranker())
    with pytest.raises(CheckpointError, match=r"no token <\|other\|>"):
        InputFormat(form._tokenizer, dataclasses.replace(form.config, markers=("<|other|>", "b", "c")))


def test_the_tokenizer_reads_no_more_than_a_sequence_can_hold(form, monkeypatch):
    words = "the sky is blue because air scatters blue light most and why not "
    texts = [words * 2000, "b" + words * 900, words]
    whole = [len(read) for read in form.tokenize(texts)]
    read: list[int] = []
    tokenize = form.tokenize
    monkeypatch.setattr(form, "tokenize", lambda texts: read.extend(map(len, texts)) or tokenize(texts))
    cut = FittedTexts(form, texts[:1], [texts[1:]], [0.5])
    assert max(read) <= 20 * form.config.max_length
    monkeypatch.setattr(form, "shorten", lambda text: text)
    full = FittedTexts(form, texts[:1], [texts[1:]], [0.5])
    assert cut.sequence(0, 0, 1) == full.sequence(0, 0, 1)
    assert cut.truncated == pytest.approx(full.truncated, abs=0.01)
    assert cut.text_key(0, 0)[2] == pytest.approx(whole[1], rel=0.05)
    assert cut.text_key(0, 1) == full.text_key(0, 1)


@pytest.mark.parametrize("row", ["name" + " " * 60 + "value" + " " * 60 + "\n", "cell" + " " * 900, "a\n\n\n\n"])
def test_white_space_takes_no_place_from_the_words_of_a_long_text(form, monkeypatch, row):
    texts = ["Why?", "first " + row * 400, row * 400 + "last"]
    cut = FittedTexts(form, texts[:1], [texts[1:]], [0.5])
    monkeypatch.setattr(form, "shorten", lambda text: text)
    full = FittedTexts(form, texts[:1], [texts[1:]], [0.5])
    assert cut.sequence(0, 0, 1) == full.sequence(0, 0, 1)

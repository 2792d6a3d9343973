"""Metrics of n-gram overlap: BLEU by sacrebleu, ROUGE by rouge-score."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Literal, get_args

import numpy as np

from llm_blender.errors import NotFoundError, unknown_name
from llm_blender.metrics.scores import References, Scores, check_texts, metrics_extra, no_progress
from llm_blender.types import OnProgress

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
"""Unigrams, bigrams, the longest common subsequence of the texts, and that of their sentences."""

Sentences = Literal["nltk", "lines"]
"""Sentence splitting of rougeLsum: by NLTK's Punkt, or at each line break."""


def bleu(
    predictions: Sequence[str],
    references: References,
    *,
    lowercase: bool = False,
    tokenize: str | None = None,
    progress: OnProgress | None = None,
) -> Scores:
    """Compute the BLEU of each prediction, from 0 to 100, by sacrebleu (Post 2018, arXiv 1804.08771).

    A sentence's BLEU is smoothed and ignores n-grams longer than the prediction, as in `sacrebleu.sentence_bleu`.
    `Scores.corpus` is the BLEU of all predictions together, which is not the mean.

    Args:
        predictions: texts.
        references: one per prediction, or several: sacrebleu counts n-grams of any of them.
        lowercase: ignore case.
        tokenize: sacrebleu's tokenizer; None takes its default, ``13a``.
        progress: called with the number of scored predictions and of all.

    Raises:
        InputError: as for `check_texts`, or the tokenizer is unknown.
        MissingExtraError: ``metrics`` is not installed.
    """
    pairs = check_texts(predictions, references)
    with metrics_extra("BLEU"):
        from sacrebleu.metrics.bleu import BLEU
    if tokenize is not None and tokenize not in BLEU.TOKENIZERS:
        raise unknown_name("tokenizer of sacrebleu", tokenize, sorted(BLEU.TOKENIZERS))
    sentence = BLEU(lowercase=lowercase, tokenize=tokenize, effective_order=True)
    corpus = BLEU(lowercase=lowercase, tokenize=tokenize)
    progress, values = progress or no_progress, np.empty(len(pairs))
    for number, (text, several) in enumerate(zip(pairs.predictions, pairs.references, strict=True)):
        values[number] = sentence.sentence_score(text, several).score
        progress(number + 1, len(pairs))
    streams = [list(stream) for stream in zip_longest(*pairs.references)]  # to sacrebleu, None is no reference
    whole = corpus.corpus_score(list(pairs.predictions), streams).score
    return Scores("bleu", values, settings={"signature": str(sentence.get_signature())}, corpus=float(whole))


def rouge(
    predictions: Sequence[str],
    references: References,
    *,
    variant: str = "rougeL",
    stemmer: bool = True,
    sentences: Sentences = "nltk",
    progress: OnProgress | None = None,
) -> Scores:
    """Compute the ROUGE of each prediction, from 0 to 1: the F-measure by Google's rouge-score (Lin 2004).

    Args:
        predictions: texts.
        references: one per prediction, or several: the one with the best F-measure counts.
        variant: one of `ROUGE`.
        stemmer: compare English words by their stems.
        sentences: sentence splitting of ``rougeLsum``.
        progress: called with the number of scored predictions and of all.

    Returns:
        `Scores.parts` holds ``precision`` and ``recall``.

    Raises:
        InputError: as for `check_texts`, or a name is unknown.
        NotFoundError: the data of NLTK's sentence splitter are needed and not installed.
        MissingExtraError: ``metrics`` is not installed.
    """
    pairs = check_texts(predictions, references)
    if variant not in ROUGE:
        raise unknown_name("variant of ROUGE", variant, ROUGE)
    if sentences not in get_args(Sentences):
        raise unknown_name("way to split sentences", sentences, get_args(Sentences))
    with metrics_extra("ROUGE"):
        from rouge_score.rouge_scorer import RougeScorer
    by_nltk = variant == "rougeLsum" and sentences == "nltk"
    if by_nltk:
        _require_punkt()
    scorer = RougeScorer([variant], use_stemmer=stemmer, split_summaries=by_nltk)
    progress, rows = progress or no_progress, []
    for number, (text, several) in enumerate(zip(pairs.predictions, pairs.references, strict=True)):
        rows.append(scorer.score_multi(several, text)[variant])
        progress(number + 1, len(pairs))
    precision, recall, f1 = np.array(rows, np.float64).T
    settings = {"stemmer": stemmer} | ({"sentences": sentences} if variant == "rougeLsum" else {})
    return Scores(variant, f1, {"precision": precision, "recall": recall}, settings)


def _require_punkt() -> None:
    import nltk

    try:
        nltk.sent_tokenize("One. Two.")
    except LookupError as error:
        raise NotFoundError(
            "rougeLsum splits sentences by NLTK's punkt_tab, which is not there: python -m nltk.downloader punkt_tab, "
            'or count each line as a sentence with {"sentences": "lines"}.'
        ) from error

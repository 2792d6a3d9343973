"""The fuser that writes nothing of its own: the best candidate, with what the others agree on and it does not say."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError
from llm_blender.fusers.selecting import SelectingFuser
from llm_blender.fusers.sentences import LIST_MARK, WORDS, sentences
from llm_blender.types import Fusion

__all__ = ["ConsensusFuser"]

_LEAST = 3  # candidates from which on there are others to agree
_NEAR = 3  # sentences in which the item before may stand
_CODE = "```"

_Counts = NDArray[np.int64]


@dataclass(frozen=True)
class _Sentence:
    """A sentence of one of the others.

    Attributes:
        text: without white space around it.
        source: which candidate says it.
        place: where in it, 0 to 1.
    """

    text: str
    source: int
    place: float


class ConsensusFuser(SelectingFuser):
    """Puts sentences of other good candidates into the best one, where that brings it closer to all of them.

    The sentence that raises the agreement with the other candidates most is put in, at about the place where it stood;
    then the next one, until none raises it by `gain` or `most` are in. Agreement with one of them is the F1 of the
    words and pairs of words that both say, each as often as it occurs; the mean over the others leaves out the one who
    says the sentence. To choose the text that agrees most with a sample is minimum Bayes risk decoding (Kumar and Byrne
    2004, aclanthology.org/N04-1022); here the text may be put together of several. Needs no model and no instruction,
    and says nothing that no candidate said. Texts with code are left as they are.

    Args:
        sources: how many candidates after the best one sentences are taken of; all are asked whether they agree.
        gain: of that mean, 0 to 1, that a sentence must bring.
        most: sentences that are put in, at most.

    Raises:
        InputError: one of them is out of range.
    """

    name = "consensus"
    reads_all = True
    """It is given all candidates, best first, whatever `top_k` says."""

    def __init__(self, sources: int = 3, gain: float = 0.0015, most: int = 8) -> None:
        if sources < 1 or most < 1 or not 0 < gain < 1:
            raise InputError(
                f"sources and most are at least 1, gain is between 0 and 1: not {sources}, {most}, {gain}."
            )
        self.sources, self.gain, self.most = sources, gain, most

    def select(self, texts: Sequence[str]) -> Fusion:
        """The best one with what was put in; of fewer than three, the best as it is."""
        best, others = texts[0].strip(), texts[1:]
        if len(texts) < _LEAST or any(_CODE in text for text in texts[: self.sources + 1]):
            return Fusion(best, self.name, (0,))
        offered = [
            _Sentence(unit.strip(), source, place / len(units))
            for source, text in enumerate(others[: self.sources], 1)
            for units in [sentences(text)]
            for place, unit in enumerate(units)
            if WORDS.search(unit)
        ]
        chosen = self._choose(best, offered, others)
        units = [(unit, False) for unit in sentences(best)]
        count = len(units)
        # From the end on, so that places before it stay what they are.
        for sentence in sorted((offered[i] for i in chosen), key=lambda sentence: -sentence.place):
            _put_in(units, int(sentence.place * count + 0.5), sentence.text)
        sources = sorted({offered[i].source for i in chosen})
        return Fusion("".join(_apart(_numbered(units))).strip(), self.name, (0, *sources))

    def _choose(self, best: str, offered: Sequence[_Sentence], others: Sequence[str]) -> list[int]:
        """The sentences to put in, in the order in which they were found."""
        texts = [best, *(sentence.text for sentence in offered), *others]
        counts = _counts([_grams(text) for text in texts])
        text, offers, evidence = counts[:1], counts[1 : 1 + len(offered)], counts[1 + len(offered) :]
        heard = np.ones((len(offered), len(others)))  # everybody but who says it
        heard[np.arange(len(offered)), [sentence.source - 1 for sentence in offered]] = 0
        heard /= heard.sum(axis=1, keepdims=True)
        chosen: list[int] = []
        while offered and len(chosen) < self.most:
            gains = ((_agreement(text + offers, evidence) - _agreement(text, evidence)) * heard).sum(axis=1)
            first = int(gains.argmax())
            if gains[first] < self.gain:
                break
            chosen.append(first)
            text = text + offers[first]
        return chosen


def _grams(text: str) -> Counter[object]:
    words = WORDS.findall(text.lower())
    return Counter(words) + Counter(itertools.pairwise(words))


def _counts(bags: Sequence[Counter[object]]) -> _Counts:
    """``[T, V]``: how often each of T bags holds each of V things."""
    numbers: dict[object, int] = {}
    rows = [[numbers.setdefault(gram, len(numbers)) for gram in bag] for bag in bags]
    counts = np.zeros((len(bags), len(numbers)), np.int64)
    for row, (columns, bag) in enumerate(zip(rows, bags, strict=True)):
        counts[row, columns] = list(bag.values())
    return counts


def _agreement(texts: _Counts, evidence: _Counts) -> NDArray[np.float64]:
    """``[T, N]``: the F1 of each of T texts with each of N others, from counts ``[T, V]`` and ``[N, V]``."""
    shared = np.stack([np.minimum(texts, counts).sum(axis=1) for counts in evidence], axis=1)
    return np.asarray(2 * shared / np.maximum(texts.sum(axis=1)[:, None] + evidence.sum(axis=1), 1))


def _put_in(units: list[tuple[str, bool]], at: int, sentence: str) -> None:
    """Put a sentence before unit `at`, with the end that the one there has; the flag says that it is new.

    An item of a list becomes one of the list that it gets into, and splits no line.
    """
    if LIST_MARK.match(sentence):
        at = next((i for i in range(at, len(units)) if i == 0 or units[i - 1][0].endswith("\n")), len(units))
        near = (LIST_MARK.match(unit) for unit, _ in (*units[at : at + 1], *units[:at][::-1][:_NEAR]))
        mark = next((found[0].lstrip() for found in near if found), "- ")
        sentence = f"{mark}{LIST_MARK.sub('', sentence)}\n"
        if at and not units[at - 1][0].endswith("\n"):
            units[at - 1] = (units[at - 1][0].rstrip() + "\n", units[at - 1][1])
    else:
        sentence += "\n" if at == 0 or units[at - 1][0].endswith("\n") else " "
    units.insert(at, (sentence, True))


def _numbered(units: Sequence[tuple[str, bool]]) -> list[str]:
    """The units, with items counted anew after each one that is new; a list begins where numbers fall."""
    texts, last, more = [], 0, 0
    for text, new in units:
        found = LIST_MARK.match(text)
        if found and found[1]:
            if new:
                more += 1
            else:
                number = int(found[1])
                more, last = more if number > last else 0, number
            text = f"{text[: found.start(1)]}{last + more}{text[found.end(1) :]}"
        texts.append(text)
    return texts


def _apart(units: Sequence[str]) -> list[str]:
    """The units with white space between any two."""
    return [unit if unit[-1:].isspace() else f"{unit} " for unit in units]

"""The fuser that writes nothing of its own: the best candidate, with what the others agree on and it does not say."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError
from llm_blender.fusers.base import BaseFuser, Row
from llm_blender.fusers.texts import LIST_MARK, WORDS, sentences
from llm_blender.types import Fusion, OnText

__all__ = [
    "ConsensusFuser",
    "Counts",
    "LongestFuser",
    "Offer",
    "SelectingFuser",
    "agreement",
    "gram_counts",
    "merge",
    "offers",
]

_NEAR = 3  # sentences in which the item before may stand

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Offer:
    """A sentence that may be put into a text.

    Attributes:
        text: without white space around it.
        source: which of the texts says it.
        place: of its middle in it, 0 to 1, all sentences counted alike.
    """

    text: str
    source: int
    place: float


def offers(texts: Sequence[str]) -> list[Offer]:
    """All sentences of these texts that hold a word."""
    return [
        Offer(unit.strip(), source, (place + 0.5) / len(units))
        for source, text in enumerate(texts)
        for units in [sentences(text)]
        for place, unit in enumerate(units)
        if WORDS.search(unit)
    ]


def gram_counts(texts: Sequence[str]) -> Counts:
    """``[T, V]``: how often each of T texts says each of V words and pairs of words."""
    bags = [_grams(text) for text in texts]
    numbers: dict[object, int] = {}
    rows = [[numbers.setdefault(gram, len(numbers)) for gram in bag] for bag in bags]
    counts = np.zeros((len(bags), len(numbers)), np.int64)
    for row, (columns, bag) in enumerate(zip(rows, bags, strict=True)):
        counts[row, columns] = list(bag.values())
    return counts


def agreement(texts: Counts, evidence: Counts) -> NDArray[np.float64]:
    """``[T, N]``: the F1 of each of T texts with each of N others, from counts ``[T, V]`` and ``[N, V]``."""
    shared = np.stack([np.minimum(texts, counts).sum(axis=1) for counts in evidence], axis=1)
    return np.asarray(2 * shared / np.maximum(texts.sum(axis=1)[:, None] + evidence.sum(axis=1), 1))


def merge(units: Sequence[str], added: Sequence[Offer]) -> str:
    """A text in sentences with others put in, each at about the place where it stood.

    An item of a list becomes one of the list that it gets into, and what follows is counted anew.
    """
    flagged = [(unit, False) for unit in units]
    # From the end on, so that places before it stay what they are.
    for offer in sorted(added, key=lambda offer: -offer.place):
        _put_in(flagged, int(offer.place * len(units) + 0.5), offer.text)
    return "".join(unit if unit[-1:].isspace() else f"{unit} " for unit in _numbered(flagged)).strip()


def _grams(text: str) -> Counter[object]:
    words = WORDS.findall(text.lower())
    return Counter(words) + Counter(itertools.pairwise(words))


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
    for at, (text, new) in enumerate(units):
        found = LIST_MARK.match(text)
        if found and found[1]:
            # A new item belongs to the list of the unit after it, if that is an item.
            of = next((unit for unit, added in units[at:] if not added), "") if new else text
            known = LIST_MARK.match(of)
            number = int(known[1]) if known and known[1] else last + 1
            if number <= last:
                last, more = number - 1, 0
            if new:
                more += 1
            else:
                last = number
            text = f"{text[: found.start(1)]}{last + more}{text[found.end(1) :]}"
        texts.append(text)
    return texts


class SelectingFuser(BaseFuser):
    """A fuser that makes its text of the candidates' alone: it ignores instruction, input and seed."""

    @abstractmethod
    def select(self, texts: Sequence[str]) -> Fusion:
        """Fuse candidates, best first; at least one."""

    async def _fuse(self, row: Row, seed: int, on_text: OnText | None) -> Fusion:
        fusion = self.select(list(row.candidates))
        if on_text is not None:
            on_text(fusion.text)
        return fusion


_LEAST = 3  # candidates from which on there are others to agree
_CODE = "```"


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
        offered = offers(others[: self.sources])
        chosen = [offered[i] for i in self._choose(best, offered, others)]
        sources = sorted({offer.source + 1 for offer in chosen})
        return Fusion(merge(sentences(best), chosen), self.name, (0, *sources))

    def _choose(self, best: str, offered: Sequence[Offer], others: Sequence[str]) -> list[int]:
        """The sentences to put in, in the order in which they were found."""
        counts = gram_counts([best, *(offer.text for offer in offered), *others])
        text, offers, evidence = counts[:1], counts[1 : 1 + len(offered)], counts[1 + len(offered) :]
        heard = np.ones((len(offered), len(others)))  # everybody but who says it
        heard[np.arange(len(offered)), [offer.source for offer in offered]] = 0
        heard /= heard.sum(axis=1, keepdims=True)
        chosen: list[int] = []
        while offered and len(chosen) < self.most:
            gains = ((agreement(text + offers, evidence) - agreement(text, evidence)) * heard).sum(axis=1)
            first = int(gains.argmax())
            if gains[first] < self.gain:
                break
            chosen.append(first)
            text = text + offers[first]
        return chosen


class LongestFuser(SelectingFuser):
    """Copies the longest candidate, by characters; of equal ones the first.

    Judges, rankers and metrics that count what a reference says all like long answers: what a fuser gains over this
    one, it gains by more than length.
    """

    name = "longest"

    def select(self, texts: Sequence[str]) -> Fusion:
        """The longest one."""
        place = max(range(len(texts)), key=lambda i: len(texts[i]))
        return Fusion(texts[place].strip(), self.name, (place,))

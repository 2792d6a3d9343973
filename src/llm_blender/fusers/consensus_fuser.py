"""Fusers that write no text of their own: ConsensusFuser adds sentences to the best candidate, LongestFuser copies."""

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
from llm_blender.fusers.texts import INTRODUCTION, LIST_MARK, WORDS, sentences, without_torn_end
from llm_blender.types import Fusion, OnText

_NEAR = 3  # sentences before a place, in which to look for the list that an item joins

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Offer:
    """A sentence that may be inserted into another text.

    Attributes:
        text: without white space around it.
        source: index of its text.
        place: position of its middle in its text, 0 to 1, with all sentences of equal length.
    """

    text: str
    source: int
    place: float


def offers(texts: Sequence[str]) -> list[Offer]:
    """Return all sentences of these texts that contain a word, without those that break off or introduce others."""
    return [
        Offer(unit.strip(), source, (place + 0.5) / len(units))
        for source, text in enumerate(texts)
        for units in [sentences(without_torn_end(text))]
        for place, unit in enumerate(units)
        if WORDS.search(unit) and not INTRODUCTION.search(unit)
    ]


def gram_counts(texts: Sequence[str]) -> Counts:
    """Count each of V words and pairs of words in each of T texts, ``[T, V]``."""
    bags = [_grams(text) for text in texts]
    numbers: dict[object, int] = {}
    rows = [[numbers.setdefault(gram, len(numbers)) for gram in bag] for bag in bags]
    counts = np.zeros((len(bags), len(numbers)), np.int64)
    for row, (columns, bag) in enumerate(zip(rows, bags, strict=True)):
        counts[row, columns] = list(bag.values())
    return counts


def agreement(texts: Counts, evidence: Counts) -> NDArray[np.float64]:
    """Compute the F1 of each of T texts with each of N others, ``[T, N]``, from counts ``[T, V]`` and ``[N, V]``."""
    shared = np.stack([np.minimum(texts, counts).sum(axis=1) for counts in evidence], axis=1)
    return np.asarray(2 * shared / np.maximum(texts.sum(axis=1)[:, None] + evidence.sum(axis=1), 1))


def merge(units: Sequence[str], added: Sequence[Offer]) -> str:
    """Insert sentences into a text, each at about the position that it had in its own.

    A list item takes the form of the list that it joins, and the items after it are renumbered.
    """
    flagged = [(unit, False) for unit in units]
    # Backwards, so that earlier positions stay valid.
    for offer in sorted(added, key=lambda offer: -offer.place):
        _put_in(flagged, int(offer.place * len(units) + 0.5), offer.text)
    return "".join(unit if unit[-1:].isspace() else f"{unit} " for unit in _numbered(flagged)).strip()


def _grams(text: str) -> Counter[object]:
    words = WORDS.findall(text.lower())
    return Counter(words) + Counter(itertools.pairwise(words))


def _put_in(units: list[tuple[str, bool]], at: int, sentence: str) -> None:
    """Insert a sentence before unit `at`, with the line end of its neighbours, flagged as new.

    A list item takes the form of the list that it joins, and splits no line. Any other sentence goes before an
    introduction, not between that and what it introduces.
    """
    if LIST_MARK.match(sentence):
        at = next((i for i in range(at, len(units)) if i == 0 or units[i - 1][0].endswith("\n")), len(units))
        near = (LIST_MARK.match(unit) for unit, _ in (*units[at : at + 1], *units[:at][::-1][:_NEAR]))
        mark = next((found[0].lstrip() for found in near if found), "- ")
        sentence = f"{mark}{LIST_MARK.sub('', sentence)}\n"
        if at and not units[at - 1][0].endswith("\n"):
            units[at - 1] = (units[at - 1][0].rstrip() + "\n", units[at - 1][1])
    else:
        while at and INTRODUCTION.search(units[at - 1][0]):
            at -= 1
        sentence += "\n" if at == 0 or units[at - 1][0].endswith("\n") else " "
    units.insert(at, (sentence, True))


def _numbered(units: Sequence[tuple[str, bool]]) -> list[str]:
    """Renumber list items after each new one, and return the units; a list begins where the numbers drop."""
    texts, last, more = [], 0, 0
    for at, (text, new) in enumerate(units):
        found = LIST_MARK.match(text)
        if found and found[1]:
            # A new item belongs to the list of the next old unit, if that is an item.
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


_LEAST = 3  # candidates, so that others can agree
_CODE = "```"
_SHORT = 4
"""How many times shorter than the median of the others a best candidate is that answers in a few words, on purpose."""


class ConsensusFuser(SelectingFuser):
    """A fuser that inserts sentences of other good candidates into the best one if that brings it closer to all.

    The sentence that raises the agreement with the other candidates most is inserted at about the position that it had
    in its own text; then the next one, until none raises it by `gain` or `most` are in. The agreement of two texts is
    the F1 of their words and pairs of words, each counted as often as it occurs; the mean over the other candidates
    leaves out the source of the sentence. Choosing the text that agrees most with a sample is minimum Bayes risk
    decoding (Kumar and Byrne 2004, aclanthology.org/N04-1022); here the text may be composed of several. It needs no
    model and no instruction, and adds nothing that is in no candidate. A sentence that ends in a colon introduces
    what follows it in its own text, and is not inserted. A last sentence that breaks off is left out, of the best
    candidate, too. Texts with code are left unchanged, and so is a best candidate far shorter than the others.

    Args:
        sources: number of candidates after the best one to take sentences from; the agreement counts all candidates.
        gain: least rise of that mean, 0 to 1, for a sentence to be inserted.
        most: most sentences to insert.

    Raises:
        InputError: an argument is out of range.
    """

    name = "consensus"
    maximises_agreement = True
    """Marks a fuser that reads all candidates, best first, and writes what they agree on."""

    def __init__(self, sources: int = 3, gain: float = 0.0015, most: int = 8) -> None:
        if sources < 1 or most < 1 or not 0 < gain < 1:
            raise InputError(
                f"sources and most are at least 1, gain is between 0 and 1: not {sources}, {most}, {gain}."
            )
        self.sources, self.gain, self.most = sources, gain, most

    def select(self, texts: Sequence[str]) -> Fusion:
        """Return the best candidate with inserted sentences; unchanged if there are fewer than three candidates."""
        best, others = texts[0].strip(), texts[1:]
        if len(texts) < _LEAST or any(_CODE in text for text in texts[: self.sources + 1]):
            return Fusion(best, self.name, (0,))
        best = without_torn_end(best)
        if _SHORT * len(best) < float(np.median([len(text) for text in others])):
            return Fusion(best, self.name, (0,))
        offered = offers(others[: self.sources])
        chosen = [offered[i] for i in self._choose(best, offered, others)]
        sources = sorted({offer.source + 1 for offer in chosen})
        return Fusion(merge(sentences(best), chosen), self.name, (0, *sources))

    def _choose(self, best: str, offered: Sequence[Offer], others: Sequence[str]) -> list[int]:
        """Choose the sentences to insert, one after another, by their gain; return their indices."""
        counts = gram_counts([best, *(offer.text for offer in offered), *others])
        text, offers, evidence = counts[:1], counts[1 : 1 + len(offered)], counts[1 + len(offered) :]
        counted = np.ones((len(offered), len(others)))  # all candidates but the source of the sentence
        counted[np.arange(len(offered)), [offer.source for offer in offered]] = 0
        counted /= counted.sum(axis=1, keepdims=True)
        chosen: list[int] = []
        while offered and len(chosen) < self.most:
            gains = ((agreement(text + offers, evidence) - agreement(text, evidence)) * counted).sum(axis=1)
            first = int(gains.argmax())
            if gains[first] < self.gain:
                break
            chosen.append(first)
            text = text + offers[first]
        return chosen


class LongestFuser(SelectingFuser):
    """The baseline that copies the longest candidate, in characters; the first of equal ones.

    Judges, rankers and recall-oriented metrics all favour long answers: a gain over this fuser is more than length.
    """

    name = "longest"

    def select(self, texts: Sequence[str]) -> Fusion:
        """Return the longest candidate."""
        place = max(range(len(texts)), key=lambda i: len(texts[i]))
        return Fusion(texts[place].strip(), self.name, (place,))

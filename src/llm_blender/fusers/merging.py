"""Texts put together of several: what their sentences bring, and where they get."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm_blender.fusers.sentences import LIST_MARK, WORDS, sentences

__all__ = ["Counts", "Offer", "agreement", "gram_counts", "merge", "offers"]

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

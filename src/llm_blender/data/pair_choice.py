"""Which two candidates of a ranking become a preference, and how sure the ranker is of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np

from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Instruction, Ranker, Ranking

__all__ = ["PAIR_CHOICES", "ChosenPairs", "PairChoice", "Reason", "choose_pairs", "compare_chosen"]

PairChoice = Literal["best_worst", "best_second", "best_random", "all"]
PAIR_CHOICES: tuple[str, ...] = get_args(PairChoice)

Reason = Literal["single", "equal", "tie", "contradicted", "unsure", "uncompared"]
"""Why there is no record.

`single`: fewer than two candidates say anything. `equal`: all say the same. `tie`: they share a rank, or the
evidence is zero. `contradicted`: the one ranked lower wins the direct comparison. `unsure`: the probability is too
low. `uncompared`: a probability is asked for, and the two were never compared.
"""


@dataclass(frozen=True)
class ChosenPairs:
    """The pairs of one row.

    Attributes:
        pairs: 0-based candidates, the better ranked one first.
        dropped: why others are not among them; with any choice but ``all``, there is one pair or one reason.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    dropped: tuple[Reason, ...] = ()


def choose_pairs(
    texts: Sequence[str], ranking: Ranking, choice: PairChoice = "best_worst", *, seed: int = 0
) -> ChosenPairs:
    """The pairs that become preferences.

    Blank texts are no candidates, and equal texts are one, which stands where the best of them stands. Who is best is
    what `Ranking.best` says; among several that share the other place, one is drawn, since taking the last would
    always blame the LLM that happens to stand last in the rows.

    Args:
        texts: the candidates that were ranked.
        ranking: of them.
        choice: the best against the worst, the second best or a random worse one; or all pairs.
        seed: of the draws, which else depend on the texts alone.

    Raises:
        InputError: the choice is unknown, or the ranking is one of more or fewer candidates.
    """
    if choice not in PAIR_CHOICES:
        raise unknown_name("choice of pairs", choice, PAIR_CHOICES)
    first: dict[str, int] = {}
    for text, i in zip(ranking.sorted(texts), ranking.order, strict=True):
        if text.strip():
            first.setdefault(text, i)
    if len(first) < 2:
        written = sum(1 for text in texts if text.strip())
        reason: Reason = "equal" if written > 1 else "single"
        return ChosenPairs(dropped=(reason,))
    ranks, candidates = ranking.ranks, list(first.values())
    if choice == "all":
        pairs = tuple((i, j) for i, j in combinations(candidates, 2) if ranks[i] < ranks[j])
        ties: list[Reason] = ["tie"] * (len(candidates) * (len(candidates) - 1) // 2 - len(pairs))
        return ChosenPairs(pairs, tuple(ties))
    best, *others = candidates
    if choice == "best_random":
        pool = [i for i in others if ranks[i] > ranks[best]]
    else:
        place = ranks[others[0 if choice == "best_second" else -1]]
        pool = [i for i in others if ranks[i] == place > ranks[best]]
    if not pool:
        return ChosenPairs(dropped=("tie",))
    return ChosenPairs(((best, random.Random("\0".join([str(seed), *texts])).choice(pool)),))


def compare_chosen(
    ranker: Ranker,
    instructions: Sequence[Instruction],
    candidates: Sequence[Sequence[str]],
    rankings: Sequence[Ranking],
    chosen: Sequence[ChosenPairs],
) -> list[Ranking]:
    """The rankings with the evidence of their chosen pairs in both orders, where a strategy had left it out.

    What is missing is compared for all rows together. Order, ranks and scores stay as they are.

    Args:
        ranker: the one that made the rankings.
        instructions: prompts or conversations.
        candidates: texts of each.
        rankings: of the candidates.
        chosen: by `choose_pairs`.

    Raises:
        InputError: the lists differ in length.
    """
    if not len(instructions) == len(candidates) == len(rankings) == len(chosen):
        raise InputError("Instructions, candidates, rankings and chosen pairs must be of the same number.")
    missing = [
        (row, i, j)
        for row, (ranking, of_row) in enumerate(zip(rankings, chosen, strict=True))
        for i, j in of_row.pairs
        if np.isnan([ranking.logits[i, j], ranking.logits[j, i]]).any()
    ]
    if not missing:
        return list(rankings)
    duels = ranker.rank_many(
        [instructions[row] for row, _, _ in missing],
        [[candidates[row][i], candidates[row][j]] for row, i, j in missing],
        strategy="full",
    )
    completed = [replace(ranking, logits=ranking.logits.copy()) for ranking in rankings]
    for (row, i, j), duel in zip(missing, duels, strict=True):
        completed[row].logits[i, j], completed[row].logits[j, i] = duel.logits[0, 1], duel.logits[1, 0]
        completed[row] = replace(completed[row], comparisons=completed[row].comparisons + duel.comparisons)
    return completed

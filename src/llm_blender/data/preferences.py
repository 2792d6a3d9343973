"""Preference records, from which others train: the better answer, the worse one, and how sure that is."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np

from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Candidate, Example, Instruction, Message, Ranker, Ranking, instruction_text, to_messages

__all__ = [
    "PAIR_CHOICES",
    "PREFERENCE_FORMATS",
    "VOTE_FORMATS",
    "ChosenPairs",
    "PairChoice",
    "Preference",
    "PreferenceFormat",
    "Preferences",
    "Reason",
    "VoteFormat",
    "choose_pairs",
    "compare_chosen",
    "make_preferences",
    "vote_records",
]

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


PreferenceFormat = Literal["conversational", "standard"]
"""TRL's names: `conversational` is messages, `standard` is texts that are trained on one right after the other."""
PREFERENCE_FORMATS: tuple[str, ...] = get_args(PreferenceFormat)


@dataclass(frozen=True)
class Preference:
    """One row of a preference data set.

    Attributes:
        prompt: messages (conversational) or text (standard).
        chosen: the better answer, as one message of the assistant's in a list, or as text.
        rejected: the worse answer, likewise.
        margin: evidence that the chosen one is better: the logit of the direct comparison,
            (l(chosen, rejected) − l(rejected, chosen)) / 2; where they were not compared, how much higher it scores.
        probability: that the chosen one is better; None where they were not compared.
        chosen_model: who wrote the chosen one, if known.
        rejected_model: who wrote the rejected one, if known.
        id: of the row.
    """

    prompt: str | list[Message]
    chosen: str | list[Message]
    rejected: str | list[Message]
    margin: float
    probability: float | None
    chosen_model: str | None
    rejected_model: str | None
    id: str | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is unknown stays as null, so that all rows of a file have the same columns."""
        return dict(vars(self))


@dataclass(frozen=True)
class Preferences:
    """What a row came to.

    Attributes:
        records: its preferences.
        dropped: why other pairs gave none.
    """

    records: tuple[Preference, ...]
    dropped: tuple[Reason, ...]


def make_preferences(
    example: Example,
    ranking: Ranking,
    pairs: PairChoice | ChosenPairs = "best_worst",
    *,
    min_confidence: float = 0.5,
    format: PreferenceFormat = "conversational",
    seed: int = 0,
) -> Preferences:
    """The preference records of a row.

    Args:
        example: the row.
        ranking: of its candidates. Strategies other than ``full`` may not have compared the pairs; `compare_chosen`
            makes up for it.
        pairs: see `choose_pairs`; or what it has chosen.
        min_confidence: the least probability that the chosen one is better; above 0.5, pairs that were not compared
            are left out.
        format: for a trainer that applies a chat template, or for one that takes texts as they are.
        seed: of the pairs that are drawn.

    Raises:
        InputError: a name is unknown, the confidence is not from 0.5 to 1, or the ranking is not of these candidates.

    Example:
        >>> from llm_blender import Candidate, Example
        >>> from llm_blender.testing import FakeRanker
        >>> example = Example("Hi!", candidates=(Candidate("Go away."), Candidate("Hello, how are you?")))
        >>> ranking = FakeRanker().rank("Hi!", ["Go away.", "Hello, how are you?"])
        >>> make_preferences(example, ranking, format="standard").records[0].chosen
        'Hello, how are you?'
    """
    _check_options(min_confidence, format)
    candidates = example.candidates
    if not isinstance(pairs, ChosenPairs):
        pairs = choose_pairs([candidate.text for candidate in candidates], ranking, pairs, seed=seed)
    records: list[Preference] = []
    dropped = list(pairs.dropped)
    for chosen, rejected in pairs.pairs:
        margin, probability = _evidence(ranking, chosen, rejected)
        reason = _objection(margin, probability, min_confidence)
        if reason is not None:
            dropped.append(reason)
            continue
        record = Preference(
            prompt=example.prompt if format == "standard" else _messages(example),
            chosen=_completion(candidates[chosen].text, format),
            rejected=_completion(candidates[rejected].text, format),
            margin=margin,
            probability=probability,
            chosen_model=candidates[chosen].model,
            rejected_model=candidates[rejected].model,
            id=example.id,
        )
        records.append(record)
    return Preferences(tuple(records), tuple(dropped))


def _check_options(min_confidence: float, format: str) -> None:
    if format not in PREFERENCE_FORMATS:
        raise unknown_name("format", format, PREFERENCE_FORMATS)
    if not 0.5 <= min_confidence <= 1:
        raise InputError(f"The least confidence is a probability from 0.5 to 1, not {min_confidence}.")


def _evidence(ranking: Ranking, chosen: int, rejected: int) -> tuple[float, float | None]:
    margin = ranking.logit(chosen, rejected)
    if math.isnan(margin):
        return float(ranking.scores[chosen] - ranking.scores[rejected]), None
    return float(margin), ranking.probability(chosen, rejected)


def _objection(margin: float, probability: float | None, min_confidence: float) -> Reason | None:
    if probability is None:
        return "uncompared" if min_confidence > 0.5 else None
    if margin <= 0:
        return "contradicted" if margin < 0 else "tie"
    return "unsure" if probability < min_confidence else None


def _messages(example: Example) -> list[Message]:
    if isinstance(example.instruction, str):
        return to_messages(example.prompt)
    *earlier, last = to_messages(example.instruction)
    return [*earlier, {"role": last["role"], "content": instruction_text(last["content"], example.input)}]


def _completion(text: str, format: PreferenceFormat) -> str | list[Message]:
    return text if format == "standard" else [{"role": "assistant", "content": text}]


VoteFormat = Literal["rows", "conversational", "standard"]
"""Rows with labelled pairs, for ``blend train ranker --pairs labelled`` and ``blend bench pairs``; or preference
records, for DPO and reward models, as `make_preferences` makes them."""
VOTE_FORMATS: tuple[str, ...] = get_args(VoteFormat)


def vote_records(examples: Iterable[Example], format: VoteFormat = "rows") -> Iterator[dict[str, Any]]:
    """The records of a file of votes.

    Args:
        examples: with labelled pairs; others give nothing.
        format: ``rows`` gives one record an example, the others one a vote that is no tie. A vote has no margin: it
            is 0 there, and the probability null.

    Raises:
        InputError: the format is unknown.
    """
    if format not in VOTE_FORMATS:
        raise unknown_name("format", format, VOTE_FORMATS)
    for example in examples:
        if format in PREFERENCE_FORMATS:
            yield from (preference.to_dict() for preference in _preferences(example, format == "standard"))
        elif example.pairs:
            yield _row(example)


def _row(example: Example) -> dict[str, Any]:
    given = example.instruction
    return {
        "id": example.id,
        "instruction": given if isinstance(given, str) else list(given),
        "candidates": [{"text": candidate.text, "model": candidate.model} for candidate in example.candidates],
        "pairs": [pair.to_dict() for pair in example.pairs],
    }


def _preferences(example: Example, as_texts: bool) -> Iterator[Preference]:
    for pair in example.pairs:
        if pair.label == "tie":
            continue
        places = (pair.a, pair.b) if pair.label == "a" else (pair.b, pair.a)
        chosen, rejected = (example.candidates[place] for place in places)
        yield Preference(
            prompt=example.prompt if as_texts else to_messages(example.instruction),
            chosen=chosen.text if as_texts else _turn(chosen),
            rejected=rejected.text if as_texts else _turn(rejected),
            margin=0.0,
            probability=None,
            chosen_model=chosen.model,
            rejected_model=rejected.model,
            id=example.id,
        )


def _turn(candidate: Candidate) -> list[Message]:
    return [{"role": "assistant", "content": candidate.text}]

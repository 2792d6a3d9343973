"""Make preference records for DPO and reward models: prompt, chosen answer, rejected answer and margin."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np

from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Example, Instruction, Ranker, Ranking, TextMessage, instruction_text, text_messages

PairChoice = Literal["best_worst", "best_second", "best_random", "all"]
PAIR_CHOICES: tuple[str, ...] = get_args(PairChoice)

Reason = Literal["single", "equal", "tie", "contradicted", "unsure", "uncompared", "cut_off"]
"""Reason for making no record.

`single`: fewer than two candidates have text. `equal`: all candidates are the same text. `tie`: the two share a rank,
or their logit is zero. `contradicted`: the lower ranked one wins the direct comparison. `unsure`: the probability is
below the minimum. `uncompared`: a minimum is set, and the two were never compared. `cut_off`: the chosen one was cut
off at its maximum of tokens, and whole ones are wanted.
"""


@dataclass(frozen=True)
class ChosenPairs:
    """Pairs of a row.

    Attributes:
        pairs: 0-based indices of candidates, the better ranked one first.
        dropped: reasons of the pairs left out; with any choice but ``all``, there is one pair or one reason.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    dropped: tuple[Reason, ...] = ()


def choose_pairs(
    texts: Sequence[str], ranking: Ranking, choice: PairChoice = "best_worst", *, seed: int = 0
) -> ChosenPairs:
    """Choose the pairs that become preferences.

    Blank texts are ignored, and equal texts count as one, at the rank of the best of them. `Ranking.best` is always
    chosen. Among several candidates that share the rejected rank, one is drawn: the last one would always be of the
    LLM that is last in the rows.

    Args:
        texts: ranked candidates.
        ranking: their ranking.
        choice: the best against the worst, the second best or a random worse one; or all pairs.
        seed: seed of the draws, which otherwise depend only on the texts.

    Raises:
        InputError: the choice is unknown, or the ranking has another number of candidates.
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
    """Compare the chosen pairs that a strategy left out, in both orders, and add their logits to the rankings.

    The missing pairs of all rows are compared together. Order, ranks and scores do not change.

    Args:
        ranker: ranker that made the rankings.
        instructions: prompts or conversations.
        candidates: texts of each instruction.
        rankings: rankings of the candidates.
        chosen: pairs from `choose_pairs`.

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
"""TRL's names: `conversational` is messages, `standard` is plain texts that training concatenates."""
PREFERENCE_FORMATS: tuple[str, ...] = get_args(PreferenceFormat)


@dataclass(frozen=True)
class Preference:
    """Record of a preference data set.

    Attributes:
        prompt: messages (conversational) or text (standard).
        chosen: better answer, as a list of one assistant message, or as text.
        rejected: worse answer, likewise.
        margin: logit of the direct comparison, (l(chosen, rejected) − l(rejected, chosen)) / 2; difference of the
            scores if the two were not compared.
        probability: probability that the chosen one is better; None if the two were not compared.
        chosen_model: LLM that wrote the chosen one, if known.
        rejected_model: LLM that wrote the rejected one, if known.
        id: id of the row.
    """

    prompt: str | list[TextMessage]
    chosen: str | list[TextMessage]
    rejected: str | list[TextMessage]
    margin: float
    probability: float | None
    chosen_model: str | None
    rejected_model: str | None
    id: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; unknown ones are null, so that all records of a file have the same columns."""
        return dict(vars(self))


@dataclass(frozen=True)
class Preferences:
    """Preferences of a row.

    Attributes:
        records: preference records.
        dropped: reasons of the pairs without a record.
        cut_off: number of records whose chosen answer was cut off at its maximum of tokens.
    """

    records: tuple[Preference, ...]
    dropped: tuple[Reason, ...]
    cut_off: int = 0


def make_preferences(
    example: Example,
    ranking: Ranking,
    pairs: PairChoice | ChosenPairs = "best_worst",
    *,
    min_confidence: float = 0.5,
    format: PreferenceFormat = "conversational",
    seed: int = 0,
    whole: bool = False,
) -> Preferences:
    """Make the preference records of a row.

    Args:
        example: the row.
        ranking: ranking of its candidates. Strategies other than ``full`` may not have compared the pairs;
            `compare_chosen` adds their comparisons.
        pairs: choice of `choose_pairs`, or its result.
        min_confidence: minimum probability that the chosen one is better; above 0.5, pairs that were not compared are
            left out.
        format: ``conversational`` for a trainer that applies a chat template, ``standard`` for one that does not.
        seed: seed of the pairs that are drawn.
        whole: leave out pairs whose chosen answer was cut off, by the `finish_reason` of the candidate.

    Raises:
        InputError: a name is unknown, the confidence is not from 0.5 to 1, or the ranking is not of these candidates.

    Examples:
        >>> from llm_blender import Candidate, Example
        >>> from llm_blender.testing import FakeRanker
        >>> example = Example("Hi!", candidates=(Candidate("Go away."), Candidate("Hello, how are you?")))
        >>> ranking = FakeRanker().rank("Hi!", ["Go away.", "Hello, how are you?"])
        >>> make_preferences(example, ranking, format="standard").records[0].chosen
        'Hello, how are you?'
    """
    if format not in PREFERENCE_FORMATS:
        raise unknown_name("format", format, PREFERENCE_FORMATS)
    if not 0.5 <= min_confidence <= 1:
        raise InputError(f"The least confidence is a probability from 0.5 to 1, not {min_confidence}.")
    if not isinstance(pairs, ChosenPairs):
        pairs = choose_pairs([candidate.text for candidate in example.candidates], ranking, pairs, seed=seed)
    records: list[Preference] = []
    dropped, cut_off = list(pairs.dropped), 0
    for chosen, rejected in pairs.pairs:
        margin, probability = _evidence(ranking, chosen, rejected)
        reason, cut = _objection(margin, probability, min_confidence), example.candidates[chosen].cut_off
        if reason is None and cut and whole:
            reason = "cut_off"
        if reason is None:
            cut_off += cut
            records.append(_preference(example, chosen, rejected, format, margin, probability))
        else:
            dropped.append(reason)
    return Preferences(tuple(records), tuple(dropped), cut_off)


def _preference(
    example: Example, chosen: int, rejected: int, format: str, margin: float = 0.0, probability: float | None = None
) -> Preference:
    better, worse = example.candidates[chosen], example.candidates[rejected]
    return Preference(
        prompt=example.prompt if format == "standard" else _messages(example),
        chosen=_completion(better.text, format),
        rejected=_completion(worse.text, format),
        margin=margin,
        probability=probability,
        chosen_model=better.model,
        rejected_model=worse.model,
        id=example.id,
    )


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


def _messages(example: Example) -> list[TextMessage]:
    if isinstance(example.instruction, str):
        return text_messages(example.prompt)
    *earlier, last = text_messages(example.instruction)
    return [*earlier, {"role": last["role"], "content": instruction_text(last["content"], example.input)}]


def _completion(text: str, format: str) -> str | list[TextMessage]:
    return text if format == "standard" else [{"role": "assistant", "content": text}]


VoteFormat = Literal["rows", "conversational", "standard"]
"""Rows with labelled pairs, for ``blend train ranker --pairs labelled`` and ``blend bench pairs``; or preference
records as `make_preferences` makes them."""
VOTE_FORMATS: tuple[str, ...] = get_args(VoteFormat)


def vote_records(examples: Iterable[Example], format: VoteFormat = "rows") -> Iterator[dict[str, Any]]:
    """Yield the records of a file of votes.

    Args:
        examples: examples with labelled pairs; others yield nothing.
        format: ``rows`` yields one record per example, the others one per vote that is no tie, with margin 0 and
            probability null.

    Raises:
        InputError: the format is unknown.
    """
    if format not in VOTE_FORMATS:
        raise unknown_name("format", format, VOTE_FORMATS)
    for example in examples:
        if format in PREFERENCE_FORMATS:
            for pair in example.pairs:
                if pair.label != "tie":
                    chosen, rejected = (pair.a, pair.b) if pair.label == "a" else (pair.b, pair.a)
                    yield _preference(example, chosen, rejected, format).to_dict()
        elif example.pairs:
            given = example.instruction
            yield {
                "id": example.id,
                "instruction": given if isinstance(given, str) else list(given),
                "candidates": [{"text": candidate.text, "model": candidate.model} for candidate in example.candidates],
                "pairs": [pair.to_dict() for pair in example.pairs],
            }

"""Preference records, from which others train: the better answer, the worse one, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llm_blender.data.pair_choice import ChosenPairs, PairChoice, Reason, choose_pairs
from llm_blender.errors import InputError, unknown_name
from llm_blender.types import Example, Message, Ranking, instruction_text, to_messages

__all__ = [
    "PREFERENCE_FORMATS",
    "Preference",
    "PreferenceFormat",
    "Preferences",
    "make_preferences",
]

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

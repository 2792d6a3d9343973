"""Read rows in MixInstruct's format: ``{id?, instruction, input?, output?|reference?, candidates, pairs?}``.

``prompt``, ``question`` and ``messages`` are other names of ``instruction``. `read_rows` reads preferences
``{prompt, chosen, rejected}`` as well, as rows with two candidates and a labelled pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llm_blender.conversations import PROMPT_KEYS, prompt_key
from llm_blender.data.files import Records
from llm_blender.data.prompts import answered_prompt, read_conversation
from llm_blender.data.records import SkipRecord, coin, number, optional_text, short_values
from llm_blender.errors import RowError
from llm_blender.ranking import ranking_from_scores
from llm_blender.types import Candidate, Example, LabelledPair, Ranking

_T = TypeVar("_T")
OnBad = Callable[[RowError], None]

_OWN = {"id", "instruction", "input", "output", "reference", "candidates", "pairs"}


def read_rows(path: str | Path, *, on_bad: OnBad | None = None) -> Iterator[Example]:
    """Yield the rows of a file.

    Args:
        path: files that `read_records` reads, or ``-`` for standard input.
        on_bad: called with the error of each malformed row, which is then skipped; None raises the first error.

    Raises:
        RowError: the first malformed row.
        NotFoundError: there is no such file.
    """
    return parse_rows(path, parse_judged_row, on_bad=on_bad)


def parse_rows(path: str | Path, parse: Callable[[dict[str, Any]], _T], *, on_bad: OnBad | None = None) -> Iterator[_T]:
    """Yield what `parse` makes of the records of a file; otherwise like `read_rows`.

    `parse` raises ValueError for a malformed record.
    """
    return parse_records(path, lambda _, record: parse(record), on_bad=on_bad)


def parse_records(
    path: str | Path, parse: Callable[[int, dict[str, Any]], _T], *, on_bad: OnBad | None = None
) -> Iterator[_T]:
    """Yield what `parse` makes of each line and record; otherwise like `parse_rows`."""
    records = Records(path)
    for line, record in records:
        if not isinstance(record, RowError):
            try:
                parsed = parse(line, record)
            except ValueError as error:
                record = records.error(line, str(error))
            else:
                yield parsed
                continue
        if on_bad is None:
            raise record
        on_bad(record)


def parse_row(record: Mapping[str, Any]) -> Example:
    """Parse a row into an `Example`.

    Raises:
        ValueError: the row is malformed.
    """
    prompt = prompt_key(record, "instruction")
    if prompt is None:
        other = ", ".join(f"`{key}`" for key in PROMPT_KEYS if key != "instruction")
        raise ValueError(f"`instruction` is missing: a text or a list of messages is wanted; other names are {other}")
    instruction = record[prompt]
    if not isinstance(instruction, str):
        instruction = tuple(read_conversation(instruction, prompt))
    candidates = record.get("candidates")
    if candidates is None:
        raise ValueError(
            "`candidates` is missing: a list of texts or of {text, model} is wanted; in a table columns candidate:MODEL"
        )
    if not isinstance(candidates, list):
        kind = type(candidates).__name__
        raise ValueError(f"`candidates` must be a list of texts or of {{text, model}}, not {kind}")
    reference = next((record[key] for key in ("reference", "output") if record.get(key) is not None), None)
    if reference is not None and not isinstance(reference, str):
        raise ValueError(f"the reference must be a text, not {type(reference).__name__}")
    own_input = record.get("input") or ""
    if not isinstance(own_input, str):
        raise ValueError(f"`input` must be a text, not {type(own_input).__name__}")
    pairs = record.get("pairs") or []
    if not isinstance(pairs, list):
        raise ValueError(f"`pairs` must be a list, not {type(pairs).__name__}")
    return Example(
        instruction=instruction,
        input=own_input,
        reference=reference,
        candidates=tuple(parse_candidate(value, name=f"candidate {i}") for i, value in enumerate(candidates)),
        pairs=tuple(_pair(i, value, len(candidates)) for i, value in enumerate(pairs)),
        id=None if record.get("id") is None else str(record["id"]),
        extra={key: value for key, value in record.items() if key not in _OWN and key != prompt},
    )


_SCORES = (
    ("score", "score_chosen", "score_rejected"),
    ("score", "chosen_score", "rejected_score"),
    ("rating", "chosen_rating", "rejected_rating"),
)
"""Name of a score in the row, and the keys of the chosen and the rejected answer's score."""
_USED = {*PROMPT_KEYS, "input", "system", "chosen", "rejected", "chosen_model", "rejected_model"}
_USED.update(key for _, *keys in _SCORES for key in keys)


def read_chosen_rejected(record: Mapping[str, Any], *, judge: str = "", seed: int = 0) -> Example:
    """Read ``{prompt, chosen, rejected}``, or two whole conversations under `chosen` and `rejected`.

    The order of the two is drawn, so that the better one is not always first.

    Raises:
        ValueError: the record is malformed.
        SkipRecord: it is of no use.
    """
    prompt, chosen, rejected = answered_prompt(record, "chosen", "rejected")
    if chosen.strip() == rejected.strip():
        raise SkipRecord("both answers read the same")
    scores: tuple[dict[str, float], dict[str, float]] = ({}, {})
    for name, *keys in _SCORES:
        for of_answer, key in zip(scores, keys, strict=True):
            value = number(record.get(key))
            if value is not None:
                of_answer.setdefault(name, value)
    better = Candidate(chosen, optional_text(record, "chosen_model") or None, scores[0])
    worse = Candidate(rejected, optional_text(record, "rejected_model") or None, scores[1])
    swapped = coin(seed, "order", chosen, rejected)
    return Example(
        instruction=prompt.instruction,
        input=prompt.input,
        candidates=(worse, better) if swapped else (better, worse),
        pairs=(LabelledPair(0, 1, "b" if swapped else "a", judge),),
        extra={"meta": short_values(record, _USED)},
    )


def parse_judged_row(record: Mapping[str, Any]) -> Example:
    """Parse a row or a preference ``{prompt, chosen, rejected}`` into an `Example`.

    A preference has a labelled pair and no scores: its pair is what the file states. One that teaches nothing (equal
    answers, no prompt) has no candidates.

    Raises:
        ValueError: the row is malformed.
    """
    if record.get("candidates") is not None or not record.keys() >= {"chosen", "rejected"}:
        return parse_row(record)
    try:
        found = read_chosen_rejected(record)
    except SkipRecord:
        return Example("")
    bare = tuple(replace(candidate, scores={}) for candidate in found.candidates)
    return replace(found, candidates=bare, id=None if record.get("id") is None else str(record["id"]))


def parse_candidate(value: Any, *, name: str = "the candidate") -> Candidate:
    """Parse a candidate of a row: a text, or an object of a `text` and, if known, `model`, `scores`, `finish_reason`.

    Args:
        value: the candidate.
        name: name of the candidate in an error.

    Raises:
        ValueError: it is malformed.
    """
    if isinstance(value, str):
        return Candidate(value)
    if not (isinstance(value, Mapping) and isinstance(value.get("text"), str)):
        raise ValueError(f"{name} is neither a text nor an object with a `text`")
    scores = value.get("scores") or {}
    try:
        numbers = {name: float(score) for name, score in scores.items() if score is not None}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"the scores of {name} must be numbers by name") from None
    finite = {name: score for name, score in numbers.items() if math.isfinite(score)}
    model, reason = value.get("model"), value.get("finish_reason")
    reason = reason if isinstance(reason, str) else None
    return Candidate(value["text"], None if model is None else str(model), finite, finish_reason=reason)


def _pair(position: int, value: Any, candidates: int) -> LabelledPair:
    if not isinstance(value, Mapping) or value.get("label") not in ("a", "b", "tie"):
        raise ValueError(f'pair {position} must be {{a, b, label: "a"|"b"|"tie"}}')
    a, b = value.get("a"), value.get("b")
    if not all(isinstance(index, int) and 0 <= index < candidates for index in (a, b)) or a == b:
        raise ValueError(f"pair {position} must name two of the {candidates} candidates by their 0-based index")
    return LabelledPair(a, b, value["label"], str(value.get("by") or ""))  # type: ignore[arg-type]


def keep_candidates(record: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """Keep these candidates of a row, in this order; ``pairs`` of the others are dropped."""
    kept = {**record, "candidates": [record["candidates"][index] for index in indices]}
    if record.get("pairs"):
        moved = {old: new for new, old in enumerate(indices)}
        kept["pairs"] = [
            {**pair, "a": moved[pair["a"]], "b": moved[pair["b"]]}
            for pair in record["pairs"]
            if pair["a"] in moved and pair["b"] in moved
        ]
    return kept


def normalized_key(example: Example) -> str:
    """Return the prompt in lower case with white space folded, the same for rows with the same prompt."""
    return " ".join(example.prompt.lower().split())


_SURE = 1e-12  # distance from 0 and 1, whose logits are infinite


def stored_ranking(example: Example) -> Ranking:
    """Read the `ranking` of a row: {best, ranks, scores, strategy, comparisons, lead}. Its only logit is the lead.

    Raises:
        ValueError: there is none, or it contradicts the candidates or itself.
    """
    value = example.extra.get("ranking")
    if value is None:
        raise ValueError("`ranking` is missing: `blend rank` writes it")
    if not isinstance(value, Mapping):
        raise ValueError(f"`ranking` must be an object, not {type(value).__name__}")
    scores, count = value.get("scores"), len(example.candidates)
    if not isinstance(scores, list) or not all(_is_number(score) for score in scores):
        raise ValueError("the `scores` of `ranking` must be a list of numbers")
    if len(scores) != count:
        raise ValueError(f"`ranking` has {len(scores)} scores for {count} candidates: rank the row again")
    ranking = ranking_from_scores(str(value.get("strategy")), scores, np.full((count, count), np.nan))
    if value.get("ranks") != list(ranking.ranks) or value.get("best") != ranking.best:
        raise ValueError("the `ranks` and `best` of `ranking` do not follow from its scores: rank the row again")
    lead = value.get("lead")
    if isinstance(lead, int | float) and 0 <= lead <= 1 and count > 1:
        inside = min(max(lead, _SURE), 1 - _SURE)
        ranking.logits[ranking.order[:2]] = math.log(inside / (1 - inside))
    return ranking


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)

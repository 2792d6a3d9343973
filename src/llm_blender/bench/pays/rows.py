"""Rows with what each of their answers cost and how long it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.bench.pays.prices import PriceList
from llm_blender.bench.scored import ScoredRow, scored_rows
from llm_blender.data import parse_row, parse_rows
from llm_blender.errors import InputError
from llm_blender.types import Candidate, Example, Usage

__all__ = ["PaidFusion", "PaidRow", "PaidRows", "paid_rows"]

_Floats = NDArray[np.float64]

_CHARACTERS = 4  # of a token, roughly, in English
_EXAMPLE = "pays: example"  # where a scored row keeps the example that it was made of


@dataclass(frozen=True)
class PaidFusion:
    """A fused answer that was scored.

    Attributes:
        fuser: its name.
        quality: its score.
        dollars: of the fuser alone; NaN if unknown.
        seconds: of the fuser, after all candidates are there; NaN if unknown.
        candidates_dollars: of all candidates of the row, scored or not; NaN if unknown.
        candidates_seconds: of the slowest of them; NaN if unknown.
        calls: of LLMs, the fuser's among them.
    """

    fuser: str
    quality: float
    dollars: float
    seconds: float
    candidates_dollars: float
    candidates_seconds: float
    calls: int


@dataclass(frozen=True)
class PaidRow:
    """A scored row with its N answers' bills.

    Attributes:
        scored: prompt, texts, models, qualities.
        dollars: ``[N]``; NaN where the price is unknown.
        seconds: ``[N]``; NaN where unknown.
        fusion: None where the row holds no fused answer with the score.
    """

    scored: ScoredRow
    dollars: _Floats
    seconds: _Floats
    fusion: PaidFusion | None = None

    @property
    def models(self) -> tuple[str | None, ...]:
        """Who wrote the answers."""
        return self.scored.models

    def by(self, models: Sequence[str | None]) -> list[int]:
        """The answers of these LLMs; all where none of them has one, so that it is neither punished nor favoured."""
        return [i for i, model in enumerate(self.models) if model in models] or list(range(len(self.models)))


@dataclass(frozen=True)
class PaidRows:
    """The rows of a file.

    Attributes:
        rows: those in which at least two answers have the score.
        answers: in them.
        estimated: answers whose tokens are estimated, as their row holds no `usage`.
        unscored_fusions: fused answers without the score, which are left out.
    """

    rows: tuple[PaidRow, ...]
    answers: int
    estimated: int
    unscored_fusions: int

    @property
    def models(self) -> tuple[str, ...]:
        """All LLMs, by name."""
        return tuple(sorted({model for row in self.rows for model in row.models if model is not None}))

    def unknown(self, what: str) -> tuple[str, ...]:
        """The LLMs with an answer whose ``dollars`` or ``seconds`` are unknown."""
        lost = {
            str(model)
            for row in self.rows
            for model, value in zip(row.models, getattr(row, what), strict=True)
            if math.isnan(value)
        }
        fusers = {row.fusion.fuser for row in self.rows if row.fusion and math.isnan(getattr(row.fusion, what))}
        return tuple(sorted(lost | fusers))


def paid_rows(
    path: str | Path, prices: PriceList, score: str, models: Sequence[str] = (), *, complete: bool = False
) -> PaidRows:
    """Read rows and price their answers.

    A candidate's tokens are those of its `usage`, as ``blend run`` and ``blend data build`` write it; without one they
    are estimated at four characters each, of instruction and input for the prompt, of text and `reasoning` for the
    answer. Its seconds are those of the price list, else its own `seconds`.

    Args:
        path: as for `llm_blender.data.read_rows`.
        prices: of the LLMs, and of fusers.
        score: what quality is, among the candidates' scores.
        models: only these LLMs' candidates; none named: all.
        complete: only rows in which each of `models` has the score.

    Raises:
        InputError: as for `llm_blender.bench.scored_rows`, or an answer does not say who wrote it.
        RowError: a row, or a candidate's `usage` or `seconds`, cannot be read.
    """
    examples = [replace(example, extra={_EXAMPLE: example}) for example in parse_rows(path, _with_usage)]
    scored = scored_rows(examples, score, models, complete=complete)
    found, estimated, unscored = [], 0, 0
    for row in scored:
        example: Example = row.extra[_EXAMPLE]
        candidates = [c for c in example.candidates if score in c.scores and (not models or c.model in models)]
        if any(candidate.model is None for candidate in candidates):
            raise InputError(
                f"{path}: a candidate of {row.prompt[:60]!r} names no `model`: who wrote it has the price."
            )
        estimated += sum(not _counted(candidate.usage) for candidate in candidates)
        dollars, seconds = _bills(example, candidates, prices)
        fusion = _fusion(example, score, prices)
        unscored += fusion is None and example.extra.get("fusion") is not None
        found.append(PaidRow(replace(row, extra=example.extra), dollars, seconds, fusion))
    return PaidRows(tuple(found), sum(len(row.models) for row in found), estimated, unscored)


def _with_usage(record: dict[str, Any]) -> Example:
    """The row with what `llm_blender.data.parse_row` leaves out of its candidates."""
    example = parse_row(record)
    if isinstance(
        fusion := example.extra.get("fusion"), Mapping
    ):  # read later; what is wrong in it belongs to this line
        _usage(fusion.get("usage"), "the fusion")
        _seconds(fusion)
    values = [value if isinstance(value, Mapping) else {} for value in record["candidates"]]
    return replace(
        example,
        candidates=tuple(
            replace(
                candidate,
                usage=_usage(value.get("usage"), f"candidate {place}"),
                seconds=_number(value.get("seconds"), f"the `seconds` of candidate {place}"),
                reasoning=reasoning if isinstance(reasoning := value.get("reasoning"), str) else None,
            )
            for place, (candidate, value) in enumerate(zip(example.candidates, values, strict=True))
        ),
    )


def _usage(value: Any, whose: str) -> Usage | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"the `usage` of {whose} must be {{prompt_tokens, completion_tokens}}")
    counts = [_number(value.get(key), f"`{key}` of {whose}") for key in ("prompt_tokens", "completion_tokens")]
    return Usage(*(int(count or 0) for count in counts))


def _number(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{what} must be a number from 0, not {value!r}")
    return float(value)


def _counted(usage: Usage | None) -> bool:
    """Servers that do not count say 0, but no answer is made of nothing."""
    return usage is not None and usage.prompt_tokens > 0 and usage.completion_tokens > 0


def _tokens(usage: Usage | None, read: int, written: int) -> Usage:
    """As counted, else from characters."""
    if usage is not None and _counted(usage):
        return usage
    return Usage(math.ceil(read / _CHARACTERS), math.ceil(written / _CHARACTERS))


def _bills(example: Example, candidates: Sequence[Candidate], prices: PriceList) -> tuple[_Floats, _Floats]:
    """``[N]`` dollars, and ``[N]`` seconds."""
    dollars, seconds = [], []
    for candidate in candidates:
        written = len(candidate.text) + len(candidate.reasoning or "")
        usage = _tokens(candidate.usage, len(example.prompt), written)
        dollars.append(prices.dollars(candidate.model or "", usage))
        seconds.append(prices.seconds(candidate.model or "", usage, candidate.seconds))
    return np.array(dollars, np.float64), np.array(seconds, np.float64)


def _fusion(example: Example, score: str, prices: PriceList) -> PaidFusion | None:
    """What ``blend fuse`` gave back, if it was scored, or is word for word a candidate that was."""
    fusion = example.extra.get("fusion")
    if not isinstance(fusion, Mapping):
        return None
    text = fusion.get("answer", fusion.get("text"))
    scores = [candidate.scores.get(score) for candidate in example.candidates if candidate.text == text]
    own_scores = fusion.get("scores")
    quality = own_scores.get(score) if isinstance(own_scores, Mapping) else None
    if quality is None:
        quality = next((one for one in scores if one is not None), None)
    if not isinstance(quality, int | float) or not math.isfinite(quality):
        return None
    name = str(fusion.get("fuser") or "")  # without one the candidates agreed, or one was clearly the best
    fuser, usage = name.removeprefix("chat:"), _fuser_usage(example, fusion)
    own = _seconds(fusion)
    dollars, seconds = _bills(example, example.candidates, prices)
    return PaidFusion(
        fuser,
        float(quality),
        prices.dollars(fuser, usage) if name else 0.0,
        prices.seconds(fuser, usage, own) if name else own or 0.0,
        float(dollars.sum()),
        float(seconds.max()),
        len(example.candidates) + bool(name),
    )


def _fuser_usage(example: Example, fusion: Mapping[str, Any]) -> Usage:
    texts = [candidate.text for candidate in example.candidates]
    used = fusion.get("used") or range(len(texts))  # those that fitted
    read = len(example.prompt) + sum(len(text) for place, text in enumerate(texts) if place in used)
    return _tokens(_usage(fusion.get("usage"), "the fusion"), read, len(str(fusion.get("text") or "")))


def _seconds(fusion: Mapping[str, Any]) -> float | None:
    """Of fusing and guarding; what was found in the store says nothing about time."""
    return None if fusion.get("stored") else _number(fusion.get("seconds"), "the `seconds` of the fusion")

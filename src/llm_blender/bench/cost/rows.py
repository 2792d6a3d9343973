"""Rows with what each of their answers cost and how long it took."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_blender.bench.rows import ScoredRow, scored_rows
from llm_blender.config import Config, OpenAIConfig, Price
from llm_blender.data import parse_row, parse_rows
from llm_blender.errors import ConfigError, InputError, NotFoundError, unknown_name
from llm_blender.types import Candidate, Example, Usage

__all__ = ["LLMPrice", "PaidFusion", "PaidRow", "PaidRows", "PriceList", "RankerPrice", "paid_rows"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LLMPrice(_Section):
    """An ``[[llm]]``.

    Attributes:
        name: as candidates call it in `model`.
        price: dollars per million tokens; None if unknown.
        seconds: of an answer, however long.
        tokens_per_second: at which it writes; an answer's length then decides.
    """

    name: str
    price: Price | None = None
    seconds: float | None = Field(default=None, gt=0)
    tokens_per_second: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_speed(self) -> Self:
        if self.seconds is not None and self.tokens_per_second is not None:
            raise ValueError(f'give "{self.name}" either seconds or tokens_per_second')
        return self


class RankerPrice(_Section):
    """A ``[[ranker]]``.

    Attributes:
        name: as ``--ranker`` calls it.
        seconds: of one comparison.
        dollars: of one comparison.
    """

    name: str
    seconds: float | None = Field(default=None, ge=0)
    dollars: float | None = Field(default=None, ge=0)


class PriceList(_Section):
    """Prices and speeds by name.

    Attributes:
        llm: of the LLMs, and of fusers by their name.
        ranker: of the rankers.
    """

    llm: tuple[LLMPrice, ...] = Field(default=(), strict=False)
    ranker: tuple[RankerPrice, ...] = Field(default=(), strict=False)

    @model_validator(mode="after")
    def _once(self) -> Self:
        for entries in (self.llm, self.ranker):
            names = [entry.name for entry in entries]
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f'"{name}" stands there twice')
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file of ``[[llm]]`` and ``[[ranker]]``.

        Raises:
            NotFoundError: there is no such file.
            ConfigError: it is no TOML, or a key or a value in it is wrong.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NotFoundError(f"There is no file {path}; check --prices.") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error}).") from None
        except ValidationError as error:
            raise ConfigError(f"{path}: {_explain(error)}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: this is not TOML: {error}.") from None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """The ``[[llm]] price`` of a ``blend.toml``; it says nothing of seconds."""
        return cls(
            llm=tuple(
                LLMPrice(name=llm.name, price=llm.price if isinstance(llm, OpenAIConfig) else None)
                for llm in config.llm
            )
        )

    def dollars(self, name: str, usage: Usage) -> float:
        """Of one call; NaN if unknown."""
        price = self._llm(name).price
        return math.nan if price is None else price.cost(usage)

    def seconds(self, name: str, usage: Usage, measured: float | None = None) -> float:
        """Of one call; what was `measured` counts where the list is silent. NaN if unknown."""
        entry = self._llm(name)
        if entry.seconds is not None:
            return entry.seconds
        if entry.tokens_per_second is not None:
            return usage.completion_tokens / entry.tokens_per_second
        return math.nan if measured is None else measured

    def of_ranker(self, name: str) -> RankerPrice:
        """What is known of a ranker."""
        return next((entry for entry in self.ranker if entry.name == name), RankerPrice(name=name))

    def _llm(self, name: str) -> LLMPrice:
        return next((entry for entry in self.llm if entry.name == name), LLMPrice(name=name))


_SECTIONS: dict[str, type[BaseModel]] = {"llm": LLMPrice, "ranker": RankerPrice}


def _explain(error: ValidationError) -> str:
    """The first problem, in one line; an unknown key leads, as it often explains a missing one."""
    problems = error.errors(include_url=False, include_input=False)
    problem = min(problems, key=lambda each: each["type"] != "extra_forbidden")
    place = [str(part) if isinstance(part, str) else f"{part + 1}" for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        model = PriceList if len(place) == 1 else Price if "price" in place[:-1] else _SECTIONS[place[0]]
        return str(unknown_name("key", place[-1], model.model_fields))
    where = f"[[{place[0]}]] {' '.join(place[1:])}: " if place else ""
    return f"{where}{problem['msg'].removeprefix('Value error, ')}"


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

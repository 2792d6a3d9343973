"""Rows with the dollars and seconds of each of their answers."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_blender.bench.methods import CandidateGrid
from llm_blender.bench.resampling import Floats
from llm_blender.bench.rows import BenchRow, scored_examples
from llm_blender.config import Config, OpenAIConfig, Price
from llm_blender.data import parse_row, parse_rows
from llm_blender.errors import ConfigError, InputError, NotFoundError, first_problem
from llm_blender.types import Candidate, Example, Usage


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class LLMPrice(_Section):
    """Price and speed of an LLM, an ``[[llm]]``.

    Attributes:
        name: as in the `model` of candidates.
        price: dollars per million tokens; None if unknown.
        seconds: of an answer of any length.
        tokens_per_second: of its answers, whose length then gives the seconds.
    """

    name: str
    price: Price | None = None
    seconds: float | None = Field(default=None, gt=0)
    tokens_per_second: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_speed(self) -> Self:
        if None not in (self.seconds, self.tokens_per_second):
            raise ValueError(f'give "{self.name}" either seconds or tokens_per_second')
        return self


class RankerPrice(_Section):
    """Price and speed of a ranker, a ``[[ranker]]``.

    Attributes:
        name: as in ``--ranker``.
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
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f'"{twice[0]}" is listed twice')
        return self

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a TOML file of ``[[llm]]`` and ``[[ranker]]`` sections.

        Raises:
            NotFoundError: the file does not exist.
            ConfigError: it is not TOML, or has a wrong key or value.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NotFoundError(f"There is no file {path}; check --prices.") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error}).") from None
        except ValidationError as error:
            raise ConfigError(f"{path}: {first_problem(error, cls)}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: this is not TOML: {error}.") from None

    @classmethod
    def from_config(cls, config: Config) -> Self:
        """Take the ``[[llm]] price`` of a ``blend.toml``, which has no seconds."""
        return cls(
            llm=tuple(
                LLMPrice(name=llm.name, price=llm.price if isinstance(llm, OpenAIConfig) else None)
                for llm in config.llm
            )
        )

    def dollars(self, name: str, usage: Usage) -> float:
        """Return the dollars of one call; NaN if unknown."""
        price = self._llm(name).price
        return math.nan if price is None else price.cost(usage)

    def seconds(self, name: str, usage: Usage, measured: float | None = None) -> float:
        """Return the seconds of one call, those `measured` if the list has none; NaN if unknown."""
        entry = self._llm(name)
        if entry.seconds is not None:
            return entry.seconds
        if entry.tokens_per_second is not None:
            return usage.completion_tokens / entry.tokens_per_second
        return math.nan if measured is None else measured

    def of_ranker(self, name: str) -> RankerPrice:
        """Return the entry of a ranker; an empty one if there is none."""
        return next((entry for entry in self.ranker if entry.name == name), RankerPrice(name=name))

    def _llm(self, name: str) -> LLMPrice:
        return next((entry for entry in self.llm if entry.name == name), LLMPrice(name=name))


_CHARACTERS = 4  # of a token, roughly, in English


@dataclass(frozen=True)
class PricedFusion:
    """A fused answer with a score; unknown dollars and seconds are NaN.

    Attributes:
        dollars: price of the fuser alone.
        seconds: time of the fuser, after all candidates are there.
        candidates_dollars: price of all candidates of the row, scored or not.
        candidates_seconds: time of the slowest of them.
        calls: number of calls of LLMs, the fuser's included.
    """

    fuser: str
    quality: float
    dollars: float
    seconds: float
    candidates_dollars: float
    candidates_seconds: float
    calls: int


@dataclass(frozen=True, eq=False)
class PricedRows:
    """The n rows of a file in which at least two answers have the score.

    Attributes:
        dollars: ``[n, c]`` of each answer, in the layout of `grid`; NaN where the price is unknown.
        seconds: ``[n, c]`` of each answer; NaN where unknown.
        fusions: per row, None without a fused answer that has the score.
        estimated: number of answers whose tokens are estimated, as their row holds no `usage`.
        unscored_fusions: number of fused answers without the score, which are left out.
    """

    rows: tuple[BenchRow, ...]
    dollars: Floats
    seconds: Floats
    fusions: tuple[PricedFusion | None, ...]
    estimated: int = 0
    unscored_fusions: int = 0

    @cached_property
    def grid(self) -> CandidateGrid:
        """Layout of ``[n, c]`` arrays."""
        return CandidateGrid(self.rows)

    @cached_property
    def qualities(self) -> Floats:
        """``[n, c]`` scores of the answers."""
        return self.grid.qualities()

    @property
    def answers(self) -> int:
        """Number of answers."""
        return int(self.grid.present.sum())

    @property
    def models(self) -> tuple[str, ...]:
        """All LLMs, by name."""
        return tuple(sorted({model for row in self.rows for model in row.models if model is not None}))

    def unknown(self, what: str) -> tuple[str, ...]:
        """Return the LLMs with an answer whose ``dollars`` or ``seconds`` are unknown."""
        unknown = np.isnan(getattr(self, what))
        lost = {str(self.rows[row].models[place]) for row, place in np.argwhere(unknown & self.grid.present)}
        fusers = {fusion.fuser for fusion in self.fusions if fusion and math.isnan(getattr(fusion, what))}
        return tuple(sorted(lost | fusers))


def priced_rows(
    path: str | Path,
    prices: PriceList,
    score: str,
    models: Sequence[str] = (),
    *,
    complete: bool = False,
    limit: int | None = None,
) -> PricedRows:
    """Read rows and price their answers.

    A candidate's tokens are those of its `usage`, as ``blend run`` and ``blend data build`` write it; without one they
    are estimated at four characters each, of instruction and input for the prompt, of text and `reasoning` for the
    answer. Its seconds are those of the price list, else its own `seconds`.

    Args:
        path: file of rows, or a folder of such files.
        prices: dollars and seconds of the LLMs.
        score: name of the score that measures quality.
        models: LLMs whose candidates count; none means all.
        complete: leave out rows that lack a candidate of one of `models`.
        limit: maximum number of rows to read; None reads all.

    Raises:
        InputError: as for `scored_rows`, or a candidate names no LLM.
        RowError: a row, or a candidate's `usage` or `seconds`, cannot be read.
    """
    rows, costs, fusions = [], [], []
    estimated = unscored = 0
    records = itertools.islice(parse_rows(path, _with_usage), limit)
    for example, row in scored_examples(records, score, models, complete=complete):
        if None in row.models:
            raise InputError(f"{path}: a candidate of {row.prompt[:60]!r} names no `model`, which has the price.")
        rows.append(row)
        estimated += sum(not _counted(candidate.usage) for candidate in row.candidates)
        costs.append(_costs(row.prompt, row.candidates, prices))
        fusions.append(_fusion(example, score, prices))
        unscored += fusions[-1] is None and example.extra.get("fusion") is not None
    dollars, seconds = (CandidateGrid(rows).fill(values) for values in zip(*costs, strict=True))
    return PricedRows(tuple(rows), dollars, seconds, tuple(fusions), estimated, unscored)


def _with_usage(record: dict[str, Any]) -> Example:
    """Parse a row, with the fields of candidates that `llm_blender.data.parse_row` leaves out."""
    example = parse_row(record)
    if isinstance(fusion := example.extra.get("fusion"), Mapping):  # used later; an error belongs to this line
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
    """Tell whether a server counted: one that does not gives 0."""
    return usage is not None and usage.prompt_tokens > 0 and usage.completion_tokens > 0


def _tokens(usage: Usage | None, read: int, written: int) -> Usage:
    """Return the tokens as counted, else estimated from characters."""
    if usage is not None and _counted(usage):
        return usage
    return Usage(math.ceil(read / _CHARACTERS), math.ceil(written / _CHARACTERS))


def _costs(prompt: str, candidates: Sequence[Candidate], prices: PriceList) -> tuple[Floats, Floats]:
    """Return ``[N]`` dollars and ``[N]`` seconds."""
    dollars, seconds = [], []
    for candidate in candidates:
        written = len(candidate.text) + len(candidate.reasoning or "")
        usage = _tokens(candidate.usage, len(prompt), written)
        dollars.append(prices.dollars(candidate.model or "", usage))
        seconds.append(prices.seconds(candidate.model or "", usage, candidate.seconds))
    return np.array(dollars, np.float64), np.array(seconds, np.float64)


def _fusion(example: Example, score: str, prices: PriceList) -> PricedFusion | None:
    """Price the answer that ``blend fuse`` returned, if it has the score or is the text of a candidate with it."""
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
    name = str(fusion.get("fuser") or "")  # without one, the candidates agreed or one was clearly the best
    fuser, usage = name.removeprefix("chat:"), _fuser_usage(example, fusion)
    own = _seconds(fusion)
    dollars, seconds = _costs(example.prompt, example.candidates, prices)
    return PricedFusion(
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
    used = fusion.get("used") or range(len(texts))  # the candidates that fitted
    read = len(example.prompt) + sum(len(text) for place, text in enumerate(texts) if place in used)
    return _tokens(_usage(fusion.get("usage"), "the fusion"), read, len(str(fusion.get("text") or "")))


def _seconds(fusion: Mapping[str, Any]) -> float | None:
    """Return the seconds of fusing and guarding; None for an answer from the store, whose time is unknown."""
    return None if fusion.get("stored") else _number(fusion.get("seconds"), "the `seconds` of the fusion")

"""What an answer costs and how long it takes, from a TOML file; what it does not say is unknown, never zero."""

from __future__ import annotations

import math
import tomllib
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llm_blender.config import Config, OpenAIConfig, Price
from llm_blender.errors import ConfigError, NotFoundError, unknown_name
from llm_blender.types import Usage

__all__ = ["LLMPrice", "PriceList", "RankerPrice"]


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

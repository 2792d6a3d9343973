"""What calls will cost, said before they are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_blender.batch.building.plan import Participant
from llm_blender.ensemble.budget import Priced
from llm_blender.errors import InputError
from llm_blender.types import Message, Sampling, Usage

__all__ = ["Estimate", "check_cost", "estimate_call", "most_cost"]

_BYTES_A_TOKEN = 4  # of English; other languages have fewer


@dataclass(frozen=True)
class Estimate:
    """Calls to be made.

    Attributes:
        what: they are for.
        calls: to be made.
        recalled: calls that were made before, here or elsewhere, and are found again at no cost.
        tokens: of the calls, about.
        cost: dollars, about; of LLMs with a price alone.
        most: dollars, if every answer is as long as it may be and every byte a token.
        unpriced: calls whose price is not known.
    """

    what: str
    calls: int = 0
    recalled: int = 0
    tokens: int = 0
    cost: float = 0.0
    most: float = 0.0
    unpriced: int = 0

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            self.what,
            self.calls + other.calls,
            self.recalled + other.recalled,
            self.tokens + other.tokens,
            self.cost + other.cost,
            self.most + other.most,
            self.unpriced + other.unpriced,
        )


def estimate_call(
    what: str, participant: Participant, messages: Sequence[Message], sampling: Sampling, answer: int
) -> Estimate:
    """The estimate of one call, whose answer has about `answer` tokens."""
    size = sum(len(message["content"].encode("utf-8", "replace")) for message in messages)
    usage = Usage(size // _BYTES_A_TOKEN + 8, answer)
    price = participant.price
    return Estimate(
        what,
        calls=1,
        tokens=usage.prompt_tokens + usage.completion_tokens,
        cost=0.0 if price is None else price.cost(usage),
        most=most_cost(participant, messages, sampling),
        unpriced=int(price is None),
    )


def most_cost(participant: Participant, messages: Sequence[Message], sampling: Sampling) -> float:
    """Dollars that a call may cost at most; 0 where the price is not known."""
    llm = participant.llm
    return (llm.most_cost(messages, sampling) if isinstance(llm, Priced) else None) or 0.0


def check_cost(estimates: Sequence[Estimate], spent: float, max_cost: float | None) -> None:
    """Refuse to begin what would cost more than it may.

    Args:
        estimates: of all that is still to be done.
        spent: dollars, by earlier runs.
        max_cost: for all of it; None where nobody said it.

    Raises:
        InputError: it costs something and nobody said how much it may, or it costs more.
    """
    cost = sum(estimate.cost for estimate in estimates)
    if max_cost is None and cost > 0:
        raise InputError(f"This would cost about ${spent + cost:.4f}: say how much it may cost with --max-cost.")
    if max_cost is not None and spent + cost > max_cost:
        already = f" (${spent:.4f} of it already paid)" if spent else ""
        raise InputError(
            f"This would cost about ${spent + cost:.4f}{already}, more than --max-cost {max_cost:g}: raise it, or "
            f"build less (-n, --orders one)."
        )

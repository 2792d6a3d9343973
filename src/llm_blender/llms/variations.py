"""Manners of answering, which make the candidates of one small model differ."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Variation", "default_variations"]


@dataclass(frozen=True)
class Variation:
    """A manner of answering; several of them make one model's candidates differ.

    Attributes:
        system: the system message; None leaves it to the model's chat template.
        temperature: of the sampling.
    """

    system: str | None
    temperature: float


# A model of 135 M parameters loses the thread above a temperature of about 0.6.
_MANNERS = (
    Variation(None, 0.2),
    Variation("You are a helpful assistant. Answer the question directly and correctly.", 0.4),
    Variation("Answer in a few short, clear sentences. Be accurate and to the point.", 0.3),
    Variation("You are a careful expert. Answer with a short, well-organised list of concrete points.", 0.5),
    Variation("You are a friendly teacher. Explain clearly, with one simple example.", 0.6),
)


def default_variations(n: int = len(_MANNERS)) -> tuple[Variation, ...]:
    """`n` manners of answering for best-of-n from one small model, the safest first.

    Beyond the fifth they come again at a temperature higher by 0.2, up to 1.
    """
    rounds = ((_MANNERS[index % len(_MANNERS)], index // len(_MANNERS)) for index in range(n))
    return tuple(Variation(v.system, min(1.0, v.temperature + 0.2 * again)) for v, again in rounds)

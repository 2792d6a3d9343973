"""Instruction and candidates in a prompt that must not be longer than the model can read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llm_blender.fusers.shortening import even_cap

__all__ = ["Fit", "Render", "fit"]

Render = Callable[[int, int, int], list[int]]
"""From tokens left to the instruction, tokens left to each candidate and the number of candidates to the prompt."""

_LEAST = 16  # tokens of a shortened candidate that are worth reading
_ATTEMPTS = 8


@dataclass(frozen=True)
class Fit:
    """A prompt that fits.

    Attributes:
        ids: its tokens.
        used: how many candidates it holds, from the first on.
        truncated: share of the tokens of instruction and candidates that it lacks.
    """

    ids: list[int]
    used: int
    truncated: float


def fit(render: Render, instruction: int, candidates: Sequence[int], *, cap: int, room: int) -> Fit | None:
    """The prompt with as much of the texts as fits; None where two candidates (or the only one) do not.

    The instruction keeps half of the room, and all of it that the candidates leave. Candidates are cut to `cap`; where
    that does not suffice, evenly, the longest first; where each would keep next to nothing, the last ones are left out.
    What stands around the texts is never cut: the length of the whole is that of its tokens, counted.

    Args:
        render: makes the prompt.
        instruction: its tokens.
        candidates: the tokens of each.
        cap: tokens of a candidate at most.
        room: tokens of the prompt at most.
    """
    count = len(candidates)
    frame = len(render(0, 0, count))
    wanted = sum(min(length, cap) for length in candidates)
    head = min(instruction, max(room // 2, room - frame - wanted))
    for used in range(count, min(count, 2) - 1, -1):
        lengths = [min(length, cap) for length in candidates[:used]]
        left = room - len(render(head, 0, used))
        for _ in range(_ATTEMPTS):
            limit = even_cap(lengths, left)
            if limit < min(_LEAST, max(lengths)):
                break
            limit = cap if limit == max(lengths) else limit
            ids = render(head, limit, used)
            if len(ids) <= room:
                read = head + sum(min(length, limit) for length in candidates[:used])
                return Fit(ids, used, 1 - read / max(instruction + sum(candidates), 1))
            left -= max(len(ids) - room, used)  # a cut text has other tokens, and a sign that it is cut
    return None

"""A ranker without a model, for tests of code that ranks."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from llm_blender.errors import InputError
from llm_blender.ranking import Advance, Compare, PairwiseRanker, Pool
from llm_blender.types import Instruction, instruction_text


class FakeRanker(PairwiseRanker):
    """A pairwise ranker by known strengths of texts, with planted position bias and noise.

    l(left, right) = strength(left) − strength(right) + order_bias + noise, where the noise depends on seed,
    instruction and ordered pair. It ranks with the same engine as the real rankers; without position bias the noise
    depends on the unordered pair, and l(right, left) is −l(left, right).

    Args:
        strength: of a text, as a function or a table; by default longer is better.
        order_bias: added to every logit; above zero, it prefers the text read first.
        noise: standard deviation of its errors, in logits.
        seed: of the errors.
        temperature: of the rankings' and comparisons' probabilities.
        position_bias: whether a comparison is an ordered pair; False needs an order bias of 0.

    Raises:
        InputError: there is an order bias without a position bias.

    Attributes:
        batches: all comparisons, one list of (instruction, left, right) texts per round.

    Examples:
        >>> ranker = FakeRanker({"good": 1.0, "bad": -1.0}, order_bias=5)
        >>> ranker.rank("Say something.", ["bad", "good"]).best
        1
        >>> ranker.comparisons
        2
    """

    def __init__(
        self,
        strength: Callable[[str], float] | Mapping[str, float] = len,
        *,
        order_bias: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        temperature: float = 1.0,
        position_bias: bool = True,
    ) -> None:
        if order_bias and not position_bias:
            raise InputError(f"An order bias of {order_bias} is a position bias: leave one of the two out.")
        self._strength = strength.__getitem__ if isinstance(strength, Mapping) else strength
        self.order_bias, self.noise, self.seed, self.temperature = order_bias, noise, seed, temperature
        self.position_bias = position_bias
        self.batches: list[list[tuple[str, str, str]]] = []

    @property
    def comparisons(self) -> int:
        """Number of pairs compared so far."""
        return sum(map(len, self.batches))

    def logit(self, instruction: Instruction, left: str, right: str) -> float:
        """Return l(left, right), above zero if the text read first is better; it does not count as a comparison."""
        if not self.position_bias and left > right:
            return 0.0 - self.logit(instruction, right, left)  # no -0.0
        key = "\0".join([str(self.seed), instruction_text(instruction), left, right]).encode("utf-8", "surrogatepass")
        error = random.Random(key).gauss(0, self.noise) if self.noise else 0.0
        return self._strength(left) - self._strength(right) + self.order_bias + error

    def _comparer(self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]]) -> Compare:
        prompts = [instruction_text(instruction) for instruction in instructions]

        def compare(pool: Pool, advance: Advance) -> list[float]:
            batch = [
                (prompts[prompt], candidates[prompt][left], candidates[prompt][right]) for prompt, left, right in pool
            ]
            self.batches.append(batch)
            return [self.logit(*pair) for pair in batch]

        return compare

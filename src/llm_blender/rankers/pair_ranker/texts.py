"""The texts of a call as token ids, each tokenised once and fitted to its room."""

from __future__ import annotations

from collections.abc import Sequence

from llm_blender.rankers.pair_ranker.input_format import InputFormat, PairSequence

__all__ = ["FittedTexts"]


class FittedTexts:
    """What the model reads of instructions and their candidates.

    Args:
        input_format: tokenises and cuts.
        prompts: the instructions as texts.
        candidates: texts of each.
        tails: of each instruction, the share of what is kept that comes from its end.
        coupled: instructions whose candidates are cut alike, beside the longest of them (llm-blender 0.0.2 did so
            by batches); 0 looks at each alone.

    Attributes:
        truncated: of each instruction, the share of its and its candidates' tokens that is not read.
    """

    def __init__(
        self,
        input_format: InputFormat,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        tails: Sequence[float],
        coupled: int = 0,
    ) -> None:
        self._format = input_format
        unique = list(dict.fromkeys([*prompts, *(text for texts in candidates for text in texts)]))
        ids = dict(zip(unique, input_format.tokenize(unique), strict=True))
        self._sources = [
            input_format.fit_source(ids[prompt], tail) for prompt, tail in zip(prompts, tails, strict=True)
        ]
        beside = _longest([len(source) for source in self._sources], coupled or 1)
        self._candidates = [
            [input_format.fit_candidate(ids[text], length) for text in texts]
            for length, texts in zip(beside, candidates, strict=True)
        ]
        numbers: dict[tuple[int, ...], int] = {}
        self._source_numbers = [numbers.setdefault(tuple(source), len(numbers)) for source in self._sources]
        self._candidate_numbers = [
            [numbers.setdefault(tuple(text), len(numbers)) for text in texts] for texts in self._candidates
        ]
        self._whole = [[len(ids[text]) for text in texts] for texts in candidates]
        whole = [
            len(ids[prompt]) + sum(len(ids[text]) for text in texts)
            for prompt, texts in zip(prompts, candidates, strict=True)
        ]
        read = [
            len(source) + sum(map(len, texts)) for source, texts in zip(self._sources, self._candidates, strict=True)
        ]
        self.truncated = [1 - r / w if w else 0.0 for r, w in zip(read, whole, strict=True)]

    def key(self, prompt: int, left: int, right: int) -> tuple[int, int, int]:
        """Equal for pairs that read the same."""
        numbers = self._candidate_numbers[prompt]
        return self._source_numbers[prompt], numbers[left], numbers[right]

    def length(self, prompt: int, left: int, right: int) -> int:
        """Tokens of a pair's sequence."""
        texts = self._candidates[prompt]
        return self._format.config.overhead + len(self._sources[prompt]) + len(texts[left]) + len(texts[right])

    def sequence(self, prompt: int, left: int, right: int) -> PairSequence:
        """A pair as the model reads it."""
        texts = self._candidates[prompt]
        return self._format.join(self._sources[prompt], texts[left], texts[right])

    def text_key(self, prompt: int, candidate: int) -> tuple[int, int, int]:
        """Equal for candidates that, with their instructions, read the same and are as long as a whole.

        The last part is that length, in tokens, those that are not read included.
        """
        numbers, lengths = self._candidate_numbers[prompt], self._whole[prompt]
        return self._source_numbers[prompt], numbers[candidate], lengths[candidate]

    def alone(self, prompt: int, candidate: int) -> PairSequence:
        """A candidate as the model reads it when it stands alone beside its instruction."""
        return self._format.join(self._sources[prompt], self._candidates[prompt][candidate], None)


def _longest(lengths: list[int], size: int) -> list[int]:
    """For each length, the longest of its neighbours in batches of that size."""
    return [max(lengths[i - i % size : i - i % size + size]) for i in range(len(lengths))]

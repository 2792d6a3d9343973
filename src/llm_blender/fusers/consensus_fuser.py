"""The fuser that writes nothing of its own: the best candidate, with what the others agree on and it does not say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llm_blender.errors import InputError
from llm_blender.fusers.merging import Offer, agreement, gram_counts, merge, offers
from llm_blender.fusers.selecting import SelectingFuser
from llm_blender.fusers.sentences import sentences
from llm_blender.types import Fusion

__all__ = ["ConsensusFuser"]

_LEAST = 3  # candidates from which on there are others to agree
_CODE = "```"


class ConsensusFuser(SelectingFuser):
    """Puts sentences of other good candidates into the best one, where that brings it closer to all of them.

    The sentence that raises the agreement with the other candidates most is put in, at about the place where it stood;
    then the next one, until none raises it by `gain` or `most` are in. Agreement with one of them is the F1 of the
    words and pairs of words that both say, each as often as it occurs; the mean over the others leaves out the one who
    says the sentence. To choose the text that agrees most with a sample is minimum Bayes risk decoding (Kumar and Byrne
    2004, aclanthology.org/N04-1022); here the text may be put together of several. Needs no model and no instruction,
    and says nothing that no candidate said. Texts with code are left as they are.

    Args:
        sources: how many candidates after the best one sentences are taken of; all are asked whether they agree.
        gain: of that mean, 0 to 1, that a sentence must bring.
        most: sentences that are put in, at most.

    Raises:
        InputError: one of them is out of range.
    """

    name = "consensus"
    reads_all = True
    """It is given all candidates, best first, whatever `top_k` says."""

    def __init__(self, sources: int = 3, gain: float = 0.0015, most: int = 8) -> None:
        if sources < 1 or most < 1 or not 0 < gain < 1:
            raise InputError(
                f"sources and most are at least 1, gain is between 0 and 1: not {sources}, {most}, {gain}."
            )
        self.sources, self.gain, self.most = sources, gain, most

    def select(self, texts: Sequence[str]) -> Fusion:
        """The best one with what was put in; of fewer than three, the best as it is."""
        best, others = texts[0].strip(), texts[1:]
        if len(texts) < _LEAST or any(_CODE in text for text in texts[: self.sources + 1]):
            return Fusion(best, self.name, (0,))
        offered = offers(others[: self.sources])
        chosen = [offered[i] for i in self._choose(best, offered, others)]
        sources = sorted({offer.source + 1 for offer in chosen})
        return Fusion(merge(sentences(best), chosen), self.name, (0, *sources))

    def _choose(self, best: str, offered: Sequence[Offer], others: Sequence[str]) -> list[int]:
        """The sentences to put in, in the order in which they were found."""
        counts = gram_counts([best, *(offer.text for offer in offered), *others])
        text, offers, evidence = counts[:1], counts[1 : 1 + len(offered)], counts[1 + len(offered) :]
        heard = np.ones((len(offered), len(others)))  # everybody but who says it
        heard[np.arange(len(offered)), [offer.source for offer in offered]] = 0
        heard /= heard.sum(axis=1, keepdims=True)
        chosen: list[int] = []
        while offered and len(chosen) < self.most:
            gains = ((agreement(text + offers, evidence) - agreement(text, evidence)) * heard).sum(axis=1)
            first = int(gains.argmax())
            if gains[first] < self.gain:
                break
            chosen.append(first)
            text = text + offers[first]
        return chosen

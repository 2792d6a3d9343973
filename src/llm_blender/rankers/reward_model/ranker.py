"""RewardModel: scores each answer with a sequence classifier that was trained on preferences."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from llm_blender.errors import MissingExtraError
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import find_checkpoint, load_tokenizer
from llm_blender.rankers.pointwise import Pair, PointwiseRanker, Scored
from llm_blender.rankers.reward_model.config import ClassifierConfig
from llm_blender.rankers.reward_model.input_format import ChatFormat, PairFormat, RewardInput
from llm_blender.types import OnProgress

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Replicas

__all__ = ["RewardModel"]


class RewardModel(PointwiseRanker):
    """A reward model: any sequence classifier of transformers, in torch.

    One whose tokenizer has a chat template (most of today's) reads the conversation with the candidate as its last
    turn; one that has none (``OpenAssistant/reward-model-deberta-v3-large-v2``) reads instruction and candidate as a
    pair of texts. A difference of scores is a logit, as in the model of Bradley and Terry that they are trained by.
    Make one by `from_pretrained`.

    Example:
        >>> name = "OpenAssistant/reward-model-deberta-v3-large-v2"
        >>> ranker = RewardModel.from_pretrained(name)  # doctest: +SKIP
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best  # doctest: +SKIP
        0
    """

    name = "reward"

    def __init__(
        self,
        model: Replicas,
        folder: Path,
        config: ClassifierConfig,
        input_format: RewardInput,
        *,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        # Without a padding token nothing can be padded: a batch is one sequence.
        pad_id, max_tokens = (0, 1) if config.pad_id is None else (config.pad_id, max_tokens)
        super().__init__(model, folder, pad_id=pad_id, max_tokens=max_tokens)
        self.config, self.input_format = config, input_format

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        device: Any = None,
        dtype: Any = None,
        label: int | str | None = None,
        max_length: int | None = None,
        reference: bool = False,
        revision: str | None = None,
        max_tokens: int = MAX_TOKENS,
    ) -> Self:
        """Load a sequence classifier.

        Args:
            name: a folder, or a Hub repository.
            device: ``cpu``, ``cuda``, ``mps``, …, or a list of devices to share the work; None picks.
            dtype: ``float32`` (None), ``bfloat16``, ``float16``, or ``auto``: as the weights are stored.
            label: which output is the score, by index or by name, where there are several.
            max_length: tokens of a sequence; None is what the model can read, but at most 4,096.
            reference: read texts exactly as llm-blender 0.0.2 did, see `PairFormat`; without a chat template.
            revision: on the Hub.
            max_tokens: of a batch, padding included.

        Raises:
            NotFoundError: there is no such checkpoint; the message says where it was looked for.
            CheckpointError: it is no sequence classifier, or a file of it is missing or damaged.
            MissingExtraError: ``torch`` is not installed.
            InputError: there is no such device, dtype or label, or several labels and none is named.
        """
        try:
            from llm_blender.rankers._torch import Replicas, check_vocabulary, parse_dtype
            from llm_blender.rankers.reward_model.modeling import load_classifier
        except ModuleNotFoundError as error:
            raise MissingExtraError("RewardModel", "torch") from error
        folder = find_checkpoint(name, revision)
        config = ClassifierConfig.load(folder, label, max_length)
        tokenizer = load_tokenizer(folder)
        model = load_classifier(folder, config.label, dtype if dtype == "auto" else parse_dtype(dtype or "float32"))
        check_vocabulary(folder, tokenizer.get_vocab_size(), model)
        form: RewardInput = (
            ChatFormat.load(folder, tokenizer, config.max_length)
            if config.chat
            else PairFormat(tokenizer, config.max_length, token_types=config.token_types, reference=reference)
        )
        return cls(Replicas(model, device=device, dtype=None), folder, config, form, max_tokens=max_tokens)

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        readings = self.input_format.read(pairs)
        return Scored.by(self._run(readings, progress), readings)

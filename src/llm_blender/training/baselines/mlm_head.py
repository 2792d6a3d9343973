"""A language-model head for an encoder that has none, so that MLM-scoring, a baseline of the paper, can use it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import AutoModelForMaskedLM

from llm_blender.rankers.mlm_scoring import MaskedInput
from llm_blender.training.baselines.backbone import load_backbone
from llm_blender.training.baselines.learner import Batch, Learned, Learner
from llm_blender.training.baselines.packing import pad
from llm_blender.training.baselines.scored import ScoredGroup
from llm_blender.training.loop import without_bars
from llm_blender.training.packing import pack
from llm_blender.training.recipe import Recipe

__all__ = ["MLMHeadLearner", "MaskedTexts"]

_MASKED = 0.15  # share of the tokens, as BERT's (arXiv 1810.04805)


class MLMHeadLearner(Learner):
    """Learns which token is behind a mask, from the groups' texts without their prompts, as MLM-scoring reads them.

    Trained are the head and the encoder's layers above `Recipe.frozen_layers`; the embeddings stay, and with them the
    head's decoder, which is tied to them. Every drawn token becomes the mask, as in scoring.

    Args:
        recipe: lengths, seed.
        backbone: Hub name or folder.
        workspace: for the files that the reader of texts needs.

    Raises:
        NotFoundError: there is no such backbone.
        CheckpointError: its tokenizer has no fast form, or no mask.
        InputError: it reads fewer tokens than `recipe.max_length`.
    """

    name = "mlm_scoring"
    draws = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        model, self._tokenizer = load_backbone(backbone, AutoModelForMaskedLM, recipe)
        self.model, self.encoder, self._recipe = model, model.base_model, recipe
        workspace.mkdir(parents=True, exist_ok=True)
        self._tokenizer.backend_tokenizer.save(str(workspace / "tokenizer.json"))
        self._format = MaskedInput(workspace)
        self._places: Tensor | None = None
        # Vocabularies are large: only the states at the masks go through the head.
        self.encoder.register_forward_hook(self._keep_masks)

    def dataset(self, groups: Sequence[ScoredGroup], *, epochs: int = 1) -> Dataset[Batch]:
        """See `Learner`."""
        texts = dict.fromkeys(text for scored in groups for text in scored.group.texts)
        return MaskedTexts(list(texts), self._format, self._recipe, epochs)

    def learn(self, batch: Batch) -> Learned:
        """See `Learner`; predictions are the likeliest tokens behind the masks, targets those that were there."""
        if not any(weight.requires_grad for weight in self.encoder.parameters()):
            self.encoder.eval()  # the head alone learns: of what the encoder says when it is used
        self._places = batch["places"]
        try:
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
        finally:
            self._places = None
        loss = functional.cross_entropy(logits.float(), batch["targets"])
        return Learned(loss, logits.argmax(-1), batch["targets"])

    def measure(self, prediction: Any) -> dict[str, float]:
        """The share of masked tokens that are guessed."""
        return {"accuracy": float(np.mean(np.asarray(prediction.predictions) == np.asarray(prediction.label_ids)))}

    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """In transformers' layout, which has no place for a temperature."""
        model: Any = self.model
        with without_bars():
            model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def _keep_masks(self, module: Any, inputs: Any, output: Any) -> Any:
        if self._places is not None:
            output["last_hidden_state"] = output["last_hidden_state"].flatten(0, 1)[self._places][None]
        return output


class MaskedTexts(Dataset[Batch]):
    """Texts packed into batches, with masks that are drawn anew on each pass.

    An item is one batch: ``input_ids`` and ``attention_mask`` ``[B, T]``; ``places`` ``[M]``, where the masks stand in
    the batch's ``B · T`` tokens; and ``targets`` ``[M]``, the tokens behind them.

    Args:
        texts: to learn from.
        input_format: of the ranker.
        recipe: lengths, tokens of a batch, seed.
        passes: over the texts.
    """

    def __init__(self, texts: Sequence[str], input_format: MaskedInput, recipe: Recipe, passes: int) -> None:
        tokenized = input_format.tokenize(texts, recipe.max_length)
        self._special, self._mask, self._seed = input_format.special, input_format.mask, recipe.seed
        self._ids = [np.array(text.ids, np.int32) for text in tokenized if text.ids]
        packed = pack([(len(ids) + 2, 1) for ids in self._ids], recipe.batch_tokens)
        self._packed = packed * passes

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> Batch:
        rng = np.random.default_rng([self._seed, index])  # not the trainer's: the same when it goes on
        texts = [self._ids[number] for number in self._packed[index]]
        drawn = [_draw(len(text), rng) for text in texts]
        special = self._special
        ids, mask = pad([np.array([special.cls, *text, special.sep]) for text in texts], special.pad)
        rows = np.repeat(np.arange(len(texts)), [len(columns) for columns in drawn])
        columns = np.concatenate(drawn) + 1  # behind [CLS]
        targets = ids[rows, columns]
        ids[rows, columns] = self._mask
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "places": torch.from_numpy(rows * ids.shape[1] + columns),
            "targets": torch.from_numpy(targets),
        }


def _draw(length: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """The tokens of a text to mask: at least one."""
    return np.sort(rng.permutation(length)[: max(1, round(_MASKED * length))])

"""SummaReranker, a baseline of the paper: is this candidate the best one, by this metric and by that?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from llm_blender.errors import InputError
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.mlm_scoring import MaskedInput
from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.reward_model import ChatFormat, ClassifierConfig, PairFormat
from llm_blender.rankers.simcls import SimCLSInput, SimCLSModel
from llm_blender.rankers.summa_reranker import SummaInput, SummaRerankerModel
from llm_blender.training.batches import pack, pad
from llm_blender.training.groups import PREFERENCE, ScoredGroup
from llm_blender.training.learner import (
    Batch,
    GroupLearner,
    Learned,
    Learner,
    columns,
    load_backbone,
    pointwise_config,
    write_pointwise,
    write_reader,
)
from llm_blender.training.loop import without_bars
from llm_blender.training.losses import best_per_metric, find_loss, rank_margins, reference_margins
from llm_blender.training.recipes import Recipe

__all__ = ["MLMHeadLearner", "MaskedTexts", "RewardModelLearner", "SimCLSLearner", "SummaRerankerLearner", "labels"]

_SPECIAL = 3  # tokens around the two texts


class SummaRerankerLearner(GroupLearner):
    """A cross-encoder with a mixture of experts and one output for each task (arXiv 2203.06569).

    The loss is `losses.summareranker`, the binary cross entropy against "is best by this metric", over the candidates
    and metrics of which something is known (see `labels`), and the term that keeps the experts in balance.

    Args:
        recipe: lengths, seed.
        backbone: Hub name or folder.
        workspace: for the files that the reader of texts needs.
        tasks: the metrics.

    Raises:
        NotFoundError: there is no such backbone.
        CheckpointError: its tokenizer has no fast form.
        InputError: it reads fewer tokens than `recipe.max_length`.
    """

    name = "summa_reranker"
    scored = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path, tasks: Sequence[str]) -> None:
        encoder, self._tokenizer = load_backbone(backbone, AutoModel, recipe)
        self._config = pointwise_config("summareranker", recipe, encoder, room=_SPECIAL, tasks=tuple(tasks))
        self.model = self._summa = SummaRerankerModel(self._config, encoder)
        self.encoder = encoder
        write_reader(self._config, self._tokenizer, workspace)
        self._format = SummaInput(workspace, self._config)
        super().__init__(recipe, self._format.special.pad)

    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """A sequence for each text, with the prompt before it."""
        readings = iter(self._format.read([(s.group.prompt, text) for s in groups for text in s.group.texts]))
        return [list(itertools.islice(readings, len(scored.group.texts))) for scored in groups]

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `GroupLearner`; the score of a text is the mean of its logits, as in the ranker."""
        logits, balance = self._summa.logits(batch["input_ids"], batch["attention_mask"])
        wanted = np.concatenate([labels(scored.targets(self._config.tasks)) for scored in batch["groups"]])
        targets = torch.from_numpy(wanted).to(logits.device, torch.float32)
        known = ~targets.isnan()
        loss = functional.binary_cross_entropy_with_logits(logits.float()[known], targets[known])
        return loss + balance.float(), list(torch.split(logits.float().mean(-1), batch["sizes"]))

    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """See `Learner`."""
        write_pointwise(self.model, self._config, self._tokenizer, folder, temperature)


def labels(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """``[texts, tasks]``, 1 for the best known by a task, 0 for the others, NaN where it does not tell.

    It does not where a text has no score by it, and where all that have one share it.

    Args:
        targets: scores ``[texts, tasks]``, NaN where unknown.
    """
    known = ~np.isnan(targets)
    lowest = np.where(known, targets, -np.inf)
    best = best_per_metric(torch.from_numpy(lowest)[None])[0].numpy()
    differ = lowest.max(0) > np.where(known, targets, np.inf).min(0)
    return np.where(known & differ, best, np.nan)


_MARKERS = ["<source>", "<candidate>"]


class SimCLSLearner(GroupLearner):
    """A bi-encoder whose score is the cosine of instruction and candidate (arXiv 2106.01890).

    The loss is that of `losses.simcls`: the reference nearer to the instruction than any candidate, where there is
    one, and a better candidate nearer than a worse one, by a margin that grows with their distance in the order.
    Better is who wins more of the group's preferences; between equals there is no margin.

    Args:
        recipe: lengths, seed.
        backbone: Hub name or folder.
        workspace: for the files that the reader of texts needs.

    Raises:
        NotFoundError: there is no such backbone.
        CheckpointError: its tokenizer has no fast form.
        InputError: it reads fewer tokens than `recipe.max_length`.
    """

    name = "simcls"
    scored = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        encoder, self._tokenizer = load_backbone(backbone, AutoModel, recipe)
        self._tokenizer.backend_tokenizer.add_special_tokens(_MARKERS)
        encoder.resize_token_embeddings(self._tokenizer.backend_tokenizer.get_vocab_size(), mean_resizing=False)
        self._config = pointwise_config("simcls", recipe, encoder, room=0, tasks=(PREFERENCE,))
        self.model = SimCLSModel(self._config, encoder)
        self.encoder = encoder
        write_reader(self._config, self._tokenizer, workspace)
        self._format = SimCLSInput(workspace, self._config)
        super().__init__(recipe, self._format.special.pad)

    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """A sequence for the prompt, one for each text, and one for the reference, if there is one."""
        prompts = self._format.read_sources([scored.group.prompt for scored in groups], [False] * len(groups))
        texts = [[*s.group.texts, *([] if s.reference is None else [s.reference])] for s in groups]
        readings = iter(self._format.read_candidates(list(itertools.chain.from_iterable(texts))))
        return [[prompt, *itertools.islice(readings, len(of))] for prompt, of in zip(prompts, texts, strict=True)]

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `GroupLearner`."""
        vectors = self.model(batch["input_ids"], batch["attention_mask"])
        losses, scores = [], []
        for scored, rows in zip(batch["groups"], vectors.split(batch["sizes"]), strict=True):
            similarities = rows[1:] @ rows[0]
            of_texts = similarities[: len(scored.group.texts)]
            loss = _in_order(of_texts, scored)
            if scored.reference is not None:
                loss = loss + reference_margins(of_texts[None], similarities[-1:])
            losses.append(loss)
            scores.append(of_texts)
        return torch.stack(losses).mean(), scores

    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """See `Learner`."""
        write_pointwise(self.model, self._config, self._tokenizer, folder, temperature)


def _in_order(similarities: Tensor, scored: ScoredGroup) -> Tensor:
    targets = scored.targets([PREFERENCE])[:, 0]
    known = np.flatnonzero(~np.isnan(targets))
    of_known = similarities[torch.from_numpy(known).to(similarities.device)]
    return rank_margins(of_known[None], torch.from_numpy(targets[known]).to(of_known)[None], between_equals=False)


class RewardModelLearner(GroupLearner):
    """A fresh output on an encoder (or decoder), or that of a reward model to train on.

    Each text is read once, whatever number of preferences it stands in; P(a better than b) = σ(score a − score b).
    The loss is `Recipe.loss` of the scores, its mean over each group, weighted by the root of how many preferences
    the group has, as for the PairRanker.

    Args:
        recipe: lengths, loss, seed.
        backbone: Hub name or folder.
        workspace: for the files that the reader of texts needs.

    Raises:
        NotFoundError: there is no such backbone.
        CheckpointError: its tokenizer has no fast form.
        InputError: it reads fewer tokens than `recipe.max_length`, or has no token to pad with.
    """

    name = "reward_model"

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        model, tokenizer = load_backbone(backbone, AutoModelForSequenceClassification, recipe, num_labels=1)
        self.model, self.encoder = model, model.base_model
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise InputError(f"The tokenizer of {backbone!r} has no token to pad with, nor one that ends a text.")
        model.config.pad_token_id = tokenizer.pad_token_id
        tokenizer.model_max_length = recipe.max_length
        self._files = tokenizer
        self._loss = find_loss(recipe.loss)
        super().__init__(recipe, tokenizer.pad_token_id)
        # Read as the checkpoint will be.
        self._save_reader(workspace)
        config, bare = ClassifierConfig.load(workspace), load_tokenizer(workspace)
        self._format = (
            ChatFormat.load(workspace, bare, config.max_length)
            if config.chat
            else PairFormat(bare, config.max_length, token_types=config.token_types)
        )

    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """A sequence for each text, with the prompt before it."""
        readings = iter(self._format.read([(s.group.prompt, text) for s in groups for text in s.group.texts]))
        return [list(itertools.islice(readings, len(scored.group.texts))) for scored in groups]

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `GroupLearner`."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        scores = self.model(**inputs).logits[:, 0].float().split(batch["sizes"])
        losses, weights = [], []
        for scored, of_texts in zip(batch["groups"], scores, strict=True):
            a, b, targets = columns(scored, of_texts)
            if not self._recipe.soft_labels:
                targets = (targets > 0.5).float()
            left, right, wins = of_texts[a, None], of_texts[b, None], targets[:, None]
            losses.append(self._loss(left, right, wins, 1 - wins))
            weights.append(len(a) ** 0.5)
        weight = torch.tensor(weights, device=scores[0].device)
        return (weight * torch.stack(losses)).sum() / weight.sum(), list(scores)

    def save(self, folder: Path, temperature: float = 1.0) -> None:
        """In transformers' layout, which has no place for a temperature."""
        model: Any = self.model
        with without_bars():
            model.save_pretrained(folder)
        self._save_reader(folder)

    def _save_reader(self, folder: Path) -> None:
        model: Any = self.model
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        self._files.save_pretrained(folder)


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

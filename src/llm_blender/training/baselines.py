"""Training of the paper's baselines: SummaReranker, SimCLS, a reward model, and a head for MLM-scoring."""

from __future__ import annotations

import dataclasses
import itertools
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import processors
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from llm_blender._torch import without_bars
from llm_blender.errors import InputError
from llm_blender.rankers.batching import pad
from llm_blender.rankers.checkpoints import load_tokenizer
from llm_blender.rankers.encoder_ranker import PointwiseConfig
from llm_blender.rankers.mlm_scoring import MaskedInput, longest_input
from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.reward_model import ClassifierConfig, make_format
from llm_blender.rankers.simcls import SimCLSInput, SimCLSModel
from llm_blender.rankers.summa_reranker import SummaInput, SummaRerankerModel
from llm_blender.training.batches import PackedGroups, pack
from llm_blender.training.checkpoints import backbone_values, load_backbone, write_pointwise, write_tokenizer
from llm_blender.training.groups import PREFERENCE, ScoredGroup, require_groups
from llm_blender.training.loop import Batch, Learner, Reports, StepOutput, freeze, train
from llm_blender.training.losses import (
    agreement,
    best_per_metric,
    find_loss,
    mean_over_groups,
    rank_margins,
    reference_margins,
)
from llm_blender.training.recipes import Recipe


class BaselineLearner(Learner[ScoredGroup]):
    """A baseline to train.

    A subclass is made from a recipe, a backbone (Hub name or folder), and a workspace, the folder for the files that
    its input format reads. It raises `NotFoundError` if there is no such backbone, `CheckpointError` if its tokenizer
    has no fast form or lacks a token that the ranker needs, and `InputError` if it reads fewer tokens than
    `Recipe.max_length`.

    Args:
        recipe: layers to freeze, lengths, batches.
        encoder: the part of the model that `Recipe.frozen_layers` freezes.
        tokenizer: of transformers.
        config: of a checkpoint in the package's own layout; None for transformers' layout.

    Attributes:
        scored: whether it learns from scores and references, in addition to preferences.
    """

    scored: bool = False

    def __init__(
        self, recipe: Recipe, encoder: nn.Module, tokenizer: Any, config: PointwiseConfig | None = None
    ) -> None:
        self._recipe, self._tokenizer, self._config = recipe, tokenizer, config
        freeze(encoder, recipe.frozen_layers)

    def train(
        self, groups: Sequence[ScoredGroup], dev: Sequence[ScoredGroup], output: Path, **reports: Unpack[Reports]
    ) -> list[dict[str, Any]]:
        """Train in one stage, from the last checkpoint in `output` if there is one; see `llm_blender.training.loop`.

        Raises:
            InputError: there are no groups.
        """
        require_groups(groups)
        recipe = self._recipe
        return train(self, recipe, groups, dev, output / self.name, steps=recipe.steps, **reports)

    def save(self, folder: Path) -> None:
        """See `Learner`."""
        if self._config is not None:
            write_pointwise(self.model, self._config, self._tokenizer.backend_tokenizer, folder)
            return
        with without_bars():
            self.model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def save_temperature(self, folder: Path, temperature: float) -> None:
        """Write a fitted temperature to a checkpoint; transformers' layout has no place for one."""
        if self._config is not None:
            dataclasses.replace(self._config, temperature=temperature).save(folder)


class PointwiseLearner(BaselineLearner):
    """A baseline that scores each text of a group; its `pad_id` is the padding token."""

    pad_id: int

    @abstractmethod
    def read(self, groups: Sequence[ScoredGroup]) -> Iterable[Sequence[Reading]]:
        """Make the sequences of each group."""

    @abstractmethod
    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Compute the loss of a batch, and the scores of each group's texts, ``[texts]``."""

    def batches(self, examples: Sequence[ScoredGroup], *, evaluation: bool = False) -> PackedGroups:
        """See `Learner`."""
        return PackedGroups(examples, self.read, self.pad_id, self._recipe.batch_tokens)

    def step(self, batch: Batch) -> StepOutput:
        """See `Learner`; predictions are logits of preferences, targets their probabilities."""
        loss, scores = self.score(batch)
        columns = [_columns(scored, of_texts) for scored, of_texts in zip(batch["groups"], scores, strict=True)]
        logits = [of_texts[a] - of_texts[b] for of_texts, (a, b, _) in zip(scores, columns, strict=True)]
        return StepOutput(loss, torch.cat(logits), torch.cat([targets for *_, targets in columns]))

    def evaluate(self, predictions: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """See `Learner`."""
        return {"agreement": agreement(predictions, targets)}


def _columns(scored: ScoredGroup, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split a group's preferences into indices of a, indices of b, and probabilities, ``[P]`` each."""
    a, b, probabilities = zip(*scored.group.preferences, strict=True)
    device = like.device
    return (
        torch.tensor(a, device=device),
        torch.tensor(b, device=device),
        torch.tensor(probabilities, dtype=torch.float32, device=device),
    )


def _read_pairs(input_format: Any, groups: Sequence[ScoredGroup]) -> list[list[Reading]]:
    """Make a sequence of each text, with the prompt before it."""
    readings = iter(input_format.read([(s.group.prompt, text) for s in groups for text in s.group.texts]))
    return [list(itertools.islice(readings, len(scored.group.texts))) for scored in groups]


def _load_backbone(name: str, kind: Any, recipe: Recipe, **settings: Any) -> tuple[Any, Any]:
    """Load a model and its fast tokenizer, see `load_backbone`; a tokenizer that can then marks texts and pairs.

    Raises:
        InputError: it reads fewer tokens than `recipe.max_length`.
    """
    model, fast = load_backbone(name, kind, recipe.seed, **settings)
    tokenizer = fast.backend_tokenizer
    around = len(tokenizer.encode("a", "a")) - len(tokenizer.encode("a", "a", add_special_tokens=False))
    sep, cls = ((token, tokenizer.token_to_id(token)) for token in ("[SEP]", "[CLS]"))
    if not around and sep[1] is not None and cls[1] is not None:
        tokenizer.post_processor = processors.BertProcessing(sep, cls)  # it has them, but puts none around a pair
    if (places := longest_input(model)) < recipe.max_length:
        raise InputError(f"{name!r} reads {places} tokens: max_length cannot be {recipe.max_length}.")
    return model, fast


def _pointwise_config(
    kind: Literal["summareranker", "simcls"], recipe: Recipe, encoder: Any, *, special: int, tasks: Sequence[str]
) -> PointwiseConfig:
    """Make a ranker's configuration; a candidate may fill what an instruction of full length leaves.

    Args:
        kind: of ranker.
        recipe: lengths.
        encoder: of transformers.
        special: tokens of `recipe.max_length` that belong to neither text.
        tasks: outputs of the ranker.
    """
    return PointwiseConfig(
        kind,
        backbone=backbone_values(encoder),
        source_max_length=recipe.source_max_length,
        candidate_max_length=recipe.max_length - recipe.source_max_length - special,
        tasks=tuple(tasks),
    )


class SummaRerankerLearner(PointwiseLearner):
    """A cross-encoder with a mixture of experts and one output per task (arXiv 2203.06569).

    The loss is the binary cross entropy against "is best by this metric", averaged over the known candidates and
    metrics (see `labels`), and the term that balances the experts.

    Args:
        tasks: metrics, one output each; for the others see `BaselineLearner`.
    """

    name = "summa_reranker"
    scored = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path, tasks: Sequence[str]) -> None:
        encoder, tokenizer = _load_backbone(backbone, AutoModel, recipe)
        # A sequence has three special tokens.
        config = _pointwise_config("summareranker", recipe, encoder, special=3, tasks=tasks)
        self.model, self._tasks = SummaRerankerModel(config, encoder), config.tasks
        super().__init__(recipe, encoder, tokenizer, config)
        write_tokenizer(config, tokenizer.backend_tokenizer, workspace)
        self._format = SummaInput(workspace, config)
        self.pad_id = self._format.special.pad

    def read(self, groups: Sequence[ScoredGroup]) -> list[list[Reading]]:
        """See `PointwiseLearner`."""
        return _read_pairs(self._format, groups)

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `PointwiseLearner`; the score of a text is the mean of its logits, as in the ranker."""
        logits, balance = self.model.logits(batch["input_ids"], batch["attention_mask"])
        wanted = np.concatenate([labels(scored.targets(self._tasks)) for scored in batch["groups"]])
        targets = torch.from_numpy(wanted).to(logits.device, torch.float32)
        known = ~targets.isnan()
        loss = functional.binary_cross_entropy_with_logits(logits.float()[known], targets[known])
        return loss + balance.float(), list(torch.split(logits.float().mean(-1), batch["sizes"]))


def labels(targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Label the best text by each task with 1, the others with 0, and with NaN what the task leaves open.

    That is a text without a score by the task, and every text if all known scores are equal.

    Args:
        targets: scores ``[texts, tasks]``, NaN for unknown.

    Returns:
        ``[texts, tasks]``.
    """
    known = ~np.isnan(targets)
    lowest = np.where(known, targets, -np.inf)
    best = best_per_metric(torch.from_numpy(lowest)[None])[0].numpy()
    differ = lowest.max(0) > np.where(known, targets, np.inf).min(0)
    return np.where(known & differ, best, np.nan)


class SimCLSLearner(PointwiseLearner):
    """A bi-encoder whose score is the cosine of instruction and candidate (arXiv 2106.01890).

    The loss is `losses.reference_margins` and `losses.rank_margins`: the reference, if there is one, nearer to the
    instruction than any candidate, and a better candidate nearer than a worse one, by a margin that grows with their
    distance in the order. The candidate that wins more of the group's preferences is better; between equals there is no
    margin.
    """

    name = "simcls"
    scored = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        encoder, tokenizer = _load_backbone(backbone, AutoModel, recipe)
        bare = tokenizer.backend_tokenizer
        bare.add_special_tokens(["<source>", "<candidate>"])
        encoder.resize_token_embeddings(bare.get_vocab_size(), mean_resizing=False)
        config = _pointwise_config("simcls", recipe, encoder, special=0, tasks=(PREFERENCE,))
        self.model = SimCLSModel(config, encoder)
        super().__init__(recipe, encoder, tokenizer, config)
        write_tokenizer(config, bare, workspace)
        self._format = SimCLSInput(workspace, config)
        self.pad_id = self._format.special.pad

    def read(self, groups: Sequence[ScoredGroup]) -> list[list[Reading]]:
        """See `PointwiseLearner`: a sequence of the prompt, one of each text, and one of the reference, if any."""
        prompts = self._format.read_sources([scored.group.prompt for scored in groups], [False] * len(groups))
        texts = [[*s.group.texts, *([] if s.reference is None else [s.reference])] for s in groups]
        readings = iter(self._format.read_candidates(list(itertools.chain.from_iterable(texts))))
        return [[prompt, *itertools.islice(readings, len(of))] for prompt, of in zip(prompts, texts, strict=True)]

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `PointwiseLearner`."""
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


def _in_order(similarities: Tensor, scored: ScoredGroup) -> Tensor:
    targets = scored.targets([PREFERENCE])[:, 0]
    known = np.flatnonzero(~np.isnan(targets))
    of_known = similarities[torch.from_numpy(known).to(similarities.device)]
    return rank_margins(of_known[None], torch.from_numpy(targets[known]).to(of_known)[None], between_equals=False)


class RewardModelLearner(PointwiseLearner):
    """A fresh output on an encoder or decoder, or that of a reward model to train further.

    Each text is read once, however many preferences it is in; P(a better than b) = σ(score a − score b). The loss is
    `Recipe.loss` of the scores, averaged as the PairRanker's.
    """

    name = "reward_model"

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        model, tokenizer = _load_backbone(backbone, AutoModelForSequenceClassification, recipe, num_labels=1)
        self.model = model
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise InputError(f"The tokenizer of {backbone!r} has neither a padding token nor one that ends a text.")
        model.config.pad_token_id = tokenizer.pad_token_id
        tokenizer.model_max_length = recipe.max_length
        self._loss, self.pad_id = find_loss(recipe.loss), tokenizer.pad_token_id
        super().__init__(recipe, model.base_model, tokenizer)
        # The same files as in the checkpoint, so that training reads texts as the ranker will.
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(workspace)
        tokenizer.save_pretrained(workspace)
        config, bare = ClassifierConfig.load(workspace), load_tokenizer(workspace)
        self._format = make_format(workspace, config, bare)

    def read(self, groups: Sequence[ScoredGroup]) -> list[list[Reading]]:
        """See `PointwiseLearner`."""
        return _read_pairs(self._format, groups)

    def score(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """See `PointwiseLearner`."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        scores = list(self.model(**inputs).logits[:, 0].float().split(batch["sizes"]))
        losses = []
        for scored, of_texts in zip(batch["groups"], scores, strict=True):
            a, b, targets = _columns(scored, of_texts)
            if not self._recipe.soft_labels:
                targets = (targets > 0.5).float()
            left, right, wins = of_texts[a, None], of_texts[b, None], targets[:, None]
            losses.append(self._loss(left, right, wins, 1 - wins))
        return mean_over_groups(losses, [len(scored.group.preferences) for scored in batch["groups"]]), scores


_MASKED = 0.15  # share of the tokens, as BERT's (arXiv 1810.04805)


class MLMHeadLearner(BaselineLearner):
    """A head that predicts masked tokens, for MLM-scoring, which reads the groups' texts without their prompts.

    The head and the encoder's layers above `Recipe.frozen_layers` are trained; the embeddings stay, and with them the
    head's decoder, which is tied to them. Every drawn token becomes the mask, as in scoring.
    """

    name = "mlm_scoring"
    draws = True

    def __init__(self, recipe: Recipe, backbone: str, workspace: Path) -> None:
        model, tokenizer = _load_backbone(backbone, AutoModelForMaskedLM, recipe)
        self.model, self._encoder = model, model.base_model
        super().__init__(recipe, self._encoder, tokenizer)
        workspace.mkdir(parents=True, exist_ok=True)
        tokenizer.backend_tokenizer.save(str(workspace / "tokenizer.json"))
        self._format = MaskedInput(workspace)
        self._places: Tensor | None = None
        # Vocabularies are large: only the states at the masks go through the head.
        self._encoder.register_forward_hook(self._keep_masks)

    def batches(self, examples: Sequence[ScoredGroup], *, evaluation: bool = False) -> MaskedTexts:
        """See `Learner`."""
        texts = dict.fromkeys(text for scored in examples for text in scored.group.texts)
        return MaskedTexts(list(texts), self._format, self._recipe, 1 if evaluation else self._recipe.epochs)

    def step(self, batch: Batch) -> StepOutput:
        """See `Learner`; predictions are the likeliest tokens behind the masks, targets the original ones."""
        if not any(weight.requires_grad for weight in self._encoder.parameters()):
            self._encoder.eval()  # only the head learns, from the states that the encoder has in use
        self._places = batch["places"]
        try:
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
        finally:
            self._places = None
        loss = functional.cross_entropy(logits.float(), batch["targets"])
        return StepOutput(loss, logits.argmax(-1), batch["targets"])

    def evaluate(self, predictions: NDArray[Any], targets: NDArray[Any]) -> dict[str, float]:
        """See `Learner`: the share of masked tokens predicted."""
        return {"accuracy": float(np.mean(predictions == targets))}

    def _keep_masks(self, module: Any, inputs: Any, output: Any) -> Any:
        if self._places is not None:
            output["last_hidden_state"] = output["last_hidden_state"].flatten(0, 1)[self._places][None]
        return output


class MaskedTexts(Dataset[Batch]):
    """Texts packed into batches, with masks drawn anew on each pass.

    An item is one batch: ``input_ids`` and ``attention_mask``, int64 ``[B, T]``; ``places`` ``[M]``, indices of the
    masks among the batch's ``B · T`` tokens; and ``targets`` ``[M]``, the original tokens.

    Args:
        texts: training texts.
        input_format: of the ranker.
        recipe: lengths, tokens per batch, seed.
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
        rng = np.random.default_rng([self._seed, index])  # not the trainer's, so that resuming draws the same
        texts = [self._ids[number] for number in self._packed[index]]
        drawn = [_draw(len(text), rng) for text in texts]
        special = self._special
        ids, mask = pad([np.array([special.cls, *text, special.sep]) for text in texts], special.pad)
        rows = np.repeat(np.arange(len(texts)), [len(columns) for columns in drawn])
        columns = np.concatenate(drawn) + 1  # after [CLS]
        targets = ids[rows, columns]
        ids[rows, columns] = self._mask
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask),
            "places": torch.from_numpy(rows * ids.shape[1] + columns),
            "targets": torch.from_numpy(targets),
        }


def _draw(length: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw the tokens of a text to mask: at least one."""
    return np.sort(rng.permutation(length)[: max(1, round(_MASKED * length))])

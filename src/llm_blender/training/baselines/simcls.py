"""SimCLS, a baseline of the paper: a good candidate lies near to its instruction."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel

from llm_blender.rankers.pointwise import Reading
from llm_blender.rankers.simcls import SimCLSInput, SimCLSModel
from llm_blender.training.baselines.backbone import load_backbone
from llm_blender.training.baselines.learner import Batch, GroupLearner
from llm_blender.training.baselines.pointwise import pointwise_config, write_pointwise, write_reader
from llm_blender.training.baselines.scored import PREFERENCE, ScoredGroup
from llm_blender.training.losses import rank_margins, reference_margins
from llm_blender.training.recipe import Recipe

__all__ = ["SimCLSLearner"]

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

"""PairRM as a transformers model, for code that loads llm-blender/PairRM-hf itself."""

from __future__ import annotations

from typing import Any

from llm_blender.errors import CheckpointError, InputError, MissingExtraError

try:
    import torch
    from torch import Tensor, nn
    from transformers import DebertaV2Config, DebertaV2Model, DebertaV2PreTrainedModel
    from transformers.modeling_outputs import SequenceClassifierOutput
except ModuleNotFoundError as error:
    raise MissingExtraError("DebertaV2PairRM", "torch") from error

from llm_blender.rankers.pair_ranker.modeling import signed_logistic

__all__ = ["DebertaV2PairRM"]

_MARKERS = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")


class DebertaV2PairRM(DebertaV2PreTrainedModel):  # type: ignore[no-untyped-call]
    """A DeBERTa that compares the two candidates of each row; `tokenize_pair` makes the rows.

    `PairRanker.from_pretrained` reads the same checkpoint and is faster; this class can be fine-tuned.

    Args:
        config: configuration of a DeBERTa, with the ids of PairRM's markers, `n_tasks` and `drop_out`.

    Raises:
        CheckpointError: the configuration lacks the markers.
    """

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        if any(getattr(config, name, None) is None for name in _MARKERS):
            raise CheckpointError(f"A DebertaV2PairRM needs {', '.join(_MARKERS)} in its config.json.")
        width, dropout = config.hidden_size, getattr(config, "drop_out", 0.05)
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, getattr(config, "n_tasks", 1)),
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Compute the logits ``[B]`` of rows ``[B, T]``: above zero, the first candidate is better.

        Args:
            input_ids: rows with the three markers, as made by `tokenize_pair`.
            attention_mask: None without padding; columns that are padding in all rows are not computed.
            token_type_ids: passed to the encoder, like the arguments below.
            position_ids: …
            inputs_embeds: embeddings used instead of those of `input_ids`, which are still needed for the markers.
            labels: ``[B]``, 1 if the first candidate is better, -1 if the second is, 0 for a tie.
            output_attentions: …
            output_hidden_states: …
            return_dict: False returns a tuple.

        Returns:
            `SequenceClassifierOutput`, whose loss is the mean of -log sigmoid(label * logit), or None without labels.

        Raises:
            InputError: a row lacks a marker.
        """
        if input_ids is None:
            raise InputError("DebertaV2PairRM needs input_ids: it finds the candidates by their markers.")
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        read = attention_mask.bool().any(dim=0)
        ids = input_ids[:, read]
        types, positions, embeds = (
            None if values is None else values[:, read] for values in (token_type_ids, position_ids, inputs_embeds)
        )
        encoded = self.pretrained_model(
            input_ids=None if embeds is not None else ids,
            attention_mask=attention_mask[:, read],
            token_type_ids=types,
            position_ids=positions,
            inputs_embeds=embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        source, first, second = (
            self._states_at(encoded.last_hidden_state, ids, getattr(self.config, name)) for name in _MARKERS
        )
        left, right = (self.head_layer(torch.cat([source, one], dim=-1)) for one in (first, second))
        logits = (left - right).mean(dim=-1)
        loss = None if labels is None else signed_logistic(logits, labels.to(logits.device))
        if return_dict is False:
            rest = (logits, *(values for values in (encoded.hidden_states, encoded.attentions) if values is not None))
            return rest if loss is None else (loss, *rest)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )

    @staticmethod
    def _states_at(states: Tensor, ids: Tensor, marker: int) -> Tensor:
        """Select the state ``[B, H]`` of the first token with the id `marker` in each row."""
        found = ids.eq(marker)
        if not bool(found.any(dim=1).all()):
            raise InputError(f"A row has no token {marker}, a marker of PairRM: make rows with tokenize_pair.")
        return states[torch.arange(len(states), device=states.device), found.int().argmax(dim=1)]

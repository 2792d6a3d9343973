"""SimCLS: encode instruction and candidates separately and score their cosine similarity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from llm_blender._inputs import clean
from llm_blender.rankers._torch import first_states, load_module
from llm_blender.rankers.batching import Tally
from llm_blender.rankers.checkpoints import SpecialTokens, load_tokenizer, token_id
from llm_blender.rankers.encoder_ranker import EncoderRanker, PointwiseConfig
from llm_blender.rankers.encoders import bare_encoder
from llm_blender.rankers.pointwise import Pair, Reading, Scored, tokens_of
from llm_blender.types import OnProgress, instruction_text

_SOURCE, _CANDIDATE = "<source>", "<candidate>"


class SimCLSInput:
    """Tokenizer and truncation.

    A special token inside a text is read as that token, as in the training of the published weights; the model reads
    the state of none of them but the first.

    Args:
        folder: the checkpoint, for its tokenizer.
        config: the lengths.

    Raises:
        CheckpointError: the tokenizer is missing, or lacks a marker or a special token.
    """

    def __init__(self, folder: Path, config: PointwiseConfig) -> None:
        self._config = config
        self._tokenizer = load_tokenizer(folder)
        self.special = SpecialTokens.of(self._tokenizer)
        self.vocabulary = self._tokenizer.get_vocab_size()
        for marker in (_SOURCE, _CANDIDATE):
            token_id(self._tokenizer, marker)

    def read_sources(self, texts: Sequence[str], from_end: Sequence[bool]) -> list[Reading]:
        """Tokenise instructions; cut those that are too long at the end, or with `from_end` at the beginning."""
        return self._read(_SOURCE, texts, from_end, self._config.source_max_length)

    def read_candidates(self, texts: Sequence[str]) -> list[Reading]:
        """Tokenise candidates."""
        return self._read(_CANDIDATE, texts, [False] * len(texts), self._config.candidate_max_length)

    def _read(self, marker: str, texts: Sequence[str], from_end: Sequence[bool], length: int) -> list[Reading]:
        # Tokenised with its marker: the first word's tokens depend on the text before it.
        encoded = self._tokenizer.encode_batch([marker + clean(text) for text in texts], add_special_tokens=False)
        budget = length - 3
        readings = []
        for encoding, end in zip(encoded, from_end, strict=True):
            first, *rest = encoding.ids
            kept = rest if len(rest) <= budget else rest[-budget:] if end else rest[:budget]
            readings.append(Reading([self.special.cls, first, *kept, self.special.sep], len(kept), len(rest)))
        return readings


class SimCLS(EncoderRanker[SimCLSInput]):
    """A bi-encoder whose score is the cosine of instruction and candidate (arXiv 2106.01890), in torch.

    Each instruction and each candidate is encoded once. Load one with `from_pretrained`.
    """

    name = "simcls"
    decimals = 6

    @classmethod
    def _read(cls, folder: Path, config: PointwiseConfig) -> tuple[SimCLSInput, nn.Module]:
        return SimCLSInput(folder, config), load_module(folder, lambda: SimCLSModel(config), one_encoder)

    def _score(self, pairs: Sequence[Pair], progress: OnProgress) -> Scored:
        prompts = [(instruction_text(instruction), not isinstance(instruction, str)) for instruction, _ in pairs]
        source_row = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
        candidate_row = {text: row for row, text in enumerate(dict.fromkeys(text for _, text in pairs))}
        texts, from_end = [text for text, _ in source_row], [end for _, end in source_row]
        sources = self.input_format.read_sources(texts, from_end)
        candidates = self.input_format.read_candidates(list(candidate_row))
        tally = Tally(progress, len(sources) + len(candidates), tokens_of([*sources, *candidates]))
        of_sources, of_candidates = self._run(sources, tally), self._run(candidates, tally)
        left = np.array([source_row[prompt] for prompt in prompts], np.intp)
        right = np.array([candidate_row[text] for _, text in pairs], np.intp)
        both = [(sources[s], candidates[c]) for s, c in zip(left, right, strict=True)]
        return Scored(
            np.asarray((of_sources[left] * of_candidates[right]).sum(-1, dtype=np.float64)),
            np.array([s.read + c.read for s, c in both], np.int64),
            np.array([s.whole + c.whole for s, c in both], np.int64),
        )


_SOURCE_WEIGHTS, _CANDIDATE_WEIGHTS = "source_encoder.", "candidate_encoder."


class SimCLSModel(nn.Module):
    """One encoder for instructions and candidates: texts to points on a sphere.

    Args:
        config: of the encoder.
        backbone: an encoder to train; None builds the config's, with random weights.
    """

    def __init__(self, config: PointwiseConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        self.source_encoder = bare_encoder(config.backbone, backbone)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return unit vectors ``[B, H]`` of ids and mask ``[B, T]``: the state of ``[CLS]``.

        The score of a candidate is the dot product of its vector with the instruction's, their cosine.
        """
        first = first_states(self.source_encoder, input_ids, attention_mask)
        return functional.normalize(first.float(), dim=-1)


def one_encoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a checkpoint of llm-blender 0.0.2, which has the encoder under one name, the other or both.

    Raises:
        ValueError: it has two different encoders.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        shared = name.startswith(_CANDIDATE_WEIGHTS)
        new = _SOURCE_WEIGHTS + name.removeprefix(_CANDIDATE_WEIGHTS) if shared else name
        if new in renamed and not torch.equal(renamed[new], tensor):
            raise ValueError(f"source_encoder and candidate_encoder differ in {new.removeprefix(_SOURCE_WEIGHTS)}")
        renamed[new] = tensor
    return renamed

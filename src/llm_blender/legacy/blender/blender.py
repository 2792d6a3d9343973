"""`Blender`: the interface of llm-blender 0.0.2, method for method, on today's rankers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.fusers.gen_fuser import GenFuser
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.types import Message

from ..gen_fuser.config import GenFuserConfig
from ..gpt_eval.utils import get_ranks_from_scores
from ..pair_ranker.config import RankerConfig
from ._fusing import fuse_texts, generate, load_gen_fuser
from ._loading import changed_fields, load
from ._ranking import (
    MODES,
    REF_MODES,
    Pointwise,
    Reader,
    Truncation,
    contest,
    make_reader,
    read_texts,
    references,
    texts_of,
)
from .blender_utils import get_pair_from_conv, get_topk_candidates_from_ranks
from .config import BlenderConfig

__all__ = ["Blender"]


class Blender:
    """Ranks and fuses candidates, as code written for llm-blender 0.0.2 asks for it; MIGRATION.md says what changed.

    New code is better off with `PairRanker` and `GenFuser`, whose results tell more.

    Args:
        blender_config: device and progress bars.
        ranker_config: of a ranker to load at once; its `load_checkpoint` says which.
        fuser_config: of a fuser to load at once; its `model_name` says which.

    Raises:
        InputError: the ranker's configuration names no checkpoint; and see `loadranker` and `loadfuser`.

    Example:
        >>> blender = Blender()
        >>> blender.loadranker("bundled")
        >>> blender.rank(["Why is the sky blue?"], [["Because.", "Air scatters blue light most."]])
        array([[2, 1]], dtype=int32)
    """

    def __init__(
        self,
        blender_config: BlenderConfig | None = None,
        ranker_config: RankerConfig | None = None,
        fuser_config: GenFuserConfig | None = None,
    ) -> None:
        self.blender_config = blender_config or BlenderConfig()
        self.ranker_config = ranker_config
        self.ranker: PairRanker | Pointwise | None = None
        if ranker_config is not None:
            values = changed_fields(ranker_config)
            if not values.get("load_checkpoint"):
                raise InputError("The RankerConfig names no checkpoint: set its load_checkpoint.")
            self.loadranker(values.pop("load_checkpoint"), **values)
        self.fuser: GenFuser | None = None
        self.fuser_config = fuser_config
        if fuser_config is not None:
            values = changed_fields(fuser_config)
            self.loadfuser(values.pop("model_name", fuser_config.model_name), **values)

    def loadranker(self, ranker_path: str | os.PathLike[str], device: Any = None, **kwargs: Any) -> None:
        """Load a ranker.

        Args:
            ranker_path: ``bundled``, a folder, a folder below ``cache_dir``, or a Hub name such as
                ``llm-blender/PairRM``.
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, a `torch.device`, or a list of them to share the work;
                None takes that of the configurations, and then CUDA where there is one, else the CPU.
            **kwargs: fields of `RankerConfig` that replace the checkpoint's: ``cache_dir``, ``source_maxlength``,
                ``candidate_maxlength``, ``model_name`` (the encoder), ``fp16``, …

        Raises:
            InputError: a field is unknown, or there is no such device.
            NotFoundError: there is no such checkpoint; the message says where it was looked for.
            CheckpointError: it cannot be read.
            MissingExtraError: torch is needed and not installed.
        """
        self.ranker, self.ranker_config = load(
            ranker_path, device=device, default_device=self.blender_config.device, **kwargs
        )

    def loadfuser(self, fuser_path: str | os.PathLike[str], device: Any = None, **kwargs: Any) -> None:
        """Load a fuser.

        Args:
            fuser_path: a folder, a folder below ``cache_dir``, or a Hub name such as ``llm-blender/gen_fuser_3b``.
            device: see `loadranker`.
            **kwargs: fields of `GenFuserConfig`: ``cache_dir``, ``max_length``, ``candidate_maxlength``,
                ``torch_dtype``, ``load_in_4bit``, ``load_in_8bit``.

        Raises:
            InputError: a field is unknown, there is no such device, or bitsandbytes is needed and not installed.
            NotFoundError: there is no such checkpoint; the message says where it was looked for.
            CheckpointError: it cannot be read.
            MissingExtraError: torch is not installed.
        """
        self.fuser, self.fuser_config = load_gen_fuser(
            fuser_path, device=device, default_device=self.blender_config.device, **kwargs
        )

    def rank(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        return_scores: bool = False,
        batch_size: int = 8,
        disable_tqdm: bool = False,
        *,
        source_max_length: int | None = None,
        candidate_max_length: int | None = None,
        truncation: Truncation = "auto",
    ) -> Any:
        """Rank the candidates of each input, every one against every other in both orders.

        Args:
            inputs: what the candidates answer.
            candidates: texts of each.
            instructions: put before the inputs.
            return_scores: return scores instead of ranks.
            batch_size: of ``truncation="reference"``; how much is computed at a time is not the caller's care.
            disable_tqdm: show no progress bar.
            source_max_length: tokens of instruction and input; None is the ranker's own.
            candidate_max_length: tokens of a candidate; None is the ranker's own.
            truncation: what a too long source loses: its end (``right``, what the published rankers were trained
                with), its beginning (``left``), its ``middle``, or what the checkpoint says (``auto``). With
                ``reference`` its end, and what that leaves to candidates depends, as it did, on the longest source
                in a batch of `batch_size`.

        Returns:
            An array ``[n, c]``: int32 ranks, 1 is best, or float32 scores, (1/c) · Σ_j (l(i,j) − l(j,i)). A list of
            arrays ``[c]`` where the lists of candidates differ in length.

        Raises:
            InputError: no ranker is loaded, lists are empty or differ in length, or a text is no text.
        """
        reader = self._reader(
            batch_size=batch_size,
            truncation=truncation,
            lengths=(source_max_length, candidate_max_length),
            title="" if disable_tqdm else "Ranking",
        )
        scores = reader.scores(read_texts(inputs, candidates, instructions))
        return _table(scores if return_scores else [get_ranks_from_scores(row) for row in scores])

    def rank_with_ref(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        return_scores: bool = False,
        batch_size: int = 8,
        ref_mode: str = "longest",
        ref_candidates: Sequence[str] | None = None,
        *,
        mode: str | None = None,
        source_max_length: int | None = None,
        candidate_max_length: int | None = None,
        truncation: Truncation = "auto",
    ) -> Any:
        """Rank the candidates of each input by comparing them with one reference only.

        Args:
            inputs: what the candidates answer.
            candidates: texts of each.
            instructions: put before the inputs.
            return_scores: return scores instead of ranks.
            batch_size: see `rank`.
            ref_mode: the candidate that is the reference: ``longest``, ``shortest``, ``median_length``, ``first``
                or ``last``.
            ref_candidates: the references themselves, one for each input.
            mode: `ref_mode` by the name that it had in the documentation; or one of `compare`'s modes.
            source_max_length: see `rank`.
            candidate_max_length: see `rank`.
            truncation: see `rank`.

        Returns:
            An array ``[n, c]`` of int32 ranks or of float64 scores, l(candidate, reference) − l(reference,
            candidate); a list of arrays where the lists of candidates differ in length.

        Raises:
            InputError: as for `rank`, or a mode is unknown.
        """
        orders = MODES[0]
        if mode in MODES:
            orders = mode
        elif mode is not None:
            ref_mode = mode
        if ref_mode not in REF_MODES:
            raise unknown_name("ref_mode", ref_mode, REF_MODES)
        reader = self._reader(
            batch_size=batch_size,
            truncation=truncation,
            lengths=(source_max_length, candidate_max_length),
            title="Ranking",
        )
        texts = read_texts(inputs, candidates, instructions)
        matched, matches = references(texts, ref_mode, ref_candidates)
        logits = -reader.compare(matched, matches, orders).astype(np.float64)
        scores = np.split(logits, np.cumsum(texts.sizes)[:-1])
        return _table(scores if return_scores else [get_ranks_from_scores(row) for row in scores])

    def compare(
        self,
        inputs: Sequence[str],
        candidates_A: Sequence[str],  # noqa: N803 (0.0.2's name)
        candidates_B: Sequence[str],  # noqa: N803
        instructions: Sequence[str] | None = None,
        batch_size: int = 4,
        return_logits: bool = False,
        mode: str = "[A,B]+[B,A]",
        disable_tqdm: bool = False,
        *,
        truncation: Truncation = "auto",
    ) -> NDArray[Any]:
        """Compare two candidates of each input.

        Args:
            inputs: what the candidates answer.
            candidates_A: one of each input.
            candidates_B: another of each.
            instructions: put before the inputs.
            batch_size: see `rank`.
            return_logits: return logits instead of verdicts.
            mode: ``[A,B]+[B,A]`` is l(A,B) − l(B,A), the sum of the evidence of both orders and twice
                `Comparison.logit`; ``[A,B]`` is l(A,B) alone; ``[B,A]`` is l(B,A), which is above zero where *B* is
                better.
            disable_tqdm: show no progress bar.
            truncation: see `rank`.

        Returns:
            An array ``[n]``: float32 logits, or bool, whether they are above zero.

        Raises:
            InputError: no ranker is loaded, lists are empty or differ in length, a text is no text, or the mode is
                unknown.
        """
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        left = texts_of(candidates_A, "candidates_A")
        right = texts_of(candidates_B, "candidates_B", len(left))
        texts = read_texts(inputs, list(zip(left, right, strict=True)), instructions)
        title = "" if disable_tqdm else "Comparing"
        reader = self._reader(batch_size=batch_size, truncation=truncation, title=title)
        logits = reader.compare(texts, [(i, 0, 1) for i in range(len(left))], mode)
        return logits if return_logits else logits > 0

    def compare_conversations(
        self,
        conversations_a: Sequence[Sequence[Message]],
        conversations_b: Sequence[Sequence[Message]],
        batch_size: int = 4,
        return_logits: bool = False,
        mode: str = "[A,B]+[B,A]",
        *,
        truncation: Truncation = "auto",
    ) -> NDArray[Any]:
        """Compare two conversations in which the user says the same.

        Args:
            conversations_a: messages of user and assistant in turn; roles in any usual spelling.
            conversations_b: others.
            batch_size: see `rank`.
            return_logits: see `compare`.
            mode: see `compare`.
            truncation: see `rank`.

        Returns:
            See `compare`.

        Raises:
            InputError: as for `compare`, or the conversations do not fit together.
        """
        sources, left, right = get_pair_from_conv(conversations_a, conversations_b)
        return self.compare(sources, left, right, None, batch_size, return_logits, mode=mode, truncation=truncation)

    def get_best_of_n(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        pairrm_cmp_type: str = "bubble",
        return_all: bool = False,
        batch_size: int = 8,
        *,
        truncation: Truncation = "auto",
    ) -> Any:
        """The best candidate of each input.

        Args:
            inputs: what the candidates answer.
            candidates: texts of each.
            instructions: put before the inputs.
            pairrm_cmp_type: ``bubble`` finds the best with 2(c − 1) comparisons, by a cup that is always drawn in the
                same way; ``full`` makes all c(c − 1); ``reference`` is 0.0.2's bubble, whose start order torch's
                global generator draws anew each time, once a batch.
            return_all: return all candidates of each input, the best first. With ``full`` the others are sorted; with
                ``bubble`` they stand in the order of how late they went out, with ``reference`` in that in which they
                lost.
            batch_size: of ``reference``; see `rank`.
            truncation: see `rank`.

        Returns:
            A list of texts. With `return_all` a list of lists, or, from ``full``, an array of texts ``[n, c]`` if the
            lists are of one length.

        Raises:
            InputError: as for `rank`, or the type is unknown.
            MissingExtraError: ``reference`` without torch.
        """
        return self._of_n(inputs, candidates, instructions, pairrm_cmp_type, return_all, batch_size, truncation, False)

    def get_worst_of_n(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        pairrm_cmp_type: str = "bubble",
        return_all: bool = False,
        batch_size: int = 8,
        *,
        truncation: Truncation = "auto",
    ) -> Any:
        """The worst candidate of each input; as `get_best_of_n`, the worst first."""
        return self._of_n(inputs, candidates, instructions, pairrm_cmp_type, return_all, batch_size, truncation, True)

    def n_generate(
        self,
        model: Any,
        model_tokenizer: Any,
        inputs: Sequence[str],
        instructions: Sequence[str] | None = None,
        n: int = 5,
        sampling_mode: str | None = "top_p_sampling",
        batch_size: int = 4,
        **generate_kwargs: Any,
    ) -> list[list[str]]:
        """Sample several answers to each input; see `generate`."""
        return generate(
            model,
            model_tokenizer,
            inputs,
            instructions,
            n=n,
            sampling_mode=sampling_mode,
            batch_size=batch_size,
            shown=self.blender_config.use_tqdm,
            options=generate_kwargs,
        )

    def best_of_n_generate(
        self,
        model: Any,
        model_tokenizer: Any,
        inputs: Sequence[str],
        instructions: Sequence[str] | None = None,
        n: int = 5,
        sampling_mode: str | None = "top_p_sampling",
        batch_size: int = 4,
        pairrm_cmp_type: str = "bubble",
        return_all: bool = False,
        **generate_kwargs: Any,
    ) -> Any:
        """`n_generate`, and `get_best_of_n` of what comes."""
        self._loaded()  # before the long work
        texts = self.n_generate(
            model, model_tokenizer, inputs, instructions, n, sampling_mode, batch_size, **generate_kwargs
        )
        return self.get_best_of_n(inputs, texts, instructions, pairrm_cmp_type, return_all, batch_size)

    def fuse(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        batch_size: int = 4,
        **generate_kwargs: Any,
    ) -> list[str]:
        """Write one answer to each input from its candidates.

        Args:
            inputs: what the candidates answer.
            candidates: texts of each, best first; they are not changed.
            instructions: of the inputs; the fuser reads both.
            batch_size: inputs at a time.
            **generate_kwargs: of ``model.generate``, four beams if nothing else is said; and ``candidate_max_length``,
                tokens of a candidate and, unless ``max_new_tokens`` is given, of what is written.

        Returns:
            A text for each input.

        Raises:
            InputError: no fuser is loaded, lists are empty or differ in length, a text is no text, an option is
                unknown, or two candidates do not fit into what the fuser reads.
            WorkError: the memory of the device does not suffice.
        """
        shown = self.blender_config.use_tqdm
        return fuse_texts(
            self._loaded_fuser(),
            inputs,
            candidates,
            instructions,
            batch_size=batch_size,
            shown=shown,
            **generate_kwargs,
        )

    def rank_and_fuse(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        return_scores: bool = False,
        batch_size: int = 4,
        top_k: int | None = 3,
        **generate_kwargs: Any,
    ) -> tuple[list[str], Any]:
        """`rank`, and `fuse` of the best candidates of each input.

        Args:
            inputs: what the candidates answer.
            candidates: texts of each.
            instructions: see `rank` and `fuse`.
            return_scores: return scores instead of ranks.
            batch_size: see `fuse`.
            top_k: how many candidates are fused; None takes all.
            **generate_kwargs: see `fuse`.

        Returns:
            The fused texts, and what `rank` returns.

        Raises:
            InputError: as for `rank` and `fuse`, or `top_k` is not above zero.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k must be above zero, not {top_k}.")
        self._loaded_fuser()  # before the long work
        found = self.rank(inputs, candidates, instructions, return_scores=return_scores)
        ranks: Any = [-np.asarray(row) for row in found] if return_scores else found
        best = get_topk_candidates_from_ranks(ranks, candidates, top_k)
        return self.fuse(inputs, best, instructions, batch_size, **generate_kwargs), found

    def _loaded(self) -> PairRanker | Pointwise:
        if self.ranker is None:
            raise InputError("No ranker is loaded: call blender.loadranker('llm-blender/PairRM') first.")
        return self.ranker

    def _loaded_fuser(self) -> GenFuser:
        if self.fuser is None:
            raise InputError("No fuser is loaded: call blender.loadfuser('llm-blender/gen_fuser_3b') first.")
        return self.fuser

    def _reader(self, *, title: str, **options: Any) -> Reader:
        return make_reader(self._loaded(), title=title if self.blender_config.use_tqdm else "", **options)

    def _of_n(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None,
        kind: str,
        return_all: bool,
        batch_size: int,
        truncation: str,
        worst: bool,
    ) -> Any:
        reader = self._reader(batch_size=batch_size, truncation=truncation, title="Choosing")
        texts = read_texts(inputs, candidates, instructions)
        orders = contest(kind, reader, texts, batch_size, worst=worst)
        found = [[row[place] for place in order] for row, order in zip(texts.candidates, orders, strict=True)]
        if not return_all:
            return [row[0] for row in found]
        return np.array(found) if kind == "full" and len(set(texts.sizes)) == 1 else found


def _table(rows: Sequence[NDArray[Any]]) -> Any:
    """One array where all rows are of a length, else a list of them."""
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else list(rows)

"""`Blender`: the interface of llm-blender 0.0.2, method by method, on today's rankers and fusers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partialmethod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llm_blender.errors import InputError, unknown_name
from llm_blender.fusers.gen_fuser import GenFuser
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.types import Message

from ..gen_fuser.config import GenFuserConfig
from ..gpt_eval.utils import get_ranks_from_scores
from ..pair_ranker.config import RankerConfig
from ._fusing import SAMPLING_MODES, generate_by_transformers, generate_by_vllm, load_gen_fuser
from ._loading import changed_fields, load
from ._ranking import (
    MODES,
    REF_MODES,
    Reader,
    Truncation,
    contest,
    make_reader,
    progress_bar,
    read_lists,
    read_texts,
    references,
    texts_of,
)
from .blender_utils import get_pair_from_conv, get_topk_candidates_from_ranks
from .config import BlenderConfig

if TYPE_CHECKING:
    from llm_blender.rankers.pointwise import PointwiseRanker

__all__ = ["Blender"]


class Blender:
    """The ranker and fuser of llm-blender 0.0.2, for code written for it; MIGRATION.md lists the changes.

    New code should use `PairRanker` and `GenFuser`, whose results contain more.

    Args:
        blender_config: device and progress bars.
        ranker_config: configuration of a ranker to load, with its `load_checkpoint`.
        fuser_config: configuration of a fuser to load, with its `model_name`.

    Raises:
        InputError: the ranker's configuration has no checkpoint; see also `loadranker` and `loadfuser`.

    Examples:
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
        self.ranker: PairRanker | PointwiseRanker | None = None
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
            ranker_path: ``bundled``, a folder, a folder in ``cache_dir``, or a Hub name such as
                ``llm-blender/PairRM``.
            device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, a `torch.device`, or a list of them to share the work;
                None takes that of the configurations, and then CUDA if available, else the CPU.
            **kwargs: fields of `RankerConfig` that replace the checkpoint's: ``cache_dir``, ``source_maxlength``,
                ``candidate_maxlength``, ``model_name`` (the encoder), ``fp16``, …

        Raises:
            InputError: a field or the device is unknown.
            NotFoundError: the checkpoint does not exist; the message lists the places searched.
            CheckpointError: the checkpoint is invalid.
            MissingExtraError: torch is needed and not installed.
        """
        self.ranker, self.ranker_config = load(ranker_path, device, self.blender_config.device, **kwargs)

    def loadfuser(self, fuser_path: str | os.PathLike[str], device: Any = None, **kwargs: Any) -> None:
        """Load a fuser.

        Args:
            fuser_path: a folder, a folder in ``cache_dir``, or a Hub name such as ``llm-blender/gen_fuser_3b``.
            device: see `loadranker`.
            **kwargs: fields of `GenFuserConfig`: ``cache_dir``, ``max_length``, ``candidate_maxlength``,
                ``torch_dtype``, ``load_in_4bit``, ``load_in_8bit``.

        Raises:
            InputError: a field or the device is unknown, or bitsandbytes is needed and not installed.
            NotFoundError: the checkpoint does not exist; the message lists the places searched.
            CheckpointError: the checkpoint is invalid.
            MissingExtraError: torch is not installed.
        """
        self.fuser, self.fuser_config = load_gen_fuser(fuser_path, device, self.blender_config.device, **kwargs)

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
        """Rank the candidates of each input by comparing all pairs in both orders.

        Args:
            inputs: inputs that the candidates answer.
            candidates: texts for each input.
            instructions: put before the inputs.
            return_scores: return scores instead of ranks.
            batch_size: batch size of ``truncation="reference"``; otherwise the ranker chooses its batches.
            disable_tqdm: show no progress bar.
            source_max_length: maximum number of tokens of instruction and input; None for the ranker's own.
            candidate_max_length: maximum number of tokens of a candidate; None for the ranker's own.
            truncation: side on which a long source is cut: ``right`` (as in the training of the published rankers),
                ``left``, ``middle``, or ``auto`` for the checkpoint's setting. ``reference`` cuts on the right, and
                the length left to the candidates depends, as in 0.0.2, on the longest source in a batch of
                `batch_size`.

        Returns:
            An array ``[n, c]``: int32 ranks, 1 is best, or float32 scores, (1/c) · Σ_j (l(i,j) − l(j,i)). A list of
            arrays ``[c]`` if the lists of candidates differ in length.

        Raises:
            InputError: no ranker is loaded, lists are empty or differ in length, or a text is not a string.
        """
        lengths = source_max_length, candidate_max_length
        reader = self._reader("" if disable_tqdm else "Ranking", batch_size, truncation, lengths)
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
            inputs: see `rank`.
            candidates: see `rank`.
            instructions: see `rank`.
            return_scores: see `rank`.
            batch_size: see `rank`.
            ref_mode: the candidate that is the reference: ``longest``, ``shortest``, ``median_length``, ``first``
                or ``last``.
            ref_candidates: explicit references, one for each input.
            mode: `ref_mode` by its name in 0.0.2's documentation; or a mode of `compare`.
            source_max_length: see `rank`.
            candidate_max_length: see `rank`.
            truncation: see `rank`.

        Returns:
            An array ``[n, c]`` of int32 ranks or of float64 scores, l(candidate, reference) − l(reference,
            candidate); a list of arrays if the lists of candidates differ in length.

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
        reader = self._reader("Ranking", batch_size, truncation, (source_max_length, candidate_max_length))
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
            inputs: inputs that the candidates answer.
            candidates_A: first candidate of each input.
            candidates_B: second candidate of each input.
            instructions: put before the inputs.
            batch_size: see `rank`.
            return_logits: return logits instead of verdicts.
            mode: ``[A,B]+[B,A]`` is l(A,B) − l(B,A), twice `Comparison.logit`; ``[A,B]`` is l(A,B); ``[B,A]`` is
                l(B,A), which is above zero if *B* is better.
            disable_tqdm: show no progress bar.
            truncation: see `rank`.

        Returns:
            An array ``[n]``: float32 logits, or bool, true for logits above zero.

        Raises:
            InputError: no ranker is loaded, lists are empty or differ in length, a text is not a string, or the mode
                is unknown.
        """
        if mode not in MODES:
            raise unknown_name("mode", mode, MODES)
        left = texts_of(candidates_A, "candidates_A")
        right = texts_of(candidates_B, "candidates_B", len(left))
        texts = read_texts(inputs, list(zip(left, right, strict=True)), instructions)
        reader = self._reader("" if disable_tqdm else "Comparing", batch_size, truncation)
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
        """Compare pairs of conversations with the same user turns.

        Args:
            conversations_a: messages of user and assistant in turn; roles in any usual spelling.
            conversations_b: conversations with the same user turns.
            batch_size: see `rank`.
            return_logits: see `compare`.
            mode: see `compare`.
            truncation: see `rank`.

        Returns:
            See `compare`.

        Raises:
            InputError: as for `compare`, or the user turns differ.
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
        worst: bool = False,
    ) -> Any:
        """Select the best candidate of each input.

        Args:
            inputs: inputs that the candidates answer.
            candidates: texts for each input.
            instructions: put before the inputs.
            pairrm_cmp_type: ``bubble`` finds the best with 2(c − 1) comparisons, by a knockout with a fixed draw;
                ``full`` makes all c(c − 1); ``reference`` is 0.0.2's bubble, whose start order is drawn by torch's
                global generator, once a batch.
            return_all: return all candidates of each input, the best first. The others are sorted with ``full``, in
                the order of their elimination, latest first, with ``bubble``, and in the order of their defeats with
                ``reference``.
            batch_size: batch size of ``reference``; see `rank`.
            truncation: see `rank`.
            worst: select the worst candidate, and list the worst first.

        Returns:
            A list of texts. With `return_all` a list of lists, or, with ``full``, an array of texts ``[n, c]`` if the
            lists have the same length.

        Raises:
            InputError: as for `rank`, or the type is unknown.
            MissingExtraError: ``reference`` without torch.
        """
        reader = self._reader("Choosing", batch_size, truncation)
        texts = read_texts(inputs, candidates, instructions)
        orders = contest(pairrm_cmp_type, reader, texts, batch_size, worst=worst)
        found = [[row[place] for place in order] for row, order in zip(texts.candidates, orders, strict=True)]
        if not return_all:
            return [row[0] for row in found]
        return np.array(found) if pairrm_cmp_type == "full" and len(set(texts.sizes)) == 1 else found

    get_worst_of_n = partialmethod(get_best_of_n, worst=True)
    """Select the worst candidate of each input like `get_best_of_n`, the worst first."""

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
        """Sample several answers to each input.

        Args:
            model: a transformers model, or a ``vllm.LLM``.
            model_tokenizer: tokenizer of the model.
            inputs: prompts.
            instructions: put before the inputs, on a line of their own.
            n: number of answers to each input.
            sampling_mode: ``top_p_sampling`` or ``top_k_sampling``; None leaves all settings to `generate_kwargs`.
            batch_size: number of inputs a batch.
            **generate_kwargs: options of ``model.generate``, which override those of the mode; with vLLM, the ones that
                ``vllm.SamplingParams`` has.

        Returns:
            `n` texts for each input.

        Raises:
            InputError: lists differ in length, a text is not a string, a number is not above zero, the mode is unknown,
                or the tokenizer has no padding token or maximum length.
        """
        if sampling_mode is not None and sampling_mode not in SAMPLING_MODES:
            raise unknown_name("sampling_mode", sampling_mode, SAMPLING_MODES)
        if min(n, batch_size) < 1:
            raise InputError(f"n and batch_size must be above zero, not {n} and {batch_size}.")
        prompts = texts_of(inputs, "inputs")
        if instructions is not None:
            before = texts_of(instructions, "instructions", len(prompts))
            prompts = [f"{instruction}\n{text}" for instruction, text in zip(before, prompts, strict=True)]
        sampling = {**(SAMPLING_MODES[sampling_mode] if sampling_mode else {}), **generate_kwargs}
        if type(model).__module__.partition(".")[0] == "vllm":
            return generate_by_vllm(model, prompts, n, sampling)
        texts: list[list[str]] = []
        with progress_bar("Generating", self.blender_config.use_tqdm) as progress:
            for start in range(0, len(prompts), batch_size):
                batch = prompts[start : start + batch_size]
                texts += generate_by_transformers(model, model_tokenizer, batch, n, sampling)
                if progress is not None:
                    progress(len(texts), len(prompts))
        return texts

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
        """Sample answers by `n_generate` and select by `get_best_of_n`."""
        self._loaded()  # fail before the long work
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
            inputs: inputs that the candidates answer.
            candidates: texts for each input, best first; they are not changed.
            instructions: instruction of each input; the fuser reads both.
            batch_size: number of inputs a batch.
            **generate_kwargs: options of ``model.generate``, four beams by default; and ``candidate_max_length``, the
                maximum number of tokens of a candidate and, without ``max_new_tokens``, of the fused text.

        Returns:
            A text for each input.

        Raises:
            InputError: no fuser is loaded, lists are empty or differ in length, a text is not a string, an option is
                unknown, or two candidates do not fit into the fuser's context.
            WorkError: the device is out of memory.
        """
        fuser = self._loaded_fuser()
        before, read, lists = read_lists(inputs, candidates, instructions)
        if (length := generate_kwargs.get("candidate_max_length")) is not None:
            generate_kwargs.setdefault("max_new_tokens", length)
        with progress_bar("Fusing", self.blender_config.use_tqdm) as progress:
            fusions = fuser.fuse_many(
                before, lists, inputs=read, batch_size=batch_size, progress=progress, **generate_kwargs
            )
        for i, fusion in enumerate(fusions):
            if fusion.flaw == "too_small":
                raise InputError(f"inputs[{i}] and its candidates are not fused: {fusion.error}.")
        return [fusion.text for fusion in fusions]

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
        """Rank the candidates of each input and fuse the best ones.

        Args:
            inputs: inputs that the candidates answer.
            candidates: texts for each input.
            instructions: see `rank` and `fuse`.
            return_scores: return scores instead of ranks.
            batch_size: see `fuse`.
            top_k: number of candidates to fuse; None takes all.
            **generate_kwargs: see `fuse`.

        Returns:
            The fused texts, and the result of `rank`.

        Raises:
            InputError: as for `rank` and `fuse`, or `top_k` is not above zero.
        """
        if top_k is not None and top_k < 1:
            raise InputError(f"top_k must be above zero, not {top_k}.")
        self._loaded_fuser()  # fail before the long work
        found = self.rank(inputs, candidates, instructions, return_scores=return_scores)
        ranks: Any = [-np.asarray(row) for row in found] if return_scores else found
        best = get_topk_candidates_from_ranks(ranks, candidates, top_k)
        return self.fuse(inputs, best, instructions, batch_size, **generate_kwargs), found

    def _loaded(self) -> PairRanker | PointwiseRanker:
        if self.ranker is None:
            raise InputError("No ranker is loaded: call blender.loadranker('llm-blender/PairRM') first.")
        return self.ranker

    def _loaded_fuser(self) -> GenFuser:
        if self.fuser is None:
            raise InputError("No fuser is loaded: call blender.loadfuser('llm-blender/gen_fuser_3b') first.")
        return self.fuser

    def _reader(
        self, title: str, batch_size: int, truncation: str, lengths: tuple[int | None, int | None] = (None, None)
    ) -> Reader:
        shown = title if self.blender_config.use_tqdm else ""
        return make_reader(self._loaded(), truncation=truncation, batch_size=batch_size, lengths=lengths, title=shown)


def _table(rows: Sequence[NDArray[Any]]) -> Any:
    """Stack rows of one length into an array; else return a list."""
    return np.stack(rows) if len({len(row) for row in rows}) == 1 else list(rows)

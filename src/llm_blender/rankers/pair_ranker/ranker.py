"""PairRanker: compare two candidates of an instruction with a small cross-encoder."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from llm_blender._inputs import check_inputs
from llm_blender.errors import InputError, MissingExtraError, unknown_name
from llm_blender.rankers.batching import MAX_TOKENS
from llm_blender.rankers.checkpoints import (
    BUNDLED,
    Pretrained,
    copy_checkpoint,
    find_checkpoint,
    has_onnx,
    onnx_file,
    position_limit,
)
from llm_blender.rankers.pair_ranker.backends import (
    Backend,
    LoadModel,
    OnnxBackend,
    OpenVinoModel,
    PairComparer,
    TorchBackend,
    load_session,
    one_at_a_time,
    torch_loading,
)
from llm_blender.rankers.pair_ranker.config import PairRankerConfig
from llm_blender.rankers.pair_ranker.input_format import FittedTexts, InputFormat
from llm_blender.rankers.pair_ranker.late import (
    LateBackend,
    LateComparer,
    LateOnnxBackend,
    LateTorchBackend,
    kept_tokens,
)
from llm_blender.ranking import EvidenceWeights, PairwiseRanker, RankOptions, comparison_count
from llm_blender.ranking.engine import Meter
from llm_blender.types import Example, Instruction, OnProgress, Ranking, instruction_text

if TYPE_CHECKING:
    from llm_blender.rankers._torch import Loading
    from llm_blender.training.card import Run

Truncation = Literal["auto", "right", "left", "middle"]

_PRECISIONS = {"onnx": ("int8", "fp32"), "openvino": ("fp32", "bf16"), "torch": ()}
"""Precisions of each backend, its default first."""
_TAIL_SHARES = {"right": 0.0, "left": 1.0, "middle": 0.5}


class PairRanker(PairwiseRanker, Pretrained):
    """A pairwise ranker: a small cross-encoder (arXiv 2306.02561, section 3).

    Args:
        backend: runs the model.
        input_format: builds the model's sequences from texts.
        folder: the checkpoint of both.
        max_tokens: of a batch, padding included; more suits an accelerator.
        truncation: part that a too long instruction loses: its end (``right``), its beginning (``left``), its
            ``middle``, or (``auto``) the part it lost in training, but never a conversation's last turn.
        evidence: whether what else the texts show counts, by the checkpoint's weights; otherwise the model's logits
            alone do.

    Examples:
        >>> ranker = PairRanker.from_pretrained()
        >>> ranker.rank("Why is the sky blue?", ["Blue light scatters most.", "Because."]).best
        0
    """

    def __init__(
        self,
        backend: Backend | LateBackend,
        input_format: InputFormat,
        folder: Path,
        *,
        max_tokens: int = MAX_TOKENS,
        truncation: Truncation = "auto",
        evidence: bool = True,
    ) -> None:
        if truncation != "auto" and truncation not in _TAIL_SHARES:
            raise unknown_name("truncation", truncation, ["auto", *_TAIL_SHARES])
        self.backend, self.input_format, self.folder = backend, input_format, folder
        self.config: PairRankerConfig = input_format.config
        self.max_tokens, self.truncation = max_tokens, truncation
        self.position_bias = not self.config.alone_layers  # comparing late is antisymmetric
        self.temperature = self.config.temperature
        self.evidence_weights = self.config.evidence_weights if evidence else EvidenceWeights()
        self._options: dict[str, Any] = {"truncation": truncation, "evidence": evidence}

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str] = BUNDLED,
        *,
        backend: Literal["onnx", "openvino", "torch"] | None = None,
        precision: Literal["int8", "fp32", "bf16"] | None = None,
        device: Any = None,
        dtype: Any = None,
        threads: int | None = None,
        revision: str | None = None,
        max_tokens: int | None = None,
        truncation: Truncation = "auto",
        backbone: str | Mapping[str, Any] | None = None,
        evidence: bool = True,
    ) -> Self:
        """Load a checkpoint, this package's or one in the layout of llm-blender/PairRM, pair-ranker or PairRM-hf.

        Args:
            name: ``bundled``, a folder, or a Hub repository.
            backend: ``onnx`` (the core), ``openvino`` (an extra) or ``torch`` (an extra; accelerators). None takes
                ``torch`` if `device` or `dtype` is given or the checkpoint holds no ONNX model, else ``onnx``.
            precision: of ``onnx``: ``int8`` (None) or ``fp32``. Of ``openvino``, which reads the float32 models that
                `blend export` writes: ``fp32`` (None), or ``bf16``, which changes logits by some 0.03 where the
                processor has bfloat16.
            device: of the ``torch`` backend: ``cpu``, ``cuda``, ``mps``, …, or several that share the work
                (``cuda:0,cuda:1``, or a list); None picks one.
            dtype: of the ``torch`` backend: ``float32`` (None), ``bfloat16``, ``float16``. In half precision, a logit
                depends on the batch by some 0.01.
            threads: of ``onnx`` and ``openvino``; None takes ``OMP_NUM_THREADS``, or all processors of this process.
            revision: branch, tag or commit on the Hub.
            max_tokens: of a batch, padding included; None takes 2,048 on a CPU and 32,768 on another device. A ranker
                that compares late computes one text at a time in ONNX, without batches.
            truncation: part that a too long instruction loses: ``auto``, ``right``, ``left`` or ``middle``.
            backbone: the encoder's configuration, or the folder or Hub name that holds it, for a published
                checkpoint whose encoder is neither named nor a DeBERTa-v3.
            evidence: whether what else the texts show counts; otherwise the model's logits alone do.

        Raises:
            NotFoundError: there is no such checkpoint; the message lists the places searched.
            CheckpointError: it is not a PairRanker, or lacks the files of the backend.
            MissingExtraError: ``torch`` or ``openvino`` is not installed.
            InputError: an argument is unknown or not one of the backend, or there is no such device.
        """
        given = {"backend": backend, "precision": precision, "device": device, "dtype": dtype, "threads": threads}
        given |= {"max_tokens": max_tokens, "truncation": truncation, "evidence": evidence}
        loading = torch_loading(backend, device, dtype, max_tokens)  # before any download
        folder = find_checkpoint(name, revision)
        config = PairRankerConfig.load(folder, backbone)
        if backend is None:
            backend = "torch" if loading is not None or not has_onnx(folder) else "onnx"
        if backend not in _PRECISIONS:
            raise unknown_name("backend", backend, _PRECISIONS)
        if precision not in (None, *_PRECISIONS[backend]):
            known = " or ".join(_PRECISIONS[backend]) or "none, but a dtype"
            raise InputError(f"The {backend} backend has no precision {precision!r}: {known}.")
        runner: Backend | LateBackend
        if backend == "torch":
            make = LateTorchBackend if config.alone_layers else TorchBackend
            loading = cast("Loading", loading or torch_loading(backend, device, dtype, max_tokens))
            runner = make(folder, config, device=loading.devices, dtype=loading.dtype)
            max_tokens = loading.max_tokens
        else:
            if max_tokens is not None and config.alone_layers:
                raise one_at_a_time(backend)
            runner = _load_onnx(folder, config, backend, precision or _PRECISIONS[backend][0], threads)
        ranker = cls(
            runner,
            InputFormat.load(folder, config),
            folder,
            max_tokens=max_tokens or MAX_TOKENS,
            truncation=truncation,
            evidence=evidence,
        )
        ranker._options = given
        return ranker

    def with_lengths(self, source: int | None = None, candidate: int | None = None) -> Self:
        """Return the same model with other lengths, in tokens; see `PairRankerConfig.with_lengths`.

        Raises:
            InputError: the lengths leave no room for text, or the model has no positions for so many tokens.
        """
        config, limit = self.config.with_lengths(source, candidate), position_limit(self.config.backbone)
        if limit is not None and config.max_length > max(limit, self.config.max_length):
            texts = "a candidate" if config.candidates_per_sequence == 1 else "two candidates"
            raise InputError(
                f"This ranker reads {limit:,} tokens, and an instruction with {texts} would have "
                f"{config.max_length:,}: lower the lengths."
            )
        other = copy(self)
        other.config, other.input_format = config, self.input_format.with_config(config)
        return other

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Copy the checkpoint to a folder that `from_pretrained` reads."""
        copy_checkpoint(self.folder, Path(folder))

    def fit(
        self,
        pairs: Iterable[Mapping[str, Any] | Example],
        dev: Iterable[Mapping[str, Any] | Example] | None = None,
        *,
        output: str | os.PathLike[str] | None = None,
        licence: str = "",
        progress: OnProgress | None = None,
        note: Callable[[str], None] | None = None,
        **settings: Any,
    ) -> Run:
        """Train this ranker on with pairs of your own, and use the result; needs the extra ``train``.

        The same as ``blend train ranker FILE --init``: with the same seed, the weights are the same. 200 pairs take a
        few minutes on two cores. The checkpoint with the least loss on the development pairs is kept, or, if none is
        better there than this ranker was, its own weights.

        Args:
            pairs: rows, in the forms that files of rows have: ``{prompt, chosen, rejected}``; ``{instruction,
                candidates, pairs}``; or ``{instruction, candidates: [{text, scores}]}``, whose pairs the scores imply.
            dev: rows of other instructions, to measure on; None holds out a fifth of the instructions of `pairs`.
            output: folder of the checkpoint, its card and its trainer, which resumes an interrupted run; None for a
                temporary one, until `save_pretrained`.
            licence: of the pairs, for the card.
            progress: called with steps done and steps known of.
            note: called with a line per evaluation.
            **settings: fields of `llm_blender.training.recipes.Recipe`, such as ``epochs``, ``learning_rate``,
                ``seed``, ``hold_out``, in place of those of `llm_blender.training.recipes.TRAINING_ON`.

        Returns:
            The run: `quality` (on the development pairs, and before), `remarks` (what is doubtful, and what to do),
            `sources`, `log`.

        Raises:
            MissingExtraError: ``train`` is not installed.
            InputError: a row cannot be used, there are no pairs, or a setting is unknown or wrong.

        Examples:
            >>> ranker = PairRanker.from_pretrained()
            >>> pair = {"prompt": "Why is the sky blue?", "chosen": "Air scatters blue light.", "rejected": "Because."}
            >>> run = ranker.fit([pair] * 200)  # doctest: +SKIP
            >>> run.quality.dev["agreement"], run.quality.before["agreement"]  # doctest: +SKIP
            >>> ranker.save_pretrained("my-ranker")  # doctest: +SKIP
        """
        try:
            from llm_blender.training.fitting import fit_ranker
        except ModuleNotFoundError as error:
            raise MissingExtraError("Training", "train") from error
        folder = Path(tempfile.mkdtemp(prefix="llm-blender-") if output is None else output)
        try:
            run = fit_ranker(
                self.folder, pairs, dev, folder, licence=licence, settings=settings, progress=progress, note=note
            )
        except BaseException:
            if output is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        fitted = type(self).from_pretrained(folder, **self._options)
        if output is None:
            weakref.finalize(fitted.backend, shutil.rmtree, folder, ignore_errors=True)
        vars(self).update(vars(fitted))
        return run

    def pair_logits(
        self,
        instructions: Sequence[Instruction],
        candidates: Sequence[Sequence[str]],
        pairs: Sequence[tuple[int, int, int]],
        *,
        legacy_batch: int = 0,
        progress: OnProgress | None = None,
    ) -> NDArray[np.float32]:
        """Return the model's own logits of ordered pairs, not rounded, not averaged over both orders, no consensus.

        Args:
            instructions: prompts or conversations.
            candidates: texts of each.
            pairs: (instruction, left, right) by index; pairs with the same sequence are computed once.
            legacy_batch: above zero, truncate candidates as llm-blender 0.0.2 did in batches of so many
                instructions: their budget depends on the longest instruction of their batch.
            progress: called with (done, total) in comparisons, by the share of the work, reading included.

        Returns:
            ``[len(pairs)]``, a logit for each; above zero, the left candidate is better.

        Raises:
            InputError: as for `rank_many`.
        """
        check_inputs(instructions, candidates)
        compare = self._comparer(instructions, candidates, legacy_batch)
        meter = Meter(progress, len(pairs))
        meter.start(len(pairs))
        logits = compare(list(pairs), meter.advance)
        meter.finish()
        return np.asarray(logits, np.float32)

    def _rank_many(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], options: RankOptions
    ) -> list[Ranking]:
        if not self.config.alone_layers:
            return super()._rank_many(instructions, candidates, options)
        # Of more prompts at a time, the texts would have to be read again in each round of a strategy.
        backend = cast(LateBackend, self.backend)
        most = backend.devices * kept_tokens(backend, self.max_tokens) // self.config.max_length
        groups = list(_groups([len(texts) for texts in candidates], most))
        progress = options["progress"]

        def count(n: int) -> int:
            return comparison_count(
                options["strategy"], n, budget=options["budget"], k=options["k"], position_bias=self.position_bias
            )

        counts = [sum(count(len(texts)) for texts in candidates[group]) for group in groups]
        rankings: list[Ranking] = []
        done = 0
        for number, group in enumerate(groups):
            later = sum(counts[number + 1 :])

            def report(now: int, total: int, before: int = done, later: int = later) -> None:
                nonlocal done
                done = before + now
                if progress is not None:
                    progress(done, before + total + later)

            rankings += super()._rank_many(instructions[group], candidates[group], {**options, "progress": report})
        return rankings

    def _comparer(
        self, instructions: Sequence[Instruction], candidates: Sequence[Sequence[str]], legacy_batch: int = 0
    ) -> PairComparer | LateComparer:
        tail_shares = [self._tail_share(instruction) for instruction in instructions]
        prompts = [instruction_text(instruction) for instruction in instructions]
        texts = FittedTexts(self.input_format, prompts, candidates, tail_shares, legacy_batch)
        if self.config.alone_layers:
            reading = self.config.alone_layers
            layers = reading, int(self.config.backbone["num_hidden_layers"]) - reading
            return LateComparer(cast(LateBackend, self.backend), texts, self.max_tokens, layers=layers)
        return PairComparer(cast(Backend, self.backend), texts, self.input_format.pad_id, self.max_tokens)

    def _finish(self, rankings: list[Ranking], compare: Any) -> list[Ranking]:
        truncated: list[float] = compare.texts.truncated
        return [replace(ranking, truncated=share) for ranking, share in zip(rankings, truncated, strict=True)]

    def _tail_share(self, instruction: Instruction) -> float:
        """Return the share of a too long instruction that is kept from its end."""
        if self.truncation != "auto":
            return _TAIL_SHARES[self.truncation]
        own = self.config.source_tail
        return 1.0 if own == 0 and not isinstance(instruction, str) else own


def _load_onnx(
    folder: Path, config: PairRankerConfig, backend: str, precision: str, threads: int | None
) -> Backend | LateBackend:
    """Load the ONNX models of a checkpoint with ONNX Runtime, or with OpenVINO, which reads those in float32."""
    load: LoadModel = load_session
    if backend == "openvino":
        load, precision = partial(OpenVinoModel, precision="bf16" if precision == "bf16" else "f32"), "fp32"
    if config.alone_layers:
        reader, comparer = (onnx_file(folder, precision, part) for part in ("reader", "comparer"))
        return LateOnnxBackend(reader, comparer, threads=threads, load=load)
    return OnnxBackend(onnx_file(folder, precision), threads=threads, load=load)


def _groups(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Split prompts with so many candidates into groups of at most `most` candidates; a larger one stays alone."""
    start = total = 0
    for number, size in enumerate(sizes):
        if number > start and total + size > most:
            yield slice(start, number)
            start, total = number, 0
        total += size
    yield slice(start, len(sizes))

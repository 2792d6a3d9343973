"""Optimised models of ONNX Runtime in the user's cache, so that a session does not optimise its graph again.

An entry is in ONNX Runtime's own format and is mapped into memory, which processes share. Its name is a hash of what it
depends on (the model file, the version of ONNX Runtime, the processor), and its size. Where the cache cannot be read or
written, or an entry is damaged, the model is loaded as if there were no cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_blender._hub import cache_dir

_LARGEST = 128 * 2**20
"""Bytes of the largest model file that is cached: optimising is a small part of loading a larger one."""
_MOST = 512 * 2**20
"""Bytes of all entries together."""
_ABANDONED_SECONDS = 3600.0
"""Age of an unfinished entry that no process writes any more."""


def open_session(path: Path, make_options: Callable[[], Any], providers: list[str] | None = None) -> Any:
    """Make an `onnxruntime.InferenceSession` of a model, from the cache if it is there; else add it to the cache.

    Args:
        path: the model in ONNX.
        make_options: returns new `onnxruntime.SessionOptions`.
        providers: execution providers; a model is cached only for None, the CPU.
    """
    import onnxruntime

    def plain(options: Any) -> Any:
        return onnxruntime.InferenceSession(str(path), options, providers=providers or ["CPUExecutionProvider"])

    try:
        found = path.stat()
        if providers is not None or found.st_size > _LARGEST:
            return plain(make_options())
        folder = cache_dir() / "onnx"
        # The time of the last change of the inode differs after a replacement that keeps the time of modification.
        file = str(path.resolve()), found.st_size, found.st_mtime_ns, found.st_ctime_ns
        key = repr((file, onnxruntime.__version__, platform.machine(), _processor()))
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        for entry in folder.glob(f"{name}.*.ort"):
            with contextlib.suppress(Exception):  # ONNX Runtime has no specific error for a damaged model
                if entry.name == f"{name}.{entry.stat().st_size}.ort":
                    session = _mapped(entry, make_options())
                    with contextlib.suppress(OSError):
                        os.utime(entry)
                    return session
            entry.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{uuid.uuid4().hex}.tmp"
        unfinished.touch()
    except OSError:
        return plain(make_options())
    try:
        options = make_options()
        options.optimized_model_filepath = str(unfinished)
        options.add_session_config_entry("session.save_model_format", "ORT")
        session = plain(options)
        unfinished.replace(folder / f"{name}.{unfinished.stat().st_size}.ort")
        _remove_old(folder)
    except Exception:  # the disk is full, or the model cannot be loaded
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        session = plain(make_options())
    return session


def _mapped(entry: Path, options: Any) -> Any:
    """Make a session of an optimised model, whose weights stay in the mapped file."""
    import onnxruntime

    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.use_memory_mapped_ort_model", "1")
    options.add_session_config_entry("session.use_ort_model_bytes_for_initializers", "1")
    return onnxruntime.InferenceSession(str(entry), options, providers=["CPUExecutionProvider"])


def _processor() -> str:
    """Return what distinguishes processors for the optimisation: on Linux their features, elsewhere their name."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


def _remove_old(folder: Path) -> None:
    """Remove the entries that were not used for the longest time, and what interrupted processes left."""
    for unfinished in folder.glob("*.tmp"):
        if unfinished.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
            unfinished.unlink(missing_ok=True)
    total = 0
    used = sorted(
        ((entry.stat().st_mtime, entry.stat().st_size, entry) for entry in folder.glob("*.ort")), reverse=True
    )
    for _, size, entry in used:
        total += size
        if total > _MOST:
            entry.unlink(missing_ok=True)

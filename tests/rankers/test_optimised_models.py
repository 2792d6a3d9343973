from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llm_blender import PairRanker
from llm_blender.errors import CheckpointError
from llm_blender.rankers import optimised_models
from llm_blender.rankers.checkpoints import find_checkpoint
from llm_blender.rankers.pair_ranker.backends import load_session
from llm_blender.rankers.pair_ranker.late import COMPARER_INPUTS

PROMPT, ANSWERS = "Why is the sky blue?", ["Air scatters blue light most.", "I do not know.", "Because of the sea."]
PAIRS = [(0, 0, 1), (0, 1, 2), (0, 2, 0)]
COMPARER = set(COMPARER_INPUTS)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the entries in an empty cache."""
    monkeypatch.setenv("LLM_BLENDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "onnx"


@pytest.fixture
def model(tmp_path):
    """A copy of the bundled ranker's smaller model."""
    found = next(find_checkpoint("bundled").glob("onnx/comparer_int8.onnx"))
    copied = tmp_path / found.name
    copied.write_bytes(found.read_bytes())
    return copied


@pytest.fixture
def mapped(monkeypatch):
    """The entries that sessions were made of."""
    entries = []
    make = optimised_models._mapped
    monkeypatch.setattr(
        optimised_models, "_mapped", lambda entry, options: entries.append(entry) or make(entry, options)
    )
    return entries


def logits():
    return PairRanker.from_pretrained(threads=1).pair_logits([PROMPT], [ANSWERS], PAIRS)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_logits_are_the_same_with_and_without_the_cache(folder, mapped, monkeypatch):
    first = logits()
    assert not mapped
    assert len(names(folder)) == 2
    again = logits()
    assert len(mapped) == 2
    monkeypatch.setattr(optimised_models, "_LARGEST", 0)
    plain = logits()
    assert len(mapped) == 2
    np.testing.assert_array_equal(first, plain)
    np.testing.assert_array_equal(again, plain)
    assert np.ptp(plain) > 0.01


@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: bytes(len(data))]
)
def test_a_damaged_entry_is_replaced(folder, model, mapped, damage):
    load_session(model, COMPARER)
    (entry,) = folder.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    load_session(model, COMPARER)
    (entry,) = folder.iterdir()
    assert entry.stat().st_size > 0.9 * len(whole)  # ONNX Runtime pads by some bytes more or less
    mapped.clear()
    load_session(model, COMPARER)
    assert mapped == [entry]


def test_another_file_under_the_same_name_has_its_own_entry(folder, model, mapped):
    load_session(model, COMPARER)
    before = model.stat()
    changed = model.with_suffix(".new")
    changed.write_bytes(model.read_bytes())
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed.replace(model)
    load_session(model, COMPARER)
    assert not mapped
    assert len(names(folder)) == 2


def test_a_cache_that_cannot_be_written_is_no_error(folder, model, mapped):
    folder.parent.write_text("a file where the folder would be")
    for _ in range(2):
        load_session(model, COMPARER)
    assert not mapped


def test_a_full_disk_is_no_error(folder, model, monkeypatch):
    def replace(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", replace)
    load_session(model, COMPARER)
    assert not names(folder)


def test_what_is_no_model_leaves_nothing(folder, model):
    model.write_bytes(b"no model")
    with pytest.raises(CheckpointError, match="cannot be loaded as an ONNX model"):
        load_session(model, COMPARER)
    assert not names(folder)


def test_entries_not_used_for_the_longest_time_are_removed(folder, model, monkeypatch):
    load_session(model, COMPARER)
    (entry,) = folder.iterdir()
    for number in range(3):
        old = folder / f"{number}.{entry.stat().st_size}.ort"
        old.write_bytes(entry.read_bytes())
        os.utime(old, (number, number))
    for name, time in (("killed.tmp", 0), ("running.tmp", None)):
        (folder / name).touch()
        os.utime(folder / name, None if time is None else (time, time))
    monkeypatch.setattr(optimised_models, "_MOST", int(3.5 * entry.stat().st_size))
    other = model.with_name("other.onnx")
    model.replace(other)
    load_session(other, COMPARER)
    kept = names(folder)
    assert len(kept) == 4
    assert {entry.name, f"2.{entry.stat().st_size}.ort", "running.tmp"} < set(kept)


def test_processes_at_the_same_time(folder, model):
    load = f"load_session(Path({str(model)!r}), {COMPARER!r})"
    script = f"from pathlib import Path; from llm_blender.rankers.pair_ranker.backends import load_session; {load}"
    started = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    entries = list(folder.iterdir())
    assert {entry.suffix for entry in entries} == {".ort"}
    assert len({entry.name.partition(".")[0] for entry in entries}) == 1

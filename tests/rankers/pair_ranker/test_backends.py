from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from llm_blender.errors import MissingExtraError
from llm_blender.rankers.checkpoints import BUNDLED
from llm_blender.rankers.pair_ranker import PairRanker
from llm_blender.rankers.pair_ranker.backends import OnnxBackend, available_processors
from llm_blender.rankers.pair_ranker.input_format import PairBatch

INSTRUCTION = "Why is the sky blue, and the sea green?"
# Lengths from empty to too long.
TEXTS = [
    "",
    "Because.",
    "Blue light scatters in the air.",
    "It is not! " * 3,
    "the sun is bright and " * 9,
    "sea " * 300,
]
PAIRS = [(0, 2), (2, 0), (5, 1), (3, 4), (1, 3), (4, 5), (0, 5), (3, 1)]


def sequences(ranker: PairRanker) -> list:
    form = ranker.input_format
    source = form.fit_source(form.tokenize([INSTRUCTION])[0])
    texts = [form.fit_candidate(ids, len(source)) for ids in form.tokenize(TEXTS)]
    return [form.join(source, texts[left], texts[right]) for left, right in PAIRS]


def logits(ranker: PairRanker, rows: list) -> np.ndarray:
    return ranker.backend(PairBatch.pad(rows, ranker.input_format.pad_id))[:, 0]


@pytest.mark.parametrize("pooling", ["mean", "marker"])
def test_onnx_gives_the_logits_of_torch(tiny_ranker, pooling):
    folder = tiny_ranker(pooling)
    onnx = PairRanker.from_pretrained(folder, precision="fp32")
    torch = PairRanker.from_pretrained(folder, backend="torch", device="cpu")
    found, expected = (logits(ranker, sequences(ranker)) for ranker in (onnx, torch))
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_poolings_differ(tiny_ranker):
    mean, marker = (PairRanker.from_pretrained(tiny_ranker(name), precision="fp32") for name in ("mean", "marker"))
    assert (mean.config.pooling, marker.config.pooling) == ("mean", "marker")
    assert np.abs(logits(mean, sequences(mean)) - logits(marker, sequences(marker))).max() > 0.1


@pytest.fixture(scope="module")
def ranker(tiny_ranker):
    return PairRanker.from_pretrained(tiny_ranker())


@pytest.fixture(scope="module")
def alone(ranker):
    return np.concatenate([logits(ranker, [row]) for row in sequences(ranker)])


class TestInt8:
    def test_neighbours_and_padding_do_not_matter(self, ranker, alone):
        rows = sequences(ranker)
        assert np.ptp(alone) > 0.5
        np.testing.assert_allclose(logits(ranker, rows), alone, atol=1e-5)
        for parts in (2, 3):
            order = np.random.default_rng(parts).permutation(len(rows))
            for part in np.array_split(order, parts):
                np.testing.assert_allclose(logits(ranker, [rows[i] for i in part]), alone[part], atol=1e-5)

    def test_extreme_neighbours_do_not_matter(self, ranker, alone):
        # A scale over the whole batch would follow the largest activation in it.
        long = max(sequences(ranker), key=len)
        odd = type(long)([long.ids[0]] + [7] * (len(long) - 1), long.segments)
        for row, expected in zip(sequences(ranker)[:2], alone, strict=False):
            np.testing.assert_allclose(logits(ranker, [odd, row, odd])[1], expected, atol=1e-5)

    @pytest.mark.parametrize("name", [BUNDLED, "tiny"])
    def test_ranks_do_not_depend_on_the_other_prompts(self, name, tiny_ranker):
        ranker = PairRanker.from_pretrained(BUNDLED if name == BUNDLED else tiny_ranker())
        instructions = [INSTRUCTION, "Give three tips.", "What is the best answer, and why is it not the other one?"]
        candidates = [TEXTS[:4], TEXTS[4:], [TEXTS[2], TEXTS[1], TEXTS[3]]]
        together = ranker.rank_many(instructions, candidates)
        for instruction, texts, ranking in zip(instructions, candidates, together, strict=True):
            alone = ranker.rank(instruction, texts)
            assert alone.ranks == ranking.ranks
            np.testing.assert_allclose(alone.logits, ranking.logits, atol=1.1e-4)  # both are rounded to 4 decimals


def test_a_scale_for_the_whole_batch_would_be_noticed(tiny_ranker, tmp_path):
    """Check that the test above can fail: ONNX Runtime's dynamic quantisation fails it."""
    pytest.importorskip("onnxruntime", minversion="1.32", reason="an old quantizer does not read what torch exports")
    from onnxruntime.quantization import quantize_dynamic

    folder = tiny_ranker()
    quantize_dynamic(folder / "onnx" / "model_fp32.onnx", tmp_path / "dynamic.onnx")
    form = PairRanker.from_pretrained(folder).input_format
    ranker = PairRanker(OnnxBackend(tmp_path / "dynamic.onnx"), form, folder)
    rows = sequences(ranker)
    alone = np.concatenate([logits(ranker, [row]) for row in rows])
    assert np.abs(logits(ranker, rows) - alone).max() > 1e-4


def test_int8_is_close_to_float32(tiny_ranker):
    int8, fp32 = (PairRanker.from_pretrained(tiny_ranker(), precision=precision) for precision in ("int8", "fp32"))
    expected = logits(fp32, sequences(fp32))
    found = logits(int8, sequences(int8))
    assert np.corrcoef(found, expected)[0, 1] > 0.99
    assert not np.array_equal(found, expected)


def test_the_bundled_int8_is_close_to_its_weights():
    int8, torch = PairRanker.from_pretrained(), PairRanker.from_pretrained(backend="torch", device="cpu")
    pairs = [(0, left, right) for left, right in PAIRS]
    found, expected = (ranker.pair_logits([INSTRUCTION], [TEXTS], pairs) for ranker in (int8, torch))
    assert np.ptp(expected) > 1
    assert np.abs(found - expected).max() < 0.15


def test_threads_are_the_callers_choice(tiny_ranker, monkeypatch):
    chosen = []
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, **rest: chosen.append(options.intra_op_num_threads) or real(path, options, **rest),
    )
    PairRanker.from_pretrained(tiny_ranker(), threads=1)
    assert chosen == [1]


@pytest.mark.parametrize("missing", ["torch", "safetensors.torch", "transformers"])
def test_without_torch_the_pip_line_is_said(monkeypatch, missing, tiny_ranker):
    folder = tiny_ranker()
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "llm_blender.rankers.pair_ranker.modeling", raising=False)
    with pytest.raises(MissingExtraError, match=r"needs an optional part: pip install 'llm-blender\[torch\]'"):
        PairRanker.from_pretrained(folder, backend="torch")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_may_collect_the_sessions_of_its_parent(tiny_ranker):
    script = """
import gc, os, sys
from llm_blender import PairRanker

gc.disable()
ranker = PairRanker.from_pretrained(sys.argv[1], threads=2)
ranker.compare("Why?", "a", "b")
ranker.itself = ranker  # garbage that only the collector finds
del ranker
child = os.fork()
if child == 0:
    gc.collect()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", script, str(tiny_ranker())]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize(("limit", "threads"), [("3", 3), ("0", None), ("", None), ("2,1", None)])
def test_omp_num_threads_is_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, limit: str, threads: int | None
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    whole = available_processors()
    monkeypatch.setenv("OMP_NUM_THREADS", limit)
    assert available_processors() == (threads or whole)

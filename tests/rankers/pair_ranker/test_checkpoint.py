from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llm_blender.errors import CheckpointError, InputError, NotFoundError
from llm_blender.rankers import load_ranker
from llm_blender.rankers.checkpoints import find_checkpoint
from llm_blender.rankers.pair_ranker import BUNDLED, PairRanker, PairRankerConfig

PROMPT, TEXTS = "Why is the sky blue?", ["Because.", "Blue light scatters.", "It is not."]


@pytest.fixture
def checkpoint(tiny_ranker, tmp_path):
    """Copy a checkpoint, for a test that breaks it."""
    return Path(shutil.copytree(tiny_ranker(), tmp_path / "ranker"))


def change(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class TestBundled:
    def test_its_size(self):
        folder = find_checkpoint(BUNDLED)
        assert sum(path.stat().st_size for path in (folder / "onnx").iterdir()) <= 25e6
        assert (folder / "model.safetensors").stat().st_size <= 46e6

    def test_its_probabilities_are_calibrated(self):
        assert 0.05 < PairRankerConfig.load(find_checkpoint(BUNDLED)).temperature != 1

    def test_its_card_names_data_and_licence(self):
        card = (find_checkpoint(BUNDLED) / "README.md").read_text()
        assert "\nlicense: " in card
        assert "## Licence of the weights" in card
        assert "CC BY-NC" in card
        assert "| source | licence |" in card


class TestCopies:
    def test_what_is_saved_gives_the_same_numbers(self, checkpoint, tmp_path):
        (checkpoint / "optimizer.pt").touch()
        ranker = PairRanker.from_pretrained(checkpoint)
        ranker.save_pretrained(tmp_path / "a" / "copy")
        copy = PairRanker.from_pretrained(tmp_path / "a" / "copy")
        assert copy.rank(PROMPT, TEXTS).scores == ranker.rank(PROMPT, TEXTS).scores
        assert not (tmp_path / "a" / "copy" / "optimizer.pt").exists()

    def test_onto_itself_changes_nothing(self, checkpoint):
        before = sorted((path, path.stat().st_mtime_ns) for path in checkpoint.rglob("*"))
        PairRanker.from_pretrained(checkpoint).save_pretrained(checkpoint)
        assert sorted((path, path.stat().st_mtime_ns) for path in checkpoint.rglob("*")) == before

    def test_not_onto_a_file(self, checkpoint, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match=r"Cannot write to .*file: File exists"):
            PairRanker.from_pretrained(checkpoint).save_pretrained(tmp_path / "file")

    def test_a_config_comes_back_as_it_was(self, tmp_path):
        config = PairRankerConfig({"model_type": "bert"}, 96, 32, pooling="marker", tasks=("a", "b"), temperature=0.7)
        config.save(tmp_path)
        assert PairRankerConfig.load(tmp_path) == config


class TestBroken:
    @pytest.mark.parametrize("backend", ["onnx", "torch"])
    @pytest.mark.parametrize(
        ("file", "message"),
        [
            ("config.json", "config.json is not JSON"),
            ("tokenizer.json", "tokenizer.json is not a tokenizer"),
            ("onnx/model_int8.onnx", "cannot be loaded as an ONNX model"),
            ("model.safetensors", "model.safetensors cannot be read"),
        ],
    )
    def test_damaged_files(self, checkpoint, file, message, backend):
        path = checkpoint / file
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        if {"onnx": "model.safetensors", "torch": "onnx/model_int8.onnx"}[backend] == file:
            assert PairRanker.from_pretrained(checkpoint, backend=backend).rank(
                PROMPT, TEXTS
            )  # it does not need the file
        else:
            with pytest.raises(CheckpointError, match=message):
                PairRanker.from_pretrained(checkpoint, backend=backend)

    @pytest.mark.parametrize(
        ("file", "options", "message"),
        [
            ("config.json", {}, "is no checkpoint: it holds no config.json"),
            ("tokenizer.json", {}, "holds no tokenizer.json"),
            ("onnx/model_int8.onnx", {}, "create it with `blend export"),
            ("onnx/model_fp32.onnx", {"precision": "fp32"}, "holds no onnx/model_fp32.onnx"),
            ("model.safetensors", {"backend": "torch"}, "holds no model.safetensors"),
        ],
    )
    def test_missing_files(self, checkpoint, file, options, message):
        (checkpoint / file).unlink()
        with pytest.raises(CheckpointError, match=message):
            PairRanker.from_pretrained(checkpoint, **options)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"format_version": 2}, r"format version 2, this package reads up to 1: pip install --upgrade"),
            ({"format_version": "1"}, "format version 1"),
            ({"ranker_type": "reward"}, "an unknown layout .ranker_type .reward."),
            ({"pooling": "max"}, "pooling: Input should be 'mean' or 'marker'"),
            ({"max_length": "long"}, "max_length: "),
            ({"markers": ["a", "b"]}, "markers"),
            ({"backbone": None}, "backbone: "),
            ({"source_max_length": 96}, "leaves no room for candidates"),
        ],
    )
    def test_config_of_another_kind(self, checkpoint, values, message):
        change(checkpoint, **values)
        with pytest.raises(CheckpointError, match=message):
            PairRanker.from_pretrained(checkpoint)

    def test_a_key_of_a_later_minor_version_is_ignored(self, checkpoint):
        change(checkpoint, something_new=1)
        assert PairRanker.from_pretrained(checkpoint).rank(PROMPT, TEXTS)

    @pytest.mark.parametrize("backbone", [{}, {"model_type": "no such encoder"}, {"model_type": "bert"}])
    def test_weights_of_another_backbone(self, checkpoint, backbone):
        change(checkpoint, backbone=backbone)
        with pytest.raises(CheckpointError, match=r"do not match its config\.json and tokenizer\.json"):
            PairRanker.from_pretrained(checkpoint, backend="torch")

    def test_an_onnx_model_of_something_else(self, checkpoint):
        import onnx
        from onnx import TensorProto, helper

        x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
        graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(checkpoint / "onnx" / "model_int8.onnx"))
        with pytest.raises(CheckpointError, match="is not this PairRanker: its inputs are x"):
            PairRanker.from_pretrained(checkpoint)


class TestNames:
    def test_by_every_door_the_same(self, checkpoint, monkeypatch):
        monkeypatch.chdir(checkpoint.parent)
        scores = PairRanker.from_pretrained(checkpoint).rank(PROMPT, TEXTS).scores
        assert load_ranker("ranker").rank(PROMPT, TEXTS).scores == scores
        assert load_ranker(str(checkpoint)).rank(PROMPT, TEXTS).scores == scores

    def test_unknown_backend(self, checkpoint):
        with pytest.raises(InputError, match=r"Unknown backend 'tpu'\. Known: onnx, openvino, torch"):
            PairRanker.from_pretrained(checkpoint, backend="tpu")

    @pytest.mark.parametrize(
        ("options", "known"),
        [
            ({"precision": "bf16"}, "onnx backend has no precision 'bf16': int8 or fp32"),
            ({"backend": "openvino", "precision": "int8"}, "openvino backend has no precision 'int8': fp32 or bf16"),
            ({"backend": "torch", "precision": "fp32"}, "torch backend has no precision 'fp32': none, but a dtype"),
        ],
    )
    def test_a_precision_of_another_backend(self, checkpoint, options, known):
        with pytest.raises(InputError, match=known):
            PairRanker.from_pretrained(checkpoint, **options)

    @pytest.mark.parametrize("name", ["nowhere", "/no/where", "./a/b", "~/no-such-folder"])
    def test_what_can_only_be_a_folder_is_not_sought_on_the_hub(self, name):
        with pytest.raises(NotFoundError, match=r"no folder /.*, and it is not a Hub name"):
            PairRanker.from_pretrained(name)

    def test_what_the_hub_would_not_take_for_a_name(self):
        with pytest.raises(NotFoundError, match="it is not a Hub name"):
            PairRanker.from_pretrained("a b/c")

    def test_offline_nothing_is_asked(self, tmp_path):
        seconds, message = seek(tmp_path, LLM_BLENDER_OFFLINE="1")
        assert message.startswith("NotFoundError: No ranker 'some/ranker': no folder /")
        assert message.endswith("not in the Hub's cache, and offline mode is on.")
        assert seconds < 3

    @pytest.mark.parametrize("listens", [False, True], ids=["refused", "never answered"])
    def test_behind_a_firewall(self, tmp_path, listens):
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            if listens:
                mute.listen()
            endpoint = f"http://127.0.0.1:{mute.getsockname()[1]}"
            seconds, message = seek(tmp_path, HF_ENDPOINT=endpoint)
        assert message.startswith("NotFoundError: No ranker 'some/ranker': no folder /")
        assert f"not in the Hub's cache, and not fetched from {endpoint}" in message
        assert seconds < 9  # three, plus the start on a busy machine; the own client of the Hub takes minutes


def seek(cache: Path, **environment: str) -> tuple[float, str]:
    """Return seconds and error, in a new process, since huggingface_hub reads its environment once."""
    code = (
        "import huggingface_hub, httpx\n"
        "from time import perf_counter\n"
        "from llm_blender.rankers.pair_ranker import PairRanker\n"
        "started = perf_counter()\n"
        "try:\n"
        "    PairRanker.from_pretrained('some/ranker')\n"
        "except Exception as error:\n"
        "    print(perf_counter() - started, f'{type(error).__name__}: {error}')\n"
    )
    clean = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment = {**clean, "HF_HOME": str(cache), "LLM_BLENDER_OFFLINE": "0", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    seconds, _, message = done.stdout.strip().partition(" ")
    assert message, done.stderr
    return float(seconds), message

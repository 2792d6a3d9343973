"""Device, precision and batches of the ranker: options of the commands, and keys of [ranker]."""

from __future__ import annotations

import json

import pytest

import llm_blender.ensemble  # before a test replaces what it imports
import llm_blender.rankers
from llm_blender.testing import FakeRanker

ROWS = [{"instruction": "Q", "candidates": [{"text": "a", "scores": {"s": 1}}, {"text": "bcd", "scores": {"s": 0}}]}]
OPTIONS = "--device", "cpu,cpu", "--dtype", "bfloat16", "--max-tokens", "500"
SETTINGS = {"device": "cpu,cpu", "dtype": "bfloat16", "max_tokens": 500}
TOML = '[ranker]\ndevice = ["cpu", "cpu"]\ndtype = "bfloat16"\nmax_tokens = 500\n'
COMMANDS = {
    "rank": ["rows.jsonl"],
    "compare": ["Q", "a", "b"],
    "data preferences": ["rows.jsonl"],
    "bench select": ["rows.jsonl", "--score", "s"],
    "bench pairs": ["rows.jsonl", "--score", "s"],
}


@pytest.fixture
def loaded(monkeypatch, rows):
    """Collect names and given options of the rankers that are loaded."""
    calls = []

    def load(name, *, evidence=True, **options):
        calls.append((name, {key: value for key, value in options.items() if value is not None}))
        return FakeRanker()

    monkeypatch.setattr(llm_blender.rankers, "load_ranker", load)
    return calls


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_pass_them_on(blend, loaded, command):
    result = blend(*command.split(), *COMMANDS[command], *OPTIONS)
    assert result.exit_code == 0, result.stderr
    assert loaded == [("bundled", SETTINGS)]


@pytest.mark.parametrize("command", ["rank", "compare", "data preferences"])
def test_the_configuration_has_them_too(blend, loaded, command, tmp_path):
    (tmp_path / "blend.toml").write_text(TOML)
    for options, wanted in (
        ([], SETTINGS),
        (["--device", "mps"], {**SETTINGS, "device": "mps"}),
        (["--backend", "onnx"], {"backend": "onnx"}),  # it has no device
        (["--precision", "int8"], {"precision": "int8"}),
        (["--ranker", "longest"], {}),
    ):
        assert blend(*command.split(), *COMMANDS[command], *options).exit_code == 0
        assert loaded.pop()[1] == wanted


def test_fuse_places_the_ranker_and_the_fuser(blend, loaded, tmp_path, monkeypatch):
    fusers = []
    monkeypatch.setattr("llm_blender.fusers.load_fuser", lambda name, **options: fusers.append(options["device"]))
    (tmp_path / "blend.toml").write_text(TOML)
    blend("fuse", "rows.jsonl", "--fuser", "longest", "--device", "mps")
    assert (loaded, fusers) == ([("bundled", {**SETTINGS, "device": "mps"})], ["mps"])


@pytest.mark.parametrize(
    "arguments", [["compare", "Q", "a", "b"], ["ask", "Q"], ["run", "rows.jsonl", "-o", "o.jsonl"]]
)
@pytest.mark.parametrize("configured", [False, True])
def test_a_device_that_is_not_there_is_an_error_before_the_work(
    refuse, rows, tmp_path, monkeypatch, arguments, configured
):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    llm = '[[llm]]\nname = "a"\nmodel = "a"\nbase_url = "http://localhost:9/v1"\n'
    rows.write_text('{"instruction": "Q"}\n')
    (tmp_path / "blend.toml").write_text(llm + ('[ranker]\ndevice = "cuda:4"\n' if configured else ""))
    options = [] if configured else ["--device", "cuda:4"]
    refuse(*arguments, *options, message="error: There is no device cuda:4 on this machine: it has the CPU only.\n")


def test_the_service_takes_them(blend, rows, tmp_path, monkeypatch):
    served = []
    monkeypatch.setattr("llm_blender.server.serve", lambda ensemble, *args, **options: served.append(ensemble))
    (tmp_path / "blend.toml").write_text('[[llm]]\nname = "a"\nmodel = "a"\nbase_url = "http://localhost:9/v1"\n')
    result = blend("serve", *OPTIONS)
    assert result.exit_code == 0, result.stderr
    replicas = served[0].ranker.backend._replicas
    assert (replicas.parallel, served[0].ranker.max_tokens) == (2, 500)
    assert str(next(replicas._models[0].parameters()).dtype) == "torch.bfloat16"


def test_a_bench_says_for_which_rankers_they_are_not(blend, loaded, refuse):
    bench = "bench", "select", "rows.jsonl", "--score", "s", "--json"
    result = blend(*bench, "--ranker", "bundled", "--ranker", "longest", *OPTIONS)
    assert "--device and --dtype and --max-tokens: not for longest\n" in result.stderr
    assert loaded == [("bundled", SETTINGS), ("longest", {})]
    assert json.loads(result.stdout)
    refuse(
        *bench, "--ranker", "longest", "--device", "cpu", message="longest: no model runs here, so leave out --device."
    )


def test_stored_rankings_need_no_device(refuse, rows):
    refuse(
        *("data", "preferences", "rows.jsonl", "--use-ranking", "--device", "cpu"),
        message="--use-ranking compares nothing: leave out --device.",
    )

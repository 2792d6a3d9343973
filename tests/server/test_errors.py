"""Errors as clients read them, without what only the operator may know, and as the log has them."""

from __future__ import annotations

import json
import logging
import sqlite3

import pytest

from llm_blender.errors import (
    CheckpointError,
    ConfigError,
    Failure,
    InputError,
    LLMError,
    MissingExtraError,
    NoAnswerError,
    StoreError,
    WorkError,
)
from llm_blender.server.errors import error_body, error_response, public_failure, public_text
from llm_blender.testing import FakeLLM


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no connection to http://127.0.0.1:8190/v1; is it up?", "no connection to [address] is it up?"),
        ("see (http://ollama:11434/v1)", "see ([address])"),
        ("http://user:word@gpu.corp/x", "[address]"),
        ("http://[::1]:80/v1 and http://[fd00::1]/v1", "[address] and [address]"),
        ("connect to 10.1.2.3:8000 failed, localhost:80 too", "connect to [address] failed, [address] too"),
        ("upstream 192.168.0.7 and 172.20.1.1:9", "upstream [address] and [address]"),
        ("dial tcp [fd00::12]:8080: refused", "dial tcp [address]: refused"),
        ("host vllm-0.vllm.default.svc.cluster.local:8000 ssl", "host [address] ssl"),
        ("HTTPConnectionPool(host='llm-gateway', port=4000)", "HTTPConnectionPool(host='[address]', port=4000)"),
        ("node gpu-7.corp.example.com:8000 died, model llama3.2:3b", "node [address] died, model llama3.2:3b"),
        ("User: arn:aws:sts::12:assumed-role/x is not", "User: [address] is not"),
        ("API key provided: sk-proj-abcdefghijkl1234. See", "API key provided: ***. See"),
        ("token eyJhbGci.eyJzdWIi.abc-123 is old", "token *** is old"),
        ("no file /home/ann/models/x.gguf.", "no file [path]."),
        ("no file '/srv/m.bin' or C:\\models\\x.bin", "no file '[path]' or [path]"),
        ("https://platform.openai.com/docs/errors says so", "https://platform.openai.com/docs/errors says so"),
        (
            "POST /v1/chat/completions and/or 1/2, 3.10.2.1 text/html messages[10] [10:30] sk-learn qwen2.5:72b",
            "POST /v1/chat/completions and/or 1/2, 3.10.2.1 text/html messages[10] [10:30] sk-learn qwen2.5:72b",
        ),
    ],
)
def test_private_addresses_and_paths_are_left_out(text, shown):
    assert public_text(text) == shown


def test_a_failure_is_shown_in_its_public_words():
    failure = Failure("a", "auth", "a: the server refuses the key in FK", public="a: the key is refused", retry_after=3)
    assert public_failure(failure) == {
        "model": "a",
        "reason": "auth",
        "message": "a: the key is refused",
        "retry_after": 3,
    }
    assert public_failure(Failure("a", "server", "a: /var/lib/x is full"))["message"] == "a: [path] is full"


def test_equal_failures_are_one_and_the_log_has_all(caplog):
    secret = "a: does http://127.0.0.1:8190/v1 end in /v1"
    failures = [Failure("a", "not_found", secret, public="a: not found")] * 5 + [Failure("b", "server", "b: broken.")]
    error = NoAnswerError(f"No LLM gave an answer: {secret}; b: broken.", failures)
    with caplog.at_level(logging.WARNING):
        body = error_body(error)
    assert body["error"]["message"] == "No LLM gave an answer: a: not found (5 times); b: broken."
    assert len(body["blend"]["failures"]) == 6
    assert "8190" not in json.dumps(body)
    assert secret in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (WorkError("/x/y: broken"), 500),
        (StoreError("/x/y: damaged"), 500),
        (OSError("/x/y"), 500),
        (ConfigError("put it into FK"), 500),
        (CheckpointError("/x/y is none"), 500),
        (MissingExtraError("This", "torch"), 501),
        (LLMError("f", "auth", "the key in FK", public="the key"), 502),
        (ValueError("/x/y"), 500),
    ],
)
def test_what_only_the_operator_can_mend_is_in_the_log_alone(error, status, caplog):
    with caplog.at_level(logging.WARNING):
        response = error_response(error)
    told = response.body.decode()
    assert response.status_code == status
    assert not any(secret in told for secret in ("/x/y", "FK", "pip install"))
    assert str(error) in caplog.text


def test_a_client_reads_its_own_errors_whole():
    assert b"There is no such thing" in error_response(InputError("There is no such thing.")).body


def test_a_full_disk_is_507():
    try:
        connection = sqlite3.connect(":memory:")
        connection.execute("PRAGMA page_size = 512")
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute("CREATE TABLE t (x)")
    except sqlite3.OperationalError as cause:
        full = StoreError("/x/y: the disk is full")
        full.__cause__ = cause
    finally:
        connection.close()
    for error in (full, OSError(28, "No space left on device")):
        response = error_response(error)
        assert (response.status_code, json.loads(response.body)["error"]["code"]) == (507, "store_full")


@pytest.mark.parametrize(("reason", "status"), [("rate_limit", 429), ("set_aside", 503), ("server", 502)])
def test_the_smallest_wait_reaches_the_client(serve, reason, status):
    waits = [LLMError("a", reason, "later", retry_after=120), LLMError("b", reason, "later", retry_after=33.2)]
    running = serve(*(FakeLLM(error.llm, errors=error) for error in waits))
    response = running.ask()
    assert (response.status_code, response.headers["retry-after"]) == (status, "34")
    assert response.json()["error"]["retry_after"] == 34
    assert [failure["retry_after"] for failure in response.json()["blend"]["failures"]] == [120, 33.2]
    assert '"retry_after": 34' in running.ask(stream=True).text


def test_an_unknown_wait_is_five_seconds(serve):
    assert serve(FakeLLM("a", errors="rate_limit")).ask().headers["retry-after"] == "5"

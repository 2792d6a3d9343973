"""`/v1/completions`, and what paths and methods that the service does not have get for an answer."""

from __future__ import annotations

import re

import openai
import pytest
from openai.types import Completion

from llm_blender.server.paths import ENDPOINTS
from llm_blender.testing import FakeLLM

BEST = "A longer answer,\nin two lines."


@pytest.fixture(scope="module")
def running(serve_for_all):
    return serve_for_all(FakeLLM("a", "Short."), FakeLLM("b", BEST), FakeLLM("never", errors="server"))


@pytest.fixture
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("prompt", ["The sky is", ["The sky is"]])
def test_the_best_texts(client, prompt):
    more = {"max_tokens": 50, "stop": ["###", ""], "echo": False, "suffix": "", "logprobs": None}
    completion = client.completions.create(model="blend", prompt=prompt, n=2, **more)
    values = Completion.model_validate(completion.to_dict())
    assert values.id.startswith("cmpl-")
    assert [(choice.index, choice.text, choice.finish_reason) for choice in values.choices] == [
        (0, BEST, "stop"),
        (1, "Short.", "stop"),
    ]
    assert values.usage.total_tokens == 13
    assert [candidate["model"] for candidate in values.blend["candidates"]] == ["a", "b"]


@pytest.mark.parametrize("model", ["blend", "b"])
def test_a_stream_has_the_same_text(client, model):
    more = {"model": model, "prompt": "Go.", "stream": True}
    texts, finishes, usage, blend = [], [], None, None
    for chunk in client.completions.create(**more, stream_options={"include_usage": True}):
        Completion.model_validate({**chunk.to_dict(), "choices": []})
        texts += [choice.text for choice in chunk.choices]
        finishes += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        usage, blend = chunk.usage or usage, getattr(chunk, "blend", None) or blend
    assert ("".join(texts), finishes) == (BEST, ["stop"])
    assert usage.total_tokens > 0
    assert blend["mode"] == "pick"
    assert len([text for text in texts if text]) == (1 if model == "blend" else 6)
    with pytest.raises(openai.APIError, match="planted server"):
        list(client.completions.create(model="never", prompt="Go.", stream=True))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": [1, 2, 3]}, "prompt"),
        ({"prompt": [[1, 2, 3]]}, "prompt"),
        ({"prompt": ["One.", "Two."]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"suffix": "end"}, "suffix"),
        ({"echo": True}, "echo"),
        ({"logprobs": 0}, "logprobs"),
        ({"best_of": 3}, "best_of"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"temperature": 3}, "temperature"),
        ({"stop": [3]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"model": "gpt-9"}, "model"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_key(running, body, param):
    response = running.http.post("/v1/completions", json={"model": "blend", "prompt": "Go.", **body})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (404 if param == "model" else 400, param)
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(("path", "key"), [("/v1/completions", "prompt"), ("/v1/responses", "input")])
def test_a_chat_request_at_another_path_names_both(running, path, key):
    body = {"model": "blend", "messages": [{"role": "user", "content": "Go."}]}
    response = running.http.post(path, json=body)
    message = response.json()["error"]["message"]
    assert response.status_code == 400
    assert "/v1/chat/completions" in message
    assert f"`{key}`" in message


def test_an_empty_prompt_is_refused(running):
    response = running.http.post("/v1/completions", json={"model": "blend", "prompt": " "})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/embeddings", "there are no embeddings"),
        ("/v1/images/generations", "images are not supported"),
        ("/v1/audio/speech", "audio is not supported"),
        ("/v1/moderations", "no moderation"),
        ("/v1/files", "files are not stored"),
        ("/v1/assistants", "no assistants"),
        ("/v1/threads/thread_1/runs", "conversations are not stored"),
        ("/v1/conversations", "conversations are not stored"),
        ("/v1/batches", "no batches"),
        ("/v1/fine_tuning/jobs", "blend train"),
        ("/v1/responses/resp_1/cancel", "responses are not stored"),
        ("/v1/responses/input_tokens", "responses are not stored"),
        ("/v1/messages", "Anthropic's API is not served"),
        ("/v1/messages/count_tokens", "Anthropic's API is not served"),
        ("/api/chat", "Ollama's API is not served"),
        ("/api/generate", "Ollama's API is not served"),
        ("/v1beta/models/blend:generateContent", "Google's API is not served"),
        ("/openai/deployments/blend/chat/completions", "Azure's paths are not served"),
        ("/chat/completions", "the path is /v1/chat/completions; a client's base_url ends in /v1"),
        ("/responses", "the path is /v1/responses;"),
        ("/completions", "the path is /v1/completions;"),
        ("/v1/v1/chat/completions", "the path is /v1/chat/completions;"),
        ("/v1/chat/completions/chat/completions", "the path is /v1/chat/completions;"),
        ("/v1/responsesx", "This service answers at /v1/chat/completions, /v1/responses"),
        ("/anything", "a client's base_url ends in /v1"),
    ],
)
def test_an_unknown_path_names_what_to_use(running, path, words):
    response = running.http.post(path, json={})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (404, "invalid_request_error", "http_404")
    assert path in error["message"]
    assert words in error["message"]
    assert "/v1/" in error["message"]


def test_the_paths_that_are_named_exist(running):
    served = running.http.get("/openapi.json").json()["paths"]
    assert set(ENDPOINTS) <= set(served)
    message = running.http.get("/v1/nowhere").json()["error"]["message"]
    assert set(re.findall(r"/(?:v1/)?[a-z]+(?:/[a-z]+)?", message)) >= set(ENDPOINTS)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("GET", "/v1/responses", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("POST", "/v1/models", "GET"),
    ],
)
def test_a_wrong_method_names_the_right_one(running, method, path, allowed):
    response = running.http.request(method, path, json={})
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (405, "http_405", "invalid_request_error")
    assert allowed in response.headers["allow"]
    assert allowed in error["message"]

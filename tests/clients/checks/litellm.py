"""A completion, a stream, a call of a tool, and structured output of litellm."""

import json

import litellm
from pydantic import BaseModel

BEST = "Air scatters blue light most."


class Place(BaseModel):
    city: str


def check(response, messages, url):
    assert response.choices[0].message.content == BEST
    more = {"model": "openai/blend", "messages": messages, "api_base": url, "api_key": "none"}
    chunks = litellm.completion(**more, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == BEST
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": parameters}}]
    (call,) = litellm.completion(**more, tools=tools).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    content = litellm.completion(**more, response_format=Place).choices[0].message.content
    assert Place.model_validate_json(content) == Place(city="Paris")

"""The official client: chat, responses and completions, sync and async."""

import asyncio
import json

from pydantic import BaseModel

BEST = "Air scatters blue light most."
PROMPT = "Why is the sky blue?"
MESSAGES = [{"role": "user", "content": PROMPT}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "Look.", "parameters": SCHEMA}


class Place(BaseModel):
    city: str


def check(client):
    chat(client)
    responses(client)
    assert client.completions.create(model="blend", prompt=PROMPT).choices[0].text == BEST
    chunks = client.completions.create(model="blend", prompt=PROMPT, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == BEST
    asyncio.run(asynchronous(client))
    assert "blend" in [model.id for model in client.models.list()]


def chat(client):
    completion = client.chat.completions.create(model="blend", messages=MESSAGES)
    assert completion.choices[0].message.content == BEST
    assert [candidate["model"] for candidate in completion.blend["candidates"]] == ["a", "b"]
    chunks = client.chat.completions.create(model="blend", messages=MESSAGES, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == BEST
    parsed = client.chat.completions.parse(model="blend", messages=MESSAGES, response_format=Place)
    assert parsed.choices[0].message.parsed == Place(city="Paris")
    tools = [{"type": "function", "function": FUNCTION}]
    turn = client.chat.completions.create(model="blend", messages=MESSAGES, tools=tools).choices[0].message
    (call,) = turn.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    again = client.chat.completions.create(model="blend", messages=[*MESSAGES, turn, result], tools=tools)
    assert again.choices[0].message.content == "The tool gave rain."


def responses(client):
    response = client.responses.create(model="blend", input=PROMPT)
    assert (response.output_text, response.status) == (BEST, "completed")
    with client.responses.stream(model="blend", input=PROMPT) as stream:
        assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == BEST
        assert stream.get_final_response().output_text == BEST
    parsed = client.responses.parse(model="blend", input=PROMPT, text_format=Place)
    assert parsed.output_parsed == Place(city="Paris")
    tools = [{"type": "function", "strict": True, **FUNCTION}]
    with client.responses.stream(model="blend", input=PROMPT, tools=tools) as stream:
        response = stream.get_final_response()
    (call,) = response.output
    assert (call.type, json.loads(call.arguments)) == ("function_call", {"city": "Paris"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    again = client.responses.create(model="blend", input=[*MESSAGES, *response.output, result], tools=tools)
    assert again.output_text == "The tool gave rain."


async def asynchronous(client):
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as other:
        completion = await other.chat.completions.create(model="blend", messages=MESSAGES)
        assert completion.choices[0].message.content == BEST
        stream = await other.responses.create(model="blend", input=PROMPT, stream=True)
        assert "".join([event.delta async for event in stream if event.type == "response.output_text.delta"]) == BEST

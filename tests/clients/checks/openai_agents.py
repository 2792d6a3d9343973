"""The OpenAI Agents SDK: text, stream, a tool, and structured output."""

import asyncio

from agents import Agent, Runner, function_tool, set_tracing_disabled
from pydantic import BaseModel

BEST = "Air scatters blue light most."
PROMPT = "Why is the sky blue?"


class Place(BaseModel):
    city: str


@function_tool
def weather(city: str) -> str:
    """Look at the weather."""
    return f"rain in {city}"


def check(agent):
    set_tracing_disabled(True)
    asyncio.run(run(agent))


async def run(agent):
    assert (await Runner.run(agent, PROMPT)).final_output == BEST
    streamed = Runner.run_streamed(agent, PROMPT)
    events = [event.data async for event in streamed.stream_events() if event.type == "raw_response_event"]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == BEST
    assert streamed.final_output == BEST
    with_tool = Agent(name="tool", model="blend", tools=[weather])
    assert (await Runner.run(with_tool, PROMPT)).final_output == "The tool gave rain in Paris."
    structured = Agent(name="place", model="blend", output_type=Place)
    assert (await Runner.run(structured, PROMPT)).final_output == Place(city="Paris")

"""pydantic-ai: text, stream, a tool, and structured output."""

import asyncio

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput

BEST = "Air scatters blue light most."
PROMPT = "Why is the sky blue?"


class Place(BaseModel):
    city: str


def check(agent):
    assert agent.run_sync(PROMPT).output == BEST
    asyncio.run(stream(agent))
    with_tool = Agent(agent.model)

    @with_tool.tool_plain
    def weather(city: str) -> str:
        """Look at the weather."""
        return f"rain in {city}"

    assert with_tool.run_sync(PROMPT).output == "The tool gave rain in Paris."
    assert Agent(agent.model, output_type=Place).run_sync(PROMPT).output == Place(city="Paris")
    assert Agent(agent.model, output_type=NativeOutput(Place)).run_sync(PROMPT).output == Place(city="Paris")
    first = agent.run_sync(PROMPT)
    assert agent.run_sync("And at night?", message_history=first.all_messages()).output == BEST


async def stream(agent):
    async with agent.run_stream(PROMPT) as result:
        assert "".join([piece async for piece in result.stream_text(delta=True)]) == BEST

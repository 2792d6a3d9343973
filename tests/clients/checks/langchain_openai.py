"""LangChain: invoke, stream, tools and structured output."""

from langchain_core.tools import tool
from pydantic import BaseModel

BEST = "Air scatters blue light most."
PROMPT = "Why is the sky blue?"


class Place(BaseModel):
    """A place."""

    city: str


@tool
def weather(city: str) -> str:
    """Look at the weather."""
    return f"rain in {city}"


def check(model):
    assert model.invoke(PROMPT).text == BEST
    assert "".join(chunk.text for chunk in model.stream(PROMPT)) == BEST
    turn = model.bind_tools([weather]).invoke(PROMPT)
    (call,) = turn.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Paris"})
    again = model.bind_tools([weather]).invoke([("user", PROMPT), turn, weather.invoke(call)])
    assert again.text == "The tool gave rain in Paris."
    assert model.with_structured_output(Place).invoke(PROMPT) == Place(city="Paris")
    assert model.with_structured_output(Place, method="function_calling").invoke(PROMPT) == Place(city="Paris")

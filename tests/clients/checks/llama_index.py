"""LlamaIndex over chat: text, stream, a tool, and structured output."""

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

BEST = "Air scatters blue light most."
PROMPT = "Why is the sky blue?"


class Place(BaseModel):
    """A place."""

    city: str


def weather(city: str) -> str:
    """Look at the weather."""
    return f"rain in {city}"


def check(llm):
    assert llm.complete(PROMPT).text == BEST
    turn = ChatMessage(role="user", content=PROMPT)
    assert llm.chat([turn]).message.content == BEST
    assert "".join(piece.delta or "" for piece in llm.stream_chat([turn])) == BEST
    response = llm.chat_with_tools([FunctionTool.from_defaults(weather)], user_msg=PROMPT)
    (call,) = llm.get_tool_calls_from_response(response)
    assert (call.tool_name, call.tool_kwargs) == ("weather", {"city": "Paris"})
    assert llm.as_structured_llm(Place).complete(PROMPT).raw == Place(city="Paris")

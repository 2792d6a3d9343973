"""LlamaIndex without `is_chat_model`, which speaks the older completions."""

BEST = "Air scatters blue light most."


def check(llm):
    assert llm.complete("Why is the sky blue?").text == BEST
    assert "".join(piece.delta for piece in llm.stream_complete("Why is the sky blue?")) == BEST

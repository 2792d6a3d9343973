"""The Responses API of litellm, whole and streamed."""

import litellm

BEST = "Air scatters blue light most."


def check(response, url):
    assert response.output[0].content[0].text == BEST
    stream = litellm.responses("Hello", "openai/blend", api_base=url, api_key="none", stream=True)
    assert "".join(event.delta for event in stream if event.type == "response.output_text.delta") == BEST

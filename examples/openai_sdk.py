"""Talk to `blend serve` with OpenAI's own library: a whole answer, what is behind it, and a stream."""

from __future__ import annotations

import os

from openai import OpenAI

URL = os.environ.get("BLEND_URL", "http://127.0.0.1:8000/v1")


def main() -> None:
    """Send one question twice, the second time as a stream."""
    client = OpenAI(base_url=URL, api_key=os.environ.get("BLEND_KEY", "none"))
    messages = [{"role": "user", "content": "Why is the sky blue?"}]

    completion = client.chat.completions.create(model="blend", messages=messages)
    print(completion.choices[0].message.content)
    # The service adds a field `blend` to OpenAI's: candidates, ranking, failures, cost.
    for candidate in completion.blend["candidates"]:
        print(f"  {candidate['model']}: {candidate['text']}")

    for chunk in client.chat.completions.create(model="blend", messages=messages, stream=True):
        if chunk.choices and chunk.choices[0].delta.content:
            print(chunk.choices[0].delta.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main()

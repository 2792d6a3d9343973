"""A reasoning model's thoughts, split off from its answer, also while it is still writing."""

from __future__ import annotations

import re

__all__ = ["ReasoningSplitter", "split_reasoning"]

_TAGS = {
    "<think>": "</think>",
    "<thinking>": "</thinking>",
    "[THINK]": "[/THINK]",
    "<|channel|>analysis<|message|>": "<|channel|>final<|message|>",  # gpt-oss, where no server parses it
}
# Some chat templates write the opening tag themselves, so that only the closing one is in the answer. It
# counts on a line of its own alone: an answer may well speak about the tag.
_UNOPENED = re.compile(r"\A(.*?)^</think(?:ing)?>\s*$", re.DOTALL | re.MULTILINE)
_GPT_OSS_TURN = "<|end|><|start|>assistant"


class ReasoningSplitter:
    """Takes an answer in pieces, gives its text without thoughts.

    Thoughts are recognised where the answer begins, because a tag further on is something it talks about.
    What `feed` and `close` return is together exactly `text`, but for one case: thoughts that end with a
    closing tag and began without an opening one are recognised only at the end.

    Attributes:
        text: the answer so far, without white space around it.
    """

    def __init__(self) -> None:
        self.text = ""
        self._thoughts: list[str] = []
        self._held = ""  # not yet known to be text or thought
        self._closing: str | None = None  # the tag that ends the present thought
        self._begun = False

    @property
    def reasoning(self) -> str | None:
        """The thoughts so far; None if there are none."""
        return "".join(self._thoughts).removesuffix(_GPT_OSS_TURN).strip() or None

    def think(self, piece: str) -> None:
        """Take a piece that the API itself calls a thought."""
        self._thoughts.append(piece)

    def feed(self, piece: str) -> str:
        """Take the next piece; return the new text, which may be empty."""
        self._held += piece
        while not self._begun:
            if self._closing is not None:
                thought, tag, rest = self._held.partition(self._closing)
                if not tag:
                    # The end may hold the first half of the closing tag.
                    keep = len(self._closing) - 1
                    self._thoughts.append(self._held[:-keep])
                    self._held = self._held[-keep:]
                    return ""
                self._thoughts.append(thought)
                self._held, self._closing = rest, None
            start = self._held.lstrip()
            opened = next((tag for tag in _TAGS if start.startswith(tag)), None)
            if opened is not None:
                self._held, self._closing = start.removeprefix(opened), _TAGS[opened]
            elif any(tag.startswith(start) for tag in _TAGS):
                return ""
            else:
                self._held, self._begun = start, True
        return self._release(self._held.rstrip())  # white space may turn out to be the last

    def close(self) -> str:
        """The answer is over; return the text that was held back."""
        if self._closing is not None:
            self._thoughts.append(self._held)
            self._held = ""
        rest = self._release(self._held.strip())
        if unopened := _UNOPENED.match(self.text):
            self._thoughts.append(unopened[1])
            self.text = self.text[unopened.end() :].strip()
        return rest

    def _release(self, text: str) -> str:
        self._held = self._held[len(text) :]
        self.text += text
        return text


def split_reasoning(text: str) -> tuple[str, str | None]:
    """An answer's text, and the thoughts before it (None if there are none).

    A thought that never ends leaves the text empty.
    """
    splitter = ReasoningSplitter()
    splitter.feed(text)
    splitter.close()
    return splitter.text, splitter.reasoning

"""Split the body of a response into its JSON texts: events of a stream, or one text.

No I/O. The content decides what the body is; its content type, which is often wrong, only where the content leaves it
open.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from llm_blender.llms.api_errors import CallError
from llm_blender.llms.lenient_json import decode, parse_json

MAX_STREAM = 64 * 1024 * 1024
"""Maximum bytes of a response; a streamed token costs 200 to 300."""
MAX_EVENT = 8 * 1024 * 1024
"""Maximum bytes of one event of a stream, and of a response that is not streamed."""

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b"error:", b":")
_DATA = re.compile(rb"^data:", re.MULTILINE)
_DONE = (b"[DONE]", b'"[DONE]"', b"[done]")


class Event(NamedTuple):
    """An event of a stream.

    Attributes:
        name: its name; empty without one, ``error`` also for a field of that name, ``line`` for a line that is no field
            of an event.
        data: its data; never empty, apart from that of an error.
    """

    name: str
    data: str


class BodyReader:
    """A reader that takes a body in blocks and returns its events, or the whole text at the end.

    Events are read as WHATWG's standard describes, and also where a server leaves out the empty lines between them.

    Attributes:
        streamed: whether the body is a stream of events; None if it is not known yet.
        done: whether the stream has reported its end.

    Args:
        content_type: header of the response.
    """

    def __init__(self, content_type: str) -> None:
        self.streamed: bool | None = None
        self.done = False
        self._label = "event-stream" in content_type.lower()
        self._bytes = self._event_bytes = 0
        self._rest = bytearray()
        self._first, self._after_cr = True, False
        self._name, self._data = "", list[bytes]()

    def feed(self, block: bytes) -> list[Event]:
        """Take the next bytes; return the events that end in them.

        Raises:
            CallError: the body, or one event of it, is too long.
        """
        self._bytes += len(block)
        if self._bytes > MAX_STREAM:
            raise _too_long(MAX_STREAM)
        if self.done:
            return []
        if self._after_cr and block:  # a line's end may be split
            self._after_cr = False
            block = block.removeprefix(b"\n")
        if b"\r" in block:
            self._after_cr = block.endswith(b"\r")
            block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._rest += block
        if self.streamed is None:
            self._sniff()
        events: list[Event] = []
        if self.streamed and b"\n" in (self._rest if self._first else block):
            *lines, self._rest = self._rest.split(b"\n")
            for line in lines:
                self._take(bytes(line), events)
                if self.done:
                    break
        self._first = not self.streamed
        if len(self._rest) + self._event_bytes > MAX_EVENT:
            raise _too_long(MAX_EVENT)
        return events

    def close(self) -> list[Event]:
        """End the body; return the last event of a stream, which may be cut off, or the text of any other body."""
        rest = bytes(self._rest)
        self._rest = bytearray()
        events: list[Event] = []
        if not self.streamed and not _DATA.search(rest):  # no JSON has such a line
            return [Event("", decode(rest))]
        self.streamed = True
        for line in rest.split(b"\n"):
            if not self.done:
                self._take(line, events)
        self._dispatch(events)
        return events

    def _sniff(self) -> None:
        """Find out what the body is, from its first characters."""
        if _BOM.startswith(self._rest[:3]) and len(self._rest) < 3:
            return
        self._rest = self._rest.removeprefix(_BOM).lstrip(b" \t\n")
        if not self._rest:
            return
        if self._rest.startswith(_FIELDS):
            self.streamed = True
        elif self._rest.startswith((b"{", b"[", b"<")):
            self.streamed = False
        elif not any(field.startswith(self._rest) for field in _FIELDS):
            self.streamed = self._label

    def _take(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._dispatch(events)
        elif line.startswith(b"data:"):
            data = line[5:].strip()
            while data.startswith(b"data:"):  # wrapped twice
                data = data[5:].strip()
            if data in _DONE:
                self._dispatch(events)
                self.done = True
                return
            if len(self._data) == 1 and _is_json(self._data[0]):  # no empty line was sent
                self._dispatch(events)
            self._event_bytes += len(line)
            if data:
                self._data.append(data)
        elif line.startswith(b"event:"):
            self._name = decode(line[6:].strip())
        elif line.startswith(b"error:"):
            self._dispatch(events)
            events.append(Event("error", decode(line[6:].strip())))
        elif line.strip() in _DONE:
            self.done = True
        elif not line.startswith(_FIELDS):
            self._dispatch(events)
            events.append(Event("line", decode(line)))

    def _dispatch(self, events: list[Event]) -> None:
        if self._data or self._name == "error":
            events.append(Event(self._name, decode(b"\n".join(self._data))))
            self._data = []
        self._name, self._event_bytes = "", 0


def _is_json(data: bytes) -> bool:
    try:
        parse_json(decode(data))
    except ValueError:
        return False
    return True


def _too_long(limit: int) -> CallError:
    return CallError("bad_response", f"the answer is longer than {limit >> 20} MiB")

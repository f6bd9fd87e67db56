"""Reads server-sent events from bytes that may be cut anywhere. Pure.

Lines end with LF, CR LF or CR, and an empty line ends an event. Only the data of an event matters
here: each API that we read repeats the event's name in it, except for errors.
"""

from __future__ import annotations

from codecs import BOM_UTF8

_IGNORED = (b"", b"id", b"retry")


class ErrorEvent(bytes):
    """The data of an event that is named error."""


class Stray(bytes):
    """Lines outside of any event: some servers write an error into a stream as it is."""


class TooLong(ValueError):
    """An event is larger than it may be."""


def _plain(piece: bytes, max_bytes: int) -> list[bytes]:
    """The data of complete events with one line of data each, as most have; otherwise empty."""
    if piece[-2:] != b"\n\n" or len(piece) > max_bytes or b"\r" in piece:
        return []
    if piece[:6] != b"data: ":
        return []
    events = piece[6:-2].split(b"\n\ndata: ")
    if piece.count(b"\n") != 2 * len(events):  # a line of another kind is among them
        return []
    return [event for event in events if event] if b"" in events else events


class Events:
    """Feed it bytes; it returns the data of each event that is complete.

    odd: whether an `ErrorEvent` or a `Stray` was among what it gave last.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._line = bytearray()
        self._data: list[bytes] = []
        self._stray: list[bytes] = []
        self._name = b""
        self._size = 0
        self._after_cr = False
        self._begun = False
        self.odd = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece. Raises TooLong."""
        self.odd = False
        if not self._open and (events := _plain(piece, self._max_bytes)):
            self._begun = True
            return events
        return self._fed(piece)

    @property
    def _open(self) -> bool:
        """Whether something came after the last complete event."""
        return bool(
            self._line or self._data or self._stray or self._name or self._size or self._after_cr
        )

    def _fed(self, piece: bytes) -> list[bytes]:
        if self._after_cr and piece[:1] == b"\n":  # the other half of a CR LF
            piece, self._after_cr = piece[1:], False
        if piece:
            self._after_cr = piece[-1:] == b"\r"
        events = []
        for line in piece.splitlines(keepends=True):
            self._size += len(line)
            if self._size > self._max_bytes:
                raise TooLong(f"an event is larger than {self._max_bytes} bytes")
            self._line += line
            if line[-1:] in (b"\n", b"\r") and (data := self._end_of_line()):
                events.append(data)
        return events

    def end(self) -> bytes:
        """The data of an event that the stream's end cut off; empty if there is none."""
        self._end_of_line()
        return self._end_of_event()

    def _end_of_line(self) -> bytes:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if not self._begun:
            self._begun, line = True, line.removeprefix(BOM_UTF8)
        if not line:
            return self._end_of_event()
        name, _, value = line.partition(b":")
        if name in (b"data", b"error"):  # llama.cpp has sent errors in a field of that name
            self._data.append(value.removeprefix(b" "))
        if name in (b"event", b"error"):
            self._name = name if name == b"error" else value.strip()
        elif name not in (b"data", *_IGNORED):
            self._stray.append(line)
        return b""

    def _end_of_event(self) -> bytes:
        data = b"\n".join(self._data)
        if data and self._name == b"error":
            data, self.odd = ErrorEvent(data), True
        elif not data and self._stray:
            data, self.odd = Stray(b"\n".join(self._stray)), True
        self._data.clear()
        self._stray.clear()
        self._name, self._size = b"", 0
        return data

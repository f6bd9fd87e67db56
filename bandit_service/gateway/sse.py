"""Server-sent events out of bytes that may be cut anywhere. Pure.

Lines end with LF, CR LF or CR, and an empty line ends an event. Of an event only its data is of
interest here: each API that we read repeats the event's name in it.
"""

from __future__ import annotations


class TooLong(ValueError):
    """An event is larger than it may be."""


class Events:
    """Feed it what comes; it gives the data of each event that is whole by then."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._after_cr = False

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of the events that end in this piece. Raises TooLong."""
        if self._after_cr and piece[:1] == b"\n":  # the other half of a CR LF
            piece, self._after_cr = piece[1:], False
        if piece:
            self._after_cr = piece[-1:] == b"\r"
        found = []
        for line in piece.splitlines(keepends=True):
            self._size += len(line)
            if self._size > self._most:
                raise TooLong(f"an event is larger than {self._most} bytes")
            self._line += line
            if line[-1:] in (b"\n", b"\r") and (data := self._end_of_line()):
                found.append(data)
        return found

    def end(self) -> bytes:
        """The data of an event that the stream ended in, empty where there is none."""
        self._end_of_line()
        return self._end_of_event()

    def _end_of_line(self) -> bytes:
        line = bytes(self._line).rstrip(b"\r\n")
        self._line.clear()
        if not line:
            return self._end_of_event()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return b""

    def _end_of_event(self) -> bytes:
        data = b"\n".join(self._data)
        self._data.clear()
        self._size = 0
        return data

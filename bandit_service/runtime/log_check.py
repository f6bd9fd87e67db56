"""While serving, reads the part of the log that the start did not read; damage ends the service.

A start from a snapshot reads and verifies only the records after it. This reads the rest. If it is
damaged, a note next to the log makes every later start verify the whole log first, and so refuse,
until the log is repaired.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

from bandit_service.runtime.supervisor import Kept
from bandit_service.runtime.writer import Writer
from bandit_service.settings import Settings
from store import Corrupt, Offset, Trimmed, first_of

_log = logging.getLogger("bandit.check")
_SLICE = 64
_SHARE = 0.2
"""The maximum share of the loop's time that it takes."""


def note_of(settings: Settings) -> Path:
    """The file that makes a start verify the whole log."""
    path = Path(settings.data_dir) / settings.log.path
    return path.with_name(path.name + "-verify")


def verifies_all(settings: Settings) -> bool:
    """Whether a start must verify the whole log before it serves."""
    wanted = settings.log.verify
    return wanted == "all" or (wanted == "background" and note_of(settings).exists())


class LogCheck:
    """Verifies the records up to an offset. `start` it, then `close`."""

    def __init__(self, writer: Writer, note: Path, upto: int) -> None:
        self._writer, self._note, self._upto = writer, note, upto
        self._checking: Kept | None = None

    def start(self) -> None:
        """Begin to read."""
        self._checking = self._writer.tasks.keep("verify", self._verify)

    async def close(self) -> None:
        """Stop, also half-way; the next start begins again."""
        if self._checking is not None:
            await self._checking.end()

    async def _verify(self) -> None:
        begun = time.monotonic()
        try:
            while not await self._read(Offset(first_of(self._writer.log) - 1)):
                pass
        except Corrupt as error:
            self._ask(error)
            self._writer.damaged(error)
            return
        seconds = round(time.monotonic() - begun, 3)
        _log.info("the log is verified", extra={"upto": self._upto, "seconds": seconds})

    def _ask(self, damage: Corrupt) -> None:
        """Write the note; without it the next start would serve until it finds the same damage."""
        try:
            with self._note.open("w", encoding="utf-8") as note:
                note.write(f"{damage}\n")
                note.flush()
                os.fsync(note.fileno())
        except OSError as error:
            _log.error(
                "the note that makes a start verify the whole log cannot be written; "
                'set log.verify = "all" until the log is repaired',
                extra={"path": str(self._note), "why": error.strerror},
            )

    async def _read(self, after: Offset) -> bool:
        """Read all records from there; False if retention deleted some meanwhile."""
        records = self._writer.log.replay(after)
        at = int(after)
        try:
            while at < self._upto:
                begun = time.perf_counter()
                for _ in range(min(_SLICE, self._upto - at)):
                    at = int(next(records)[0])
                await asyncio.sleep((time.perf_counter() - begun) * (1.0 / _SHARE - 1.0))
        except Trimmed:
            return False
        return True

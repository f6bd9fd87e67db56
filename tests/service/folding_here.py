"""Folding in a thread of the test's process, where what is tested is not that it is a child.

A child costs 0.4 s of CPU, and gets less than others of a busy machine.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from bandit_service.runtime import folding


class _Here:
    """As much of a child process as folding uses."""

    def __init__(self, pipe: socket.socket) -> None:
        self.returncode: int | None = None
        self.stderr = asyncio.StreamReader()
        self.stderr.feed_eof()
        self._pipe = pipe
        self._done = asyncio.get_running_loop().run_in_executor(None, self._fold)

    async def connect(self, pipe: socket.socket) -> None:
        """Open what it is asked by."""
        self.stdout, self.stdin = await asyncio.open_connection(sock=pipe)

    def _fold(self) -> None:
        with self._pipe, self._pipe.makefile("rb") as source, self._pipe.makefile("wb") as sink:
            folding.fold(source, sink)

    async def wait(self) -> int:
        """It ends with its work, or where nobody asks any more."""
        try:
            await self._done
            self.returncode = 0
        except (OSError, SystemExit):
            self.returncode = 1
        self.stdin.close()
        return self.returncode

    def kill(self) -> None:
        """Nobody asks any more."""
        self.stdin.close()


def fold_here(patched: pytest.MonkeyPatch) -> None:
    """From now on."""

    async def started(module: str) -> _Here:
        assert module == folding.__name__
        ours, theirs = socket.socketpair()
        here = _Here(theirs)
        await here.connect(ours)
        return here

    patched.setattr(folding, "_started", started)

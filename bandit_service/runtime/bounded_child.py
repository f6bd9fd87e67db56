"""A child process that works on texts of clients within bounds of CPU time and memory.

Some patterns and schemas take minutes for a short text. The child has a low priority and dies by
itself when one question has used up its time; the next question starts another one. Frames on both
pipes are four bytes of length, big-endian, and a body: the child sends an empty one when it is
ready, and then an answer to each question.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

_LENGTH = struct.Struct(">I")
_READY_S = 60.0
_SLOWER = 10.0
"""A child of low priority may have to wait this many times longer than it computes."""
_MEMORY = 512 * 1024 * 1024
_NICE = 10


class NoAnswer(Exception):
    """The child gave none; the text, "timeout" or "failed", says why."""


# --- the service's side -------------------------------------------------------------------


class BoundedChild:
    """Asks the child, one question at a time.

    module: what it runs, which calls `serve`. cpu_s: CPU seconds that one question may take.
    """

    def __init__(self, module: str, cpu_s: float) -> None:
        self._module = module
        self._cpu_s = cpu_s
        self._child: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()

    async def ask(self, question: bytes) -> bytes:
        """The answer. Raises NoAnswer if it takes too long, or if the child cannot run."""
        async with self._asking:
            try:
                return await self._ask(question)
            except BaseException:
                await self._end()
                raise

    async def begin(self) -> None:
        """Have the child ready, so that the first question does not wait for it."""
        async with self._asking:
            with suppress(OSError):
                self._child = self._child or await self._spawn()

    async def close(self) -> None:
        """End the child, whatever it does."""
        await self._end()

    async def _ask(self, question: bytes) -> bytes:
        try:
            child = self._child or await self._spawn()
            assert child.stdin is not None
            async with asyncio.timeout(_SLOWER * self._cpu_s):
                child.stdin.write(_LENGTH.pack(len(question)) + question)
                await child.stdin.drain()
                return await _received(child)
        except TimeoutError:
            raise NoAnswer("timeout") from None
        except (EOFError, OSError):
            ended = 0 if self._child is None else await self._child.wait()
            raise NoAnswer("timeout" if ended == -signal.SIGPROF else "failed") from None

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            str(self._cpu_s),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(_READY_S):
                await _received(self._child)
        except (EOFError, TimeoutError):
            await self._end()
            raise OSError("the child did not begin") from None
        return self._child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                child.kill()
            await child.wait()


async def _received(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None
    (length,) = _LENGTH.unpack(await child.stdout.readexactly(_LENGTH.size))
    return await child.stdout.readexactly(length)


# --- the child's side ---------------------------------------------------------------------


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Answer until the service closes the pipe."""
    cpu_s, questions, answers = float(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer
    os.nice(_NICE)
    with suppress(OSError):  # a system that does not report it sets no limit
        size = _memory_now() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _say(answers, b"")
    while head := questions.read(_LENGTH.size):
        body = questions.read(_LENGTH.unpack(head)[0])
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # when it is over the process ends
        told = answer(body)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _say(answers, told)


def _memory_now() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _say(answers: IO[bytes], body: bytes) -> None:
    answers.write(_LENGTH.pack(len(body)) + body)
    answers.flush()

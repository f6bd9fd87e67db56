"""Verdicts by texts, patterns and schemas, in a separate process.

A client's schema or a model's text can keep a validator busy without bound: some schemas take
minutes for a short text, and comparing two texts of many accents takes seconds. So a child process
of low priority does it, which dies by itself when a verdict has used up its time; the next verdict
starts another one.

`python -m bandit_service.gateway.verdicts` is that child. Frames on both pipes are four bytes of
length, big-endian, and MessagePack: the service sends a `Question`, the child answers a `Verdict`,
the first one when it is ready.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from bandit_service.gateway import judges
from bandit_service.settings.judges import JudgeSpec

MAX_SCHEMA = 65_536
_LENGTH = struct.Struct(">I")
_READY_S = 60.0
_SLOWER = 10.0
"""A child of low priority may have to wait this many times longer than it computes."""
_MEMORY = 512 * 1024 * 1024
_NICE = 10


class Question(msgspec.Struct, frozen=True):
    """What is judged, and how. schema: as JSON, of a request."""

    kind: str
    text: str
    expected: str
    pattern: str
    schema: bytes


class Verdict(msgspec.Struct, frozen=True):
    """1 or 0; None if this judge cannot judge it. failed: the validator failed."""

    quality: float | None = None
    failed: bool = False


class NoVerdict(Exception):
    """There is no verdict; the text, a word for the metric, says why."""


# --- the service's side -------------------------------------------------------------------


class Verdicts:
    """Asks the child, one question at a time. cpu_s: CPU seconds that one verdict may take."""

    def __init__(self, cpu_s: float) -> None:
        self._cpu_s = cpu_s
        self._child: asyncio.subprocess.Process | None = None
        self._asking = asyncio.Lock()

    async def of(
        self, spec: JudgeSpec, body: Mapping[str, Any], expected: str, text: str
    ) -> float | None:
        """As `judges.verdict`; Raises NoVerdict if it takes too long or is too large."""
        schema = judges.schema_of(body) if spec.kind == "json_schema" else None
        silent = (spec.kind == "json_schema" and schema is None) or (
            spec.kind == "exact" and not expected
        )
        if silent or len(text) > judges.MAX_CHARS:
            return None
        try:
            encoded = msgspec.json.encode(schema)
            question = _framed(Question(spec.kind, text, expected, spec.pattern, encoded))
        except (ValueError, TypeError, RecursionError):  # such as half a character
            raise NoVerdict("failed") from None
        if len(encoded) > MAX_SCHEMA:
            raise NoVerdict("large")
        async with self._asking:
            try:
                verdict = await self._ask(question)
            except BaseException:
                await self._end()
                raise
        if verdict.failed:
            raise NoVerdict("failed")
        return verdict.quality

    async def begin(self) -> None:
        """Have the child ready, so that the first verdict does not wait for it."""
        async with self._asking:
            with suppress(OSError):
                self._child = self._child or await self._spawn()

    async def close(self) -> None:
        """End the child, whatever it does."""
        await self._end()

    async def _ask(self, question: bytes) -> Verdict:
        try:
            child = self._child or await self._spawn()
            assert child.stdin is not None
            async with asyncio.timeout(_SLOWER * self._cpu_s):
                child.stdin.write(question)
                await child.stdin.drain()
                return await _received(child)
        except TimeoutError:
            raise NoVerdict("timeout") from None
        except (EOFError, OSError, msgspec.DecodeError):
            ended = 0 if self._child is None else await self._child.wait()
            raise NoVerdict("timeout" if ended == -signal.SIGPROF else "failed") from None

    async def _spawn(self) -> asyncio.subprocess.Process:
        self._child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bandit_service.gateway.verdicts",
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


async def _received(child: asyncio.subprocess.Process) -> Verdict:
    assert child.stdout is not None
    (length,) = _LENGTH.unpack(await child.stdout.readexactly(_LENGTH.size))
    return msgspec.msgpack.decode(await child.stdout.readexactly(length), type=Verdict)


def _framed(value: object) -> bytes:
    body = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(body)) + body


# --- the child's side ---------------------------------------------------------------------


def main() -> None:
    """Answer until the service closes the pipe."""
    cpu_s, questions, answers = float(sys.argv[1]), sys.stdin.buffer, sys.stdout.buffer
    os.nice(_NICE)
    with suppress(OSError):  # a system that does not report it sets no limit
        size = _memory_now() + _MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _say(answers, Verdict())
    while head := questions.read(_LENGTH.size):
        body = questions.read(_LENGTH.unpack(head)[0])
        signal.setitimer(signal.ITIMER_PROF, cpu_s)  # when it is over the process ends
        try:
            verdict = _verdict(msgspec.msgpack.decode(body, type=Question))
        except Exception:  # noqa: BLE001 - what a validator meets is the client's
            verdict = Verdict(failed=True)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        _say(answers, verdict)


def _verdict(question: Question) -> Verdict:
    spec = JudgeSpec(id="child", kind=question.kind, pattern=question.pattern)
    schema = msgspec.json.decode(question.schema)
    body = {"response_format": {"json_schema": {"schema": schema}}}
    return Verdict(judges.verdict(spec, body, question.expected, question.text))


def _memory_now() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _say(answers: IO[bytes], verdict: Verdict) -> None:
    answers.write(_framed(verdict))
    answers.flush()


if __name__ == "__main__":
    main()

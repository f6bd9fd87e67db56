"""Verdicts by texts, patterns and schemas, in a separate process.

A client's schema or a model's text can keep a validator busy without bound: some schemas take
minutes for a short text, and comparing two texts of many accents takes seconds.

`python -m bandit_service.gateway.verdicts` is that child (`runtime.bounded_child`): the service
sends a `Question`, the child answers a `Verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from bandit_service.gateway import judges
from bandit_service.runtime.bounded_child import BoundedChild, NoAnswer, serve
from bandit_service.settings.judges import JudgeSpec

MAX_SCHEMA = 65_536


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


class Verdicts:
    """Asks the child. cpu_s: CPU seconds that one verdict may take."""

    def __init__(self, cpu_s: float) -> None:
        self._child = BoundedChild("bandit_service.gateway.verdicts", cpu_s)

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
            question = Question(spec.kind, text, expected, spec.pattern, encoded)
            asked = msgspec.msgpack.encode(question)
        except (ValueError, TypeError, RecursionError):  # such as half a character
            raise NoVerdict("failed") from None
        if len(encoded) > MAX_SCHEMA:
            raise NoVerdict("large")
        try:
            verdict = msgspec.msgpack.decode(await self._child.ask(asked), type=Verdict)
        except NoAnswer as none:
            raise NoVerdict(str(none)) from None
        if verdict.failed:
            raise NoVerdict("failed")
        return verdict.quality

    async def begin(self) -> None:
        """Have the child ready, so that the first verdict does not wait for it."""
        await self._child.begin()

    async def close(self) -> None:
        """End the child, whatever it does."""
        await self._child.close()


def _answer(body: bytes) -> bytes:
    try:
        verdict = _verdict(msgspec.msgpack.decode(body, type=Question))
    except Exception:  # noqa: BLE001 - what a validator meets is the client's
        verdict = Verdict(failed=True)
    return msgspec.msgpack.encode(verdict)


def _verdict(question: Question) -> Verdict:
    spec = JudgeSpec(id="child", kind=question.kind, pattern=question.pattern)
    schema = msgspec.json.decode(question.schema)
    body = {"response_format": {"json_schema": {"schema": schema}}}
    return Verdict(judges.verdict(spec, body, question.expected, question.text))


if __name__ == "__main__":
    serve(_answer)

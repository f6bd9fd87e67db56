"""What decodes bytes from outside raises its typed refusals and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bandit_service import settings, wire
from bandit_service.core import events as ev
from bandit_service.core import snapshot
from bandit_service.core.errors import ServiceError
from tests.fuzz.effort import effort
from tests.fuzz.requests import anything, bodies

KINDS = (wire.DecideRequest, wire.RewardRequest, wire.CompareRequest, wire.PolicyRequest)
GOLDEN = Path(__file__).parents[1] / "golden" / "events.json"


def _use(value: Any) -> None:
    """Everything that is done to a request before it comes to the world."""
    for kind in KINDS:
        with suppress(ServiceError):
            asked = wire.convert(value, kind)
            if isinstance(asked, wire.RewardRequest):
                asked.reported()
                wire.refuse_subject(asked)
            elif isinstance(asked, wire.CompareRequest):
                asked.digested()
                wire.refuse_subject(asked)
            elif isinstance(asked, wire.DecideRequest):
                wire.check_constraints(asked)
            if isinstance(asked, wire.Query):
                wire.text_and_size(asked, 1000)
                if asked.embedding is not None:
                    wire.embedding_of(asked, 384)
    with suppress(ValueError):
        settings.arm_spec(value)


@effort(300)
@given(st.binary(max_size=200))
@example(b"\x91" * 100_000)
@example(b"[" * 100_000)
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\xc7\xff\x01")
@example(b"\x81\x00\x80")
def test_any_bytes_are_a_value_or_refused(body: bytes) -> None:
    for decode in (wire.decode_json, wire.decode_msgpack):
        with suppress(ServiceError):
            _use(decode(body))


@effort(300)
@given(bodies() | anything)
def test_any_value_is_a_request_or_refused(value: Any) -> None:
    with suppress(ServiceError):
        _use(wire.decode_msgpack(msgspec.msgpack.encode(value)))
    with suppress(ServiceError):
        _use(wire.decode_json(json.dumps(value, default=lambda one: one.hex()).encode()))


def _read_in_two(body: bytes, kind: type[Any]) -> Any:
    return wire.convert(wire.decode_request(body), kind)


def _outcome(read: Any, body: bytes, kind: type[Any]) -> Any:
    try:
        return read(body, kind)
    except ServiceError as error:
        return type(error), str(error), error.body()


_DEEP = '{"messages": [{"role": "user", "content": ' + 40 * "[" + 40 * "]" + "}]}"


@effort(300)
@given(bodies() | anything)
@example({"embedding": [1.0], "unit": None})
@example({"embedding": "AACAPw==", "willingness_to_pay": 10**20})
@example({"messages": [{"role": "user", "n": 10**20}]})
@example({"query": "\ud800"})
def test_a_request_is_the_same_read_in_one_pass_and_in_two(value: Any) -> None:
    body = json.dumps(value, default=lambda one: one.hex()).encode()
    for kind in KINDS:
        for sent in (body, b"\xef\xbb\xbf" + body, body[:-1]):
            assert _outcome(wire.read, sent, kind) == _outcome(_read_in_two, sent, kind)


def test_a_request_that_is_read_in_one_pass_may_not_be_nested_deeper() -> None:
    told = _outcome(wire.read, _DEEP.encode(), wire.DecideRequest)
    assert told == _outcome(_read_in_two, _DEEP.encode(), wire.DecideRequest)
    assert "nested too deeply" in told[1]


def _samples() -> list[bytes]:
    whole = json.loads(GOLDEN.read_text(encoding="utf-8"))
    events = whole if isinstance(whole, list) else list(whole.values())
    return [msgspec.msgpack.encode(each) for each in events]


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(st.sampled_from(_samples())))
    for _ in range(draw(st.integers(1, 4))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body[: draw(st.integers(0, len(body)))]) if draw(st.booleans()) else bytes(body)


@effort(300)
@given(_damaged() | st.binary(max_size=200))
@example(b"\x81\xa1x" + b"\x91" * 100_000)
@example(b"\x81\xa4kind\xa2\xff\xff")
def test_a_damaged_event_is_an_event_or_refused(body: bytes) -> None:
    with suppress(msgspec.DecodeError):
        event = ev.decode(body)
        assert ev.decode(ev.encode(event)) is not None


@effort(100)
@given(st.binary(max_size=200) | _damaged())
def test_a_damaged_snapshot_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="not a world"):
        snapshot.read(body)

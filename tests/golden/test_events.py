"""Events are promised to be readable for ever: a recorded sample of every kind, decoded.

`events.json` is never rewritten. A new field has a default, so these bytes still decode; a new
kind or version adds a sample.
"""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

import policies
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.world import new_world

SAMPLES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "events.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: str(sample["event"]["kind"]))
def test_a_recorded_event_is_still_read_as_it_was_meant(sample: dict[str, Any]) -> None:
    event = ev.decode(bytes.fromhex(sample["hex"]))
    read = json.loads(msgspec.json.encode(event))
    assert sample["event"].items() <= read.items()


@pytest.mark.parametrize("kind", ["decided", "rewarded", "compared"])
def test_a_record_without_a_surface_is_written_as_it_was(kind: str) -> None:
    written = [bytes.fromhex(each["hex"]) for each in SAMPLES]
    was = [body for body in written if msgspec.msgpack.decode(body)["kind"] == kind]
    assert was
    for body in was:
        event = ev.decode(body)
        of = event if isinstance(event, ev.Decided) else getattr(event, "subject", None)
        assert of is None or of.surface == b""
        now = msgspec.msgpack.decode(ev.encode(event))
        assert "surface" not in now
        assert "surface" not in now.get("subject", {})
        assert now.items() <= msgspec.msgpack.decode(body).items()


def test_every_kind_has_a_sample() -> None:
    kinds = {kind.__struct_config__.tag for kind in typing.get_args(ev.AnyEvent)}
    assert {sample["event"]["kind"] for sample in SAMPLES} == kinds


def test_the_samples_fold() -> None:
    world = new_world({"eagle": policies.load("eagle")}, "eagle", 10)
    for sample in SAMPLES:
        world = apply(world, ev.decode(bytes.fromhex(sample["hex"])))
    assert (world.decisions, world.rewards, world.comparisons) == (3, 2, 2)
    assert world.learners["eagle"].failures == 0
    assert world.arms[policies.ArmId("a")].retired


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        ev.decode(msgspec.msgpack.encode({"kind": "unheard of", "ts": 1.0}))

"""DSJSON read: ours comes back as it was, others' as they meant it, and what is wrong is named."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bandit_service.core import events as ev
from bandit_service.data import dsjson
from bandit_service.data.log_source import LogSource, Unreadable
from bandit_service.data.logged import BadLine, ForeignSource, source_of
from bandit_service.data.scan import Outcome, Scan
from tests.fuzz.effort import effort
from tests.unit.data.making import ARMS, a_history, a_log

VW = {
    "_label_cost": -1.0, "_label_probability": 0.8, "_label_Action": 2, "_labelIndex": 1,
    "o": [{"v": 1.0, "EventId": "e1"}], "Timestamp": "2021-11-25T21:19:39.4950000Z",
    "Version": "1", "EventId": "e1", "a": [2, 1], "p": [0.8, 0.2], "VWState": {"m": "v1"},
    "c": {
        "User": {"age": 41, "country": "FR", "tags": ["new", 3], "vip": True},
        "_multi": [{"TAction": {"id": "politics"}}, {"TAction": {"id": "sports", "len": 2}}],
    },
}  # fmt: skip


def source(path: Path) -> ForeignSource:
    return source_of(dsjson.read(path), path, (), 5, 100)


def with_(**changed: Any) -> bytes:
    return json.dumps(VW | changed).encode()


@pytest.mark.parametrize("embeddings", [True, False])
def test_our_own_export_comes_back(tmp_path: Path, embeddings: bool) -> None:
    history = a_history(300, seed=4)
    log = a_log(tmp_path / "log", history)
    with Scan(LogSource(log), 0, joined=True) as scan:
        written = b"".join(dsjson.lines(scan, embeddings, "skip-learn"))
    log.close()
    (tmp_path / "out.dsjson").write_bytes(written)
    found = source(tmp_path / "out.dsjson")
    assert found.known
    before = [event for event in history if isinstance(event, ev.Decided)]
    after = [event for event in found.all if isinstance(event, ev.Decided)]
    for was, now in zip(before, after, strict=True):
        assert (now.id, now.arm, now.arms) == (was.id, was.arm, was.arms)
        assert now.propensities == was.propensities
        assert (now.ts, now.tokens, now.unit) == (was.ts, was.tokens, was.unit)
        if embeddings:
            wide = ev.unpack(was.embedding)
            assert ev.unpack(now.embedding) == pytest.approx(wide / np.linalg.norm(wide))
    # and written again it is the same: EventId, action, probability, cost and what rides along
    again = [json.loads(line) for line in rewritten(found)]
    for first, second in zip(map(json.loads, written.splitlines()), again, strict=True):
        for name in (
            "EventId",
            "_label_Action",
            "_label_probability",
            "a",
            "p",
            "_label_cost",
            "Timestamp",
            "quality",
            "cost_usd",
            "_skipLearn",
        ):
            assert first.get(name) == second.get(name), name


def rewritten(found: ForeignSource) -> list[bytes]:
    outcomes = {e.decision_id: e for e in found.all if isinstance(e, ev.Rewarded)}
    lines = []
    for event in found.all:
        if isinstance(event, ev.Decided):
            told = outcomes.get(event.id)
            outcome = (
                Outcome()
                if told is None
                else Outcome(
                    told.quality, told.cost_usd, told.latency_s, told.reward, told.ts, True
                )
            )
            missing = outcome.reward is None
            lines.append(dsjson.line(event, outcome, {}, skip_learn=missing))
    return lines


def test_a_line_of_another_system() -> None:
    found = dsjson.read_line(with_())
    assert found.arms == ("politics", "sports")
    assert (found.drawn, found.propensities) == (1, (0.2, 0.8))
    assert found.signals == {"reward": 1.0}
    assert (found.id, found.policy) == ("e1", "v1")
    assert found.ts == pytest.approx(1637875179.495)
    assert float(np.linalg.norm(found.vector)) == pytest.approx(1.0)
    other = dsjson.read_line(with_(c=VW["c"] | {"User": {"age": 41, "country": "DE"}}))  # type: ignore[operator]
    assert float(other.vector @ found.vector) < 0.9999
    assert dsjson.read_line(with_(_skipLearn=True)).signals == {}
    plain = dsjson.read_line(with_(c={"_multi": [{"x": 1}, {"x": 2}]}))
    assert plain.arms == ("action-1", "action-2")
    assert not plain.vector.any()


def test_arms_that_the_catalogue_has_keep_their_price_and_neighbours_are_recalled(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log.dsjson"
    path.write_bytes(b"\n\n".join(with_(EventId=f"e{i}") for i in range(4)) + b"\n")
    priced = ev.ArmSpec(id=ARMS[0].id, usd_per_mtok_in=7.0, usd_per_mtok_out=7.0)
    found = source_of(dsjson.read(path), path, [priced], 5, 100)
    added = [event.arm for event in found.all if isinstance(event, ev.ArmAdded)]
    assert [(arm.id, arm.usd_per_mtok_in) for arm in added] == [("politics", 0), ("sports", 0)]
    decided = [event for event in found.all if isinstance(event, ev.Decided)]
    # the query is always the same, so it is one item, remembered by the first reward
    assert [one.neighbours for one in decided] == [(), (4096,), (4096,), (4096,)]
    assert decided[1].similarities == pytest.approx((1.0,))
    assert next(iter(found.events(4)))[0] == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"c": None}, "c._multi: must be a list of actions"),
        ({"pdrop": 0.5}, "pdrop: a log with dropped events"),
        ({"a": [1, 1]}, "a: must hold each number from 1 to 2 once"),
        ({"a": None}, "a: must be a list of the 2 actions"),
        ({"p": [0.8]}, "p: must be a list of 2 probabilities"),
        ({"p": [0.8, 0.4]}, "p: the probabilities must sum to 1, they sum to 1.2"),
        ({"p": [0.8, -0.2]}, "p: must be a number from 0 to 1"),
        ({"p": [0.0, 1.0], "_label_probability": 0.0}, "must be above 0 for the drawn arm"),
        ({"_label_probability": 0.7}, "_label_probability: is 0.7, but p begins with 0.8"),
        ({"_labelIndex": 0}, "_labelIndex: is 0, but a begins with 2"),
        ({"_label_cost": -3.0}, "_label_cost: must be a number from -1 to 1, got -3.0"),
        ({"_label_cost": "x"}, "_label_cost: must be a number from -1 to 1"),
        ({"_label_cost": True}, "_label_cost: must be a number"),
        ({"EventId": [3]}, "EventId: must be a text"),
        ({"Timestamp": "today"}, "Timestamp: must be like"),
        ({"quality": 2}, "quality: must be a number from 0 to 1"),
        ({"c": {"_multi": [{"_tag": "a"}, {"_tag": "a"}]}}, "two actions have the same"),
        ({"c": VW["c"] | {"embedding": [1.0, "x"]}}, "c.embedding: must be a number"),  # type: ignore[operator]
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BadLine) as caught:
        dsjson.read_line(with_(**changed))
    assert said in str(caught.value)


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
ANYTHING = (
    LEAF | st.lists(LEAF, max_size=3) | st.dictionaries(st.text(max_size=5), LEAF, max_size=3)
)


@effort(100)
@given(
    st.dictionaries(st.sampled_from(sorted(VW)), ANYTHING, max_size=2)
    | st.dictionaries(
        st.just("c"), st.fixed_dictionaries({"_multi": st.lists(ANYTHING), "x": ANYTHING})
    )
)
@example({"c": VW["c"] | {"embedding": [1e300, 1e300]}})  # type: ignore[operator]
@example({"c": VW["c"] | {"x": 10**400, "y": 1e200}})  # type: ignore[operator]
@example({"_label_cost": 10**400})
@example({"Timestamp": 10**400})
def test_whatever_stands_in_a_line_it_is_read_or_refused(changed: dict[str, Any]) -> None:
    found = None
    with suppress(BadLine):
        found = dsjson.read_line(with_(**changed))
    if found is not None:
        assert 0.0 < found.propensities[found.drawn] <= 1.0
        assert np.isfinite(found.vector).all()
        assert abs(found.signals.get("reward", 0.0)) <= 1.0


@effort(100)
@given(st.binary(max_size=80))
@example(b"[" * 100_000)
@example(b'{"c": {"_multi": ["\xff"]}}')
def test_bytes_that_are_no_line_are_refused(text: bytes) -> None:
    with pytest.raises(BadLine):
        dsjson.read_line(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (with_() + b"\n{", "line 2: "),
        (with_() + b"\n[1]\n", "line 2: must be an object"),
        (with_() + b"\n\n" + with_(), "line 3: EventId: 'e1' is also in line 1"),
        (b"\n", "contains no decision"),
        (
            with_(c=VW["c"] | {"embedding": [1, 0]}) + b"\n" + with_(EventId="e2"),  # type: ignore[operator]
            "line 2: the embedding has 64 numbers, those before have 2",
        ),
    ],
)
def test_the_file_and_the_line_are_named(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "bad.dsjson"
    path.write_bytes(text)
    with pytest.raises(Unreadable) as caught:
        source(path)
    assert str(caught.value).startswith(str(path))
    assert said in str(caught.value)

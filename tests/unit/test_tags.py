"""Tags: a closed alphabet and bounds, no say in what is chosen, and slices of logs."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from bandit_service.core import events as ev
from bandit_service.core.decide import decide
from bandit_service.core.errors import Refused
from bandit_service.core.exploration import Exploration
from bandit_service.core.query import Recalled
from bandit_service.core.tags import tags_of
from bandit_service.data import parquet
from bandit_service.data.jsonl import lines, read
from bandit_service.data.log_source import LogSource
from bandit_service.data.scan import Scan
from bandit_service.offline.candidates import Candidate
from bandit_service.offline.offpolicy.fold import Asked, along
from bandit_service.offline.offpolicy.report import How, report, shown
from tests.unit.data.making import a_log
from tests.unit.experiments.given import a_world, asked
from tests.unit.offpolicy.logs import catalogue, decision, reward


def test_tags_are_sorted_and_there_once() -> None:
    assert tags_of(["b", "a", "b", "team:x/y=1.0_-"]) == ("a", "b", "team:x/y=1.0_-")
    assert tags_of([]) == ()
    assert len(tags_of(str(i) for i in range(16))) == 16


@pytest.mark.parametrize(
    "tag", ["", "a b", "a,b", "é", "a\n", "\n", "x" * 65, "<b>", "a\x00", '"', "\ud800"]
)
def test_a_tag_of_another_alphabet_or_length_is_refused_with_the_limits(tag: str) -> None:
    with pytest.raises(Refused, match=r"tags: a tag must be 1 to 64 characters of A-Z") as refused:
        tags_of(["fine", tag])
    assert refused.value.param == "tags"


def test_too_many_are_refused() -> None:
    with pytest.raises(Refused, match="x-tags: at most 16 tags, got 17"):
        tags_of((str(i) for i in range(17)), "x-tags")


def test_nothing_is_chosen_by_them() -> None:
    world = a_world("a", "b", "c")
    plain, tagged = (
        [
            decide(world, asked(tags=tags), Recalled(), f"d{i}", 2.0, Exploration())
            for i in range(50)
        ]
        for tags in ((), ("x",))
    )
    assert plain == [msgspec.structs.replace(one, tags=()) for one in tagged]
    assert {one.tags for one in tagged} == {("x",)}
    assert "tags" not in msgspec.msgpack.decode(ev.encode(plain[0]))


def _log() -> list[ev.AnyEvent]:
    """Four decisions: the even ones have `even`, the first also `first`."""
    events = catalogue()
    for i in range(4):
        tags = (("even", "first") if i == 0 else ("even",)) if i % 2 == 0 else ("odd",)
        events += [decision(i, i % 3, tags=tags), reward(i, 0.25 * i)]
    expired = ev.DecisionsExpired(ts=9.0, ids=("d1",))
    return [*events, expired, ev.DecisionsExpired(ts=9.0, ids=("d0", "d2"))]


@pytest.mark.parametrize(
    ("tags", "ids"), [((), 4), (("even",), 2), (("even", "first"), 1), (("even", "odd"), 0)]
)
def test_an_export_is_cut_to_the_decisions_with_all_the_tags(
    tmp_path: Path, tags: tuple[str, ...], ids: int
) -> None:
    log = a_log(tmp_path / "log", _log())
    with Scan(LogSource(log), 0, joined=False, tags=tags) as scan:
        found = [read(one)[1] for one in lines(scan, "none")]
        told = scan.summary()
    with Scan(LogSource(log), 0, joined=True, tags=tags) as scan:
        parquet.write(scan, tmp_path / "tables", embeddings=False)
    log.close()
    decisions = [one for one in found if isinstance(one, ev.Decided)]
    assert len(decisions) == ids
    rewarded = [one.decision_id for one in found if isinstance(one, ev.Rewarded)]
    assert rewarded == [one.id for one in decisions]
    gone = [one.ids for one in found if isinstance(one, ev.DecisionsExpired)]
    assert bool(gone) is bool(ids)
    assert sum(isinstance(one, ev.ArmAdded) for one in found) == 3
    assert ("decisions of another route or without the tags" in told) is (ids < 4)
    table = pq.read_table(tmp_path / "tables" / "decisions.parquet").to_pylist()
    assert [row["id"] for row in table] == [one.id for one in decisions]
    assert [tuple(row["tags"]) for row in table] == [one.tags for one in decisions]


def test_an_evaluation_is_cut_to_them() -> None:
    found = report(along(_log()[:-2], Asked(candidates=(Candidate(name="uniform"),))), How())
    assert (found["log"]["decisions"], "tags" in found) == (4, False)
    only = Asked(candidates=(Candidate(name="uniform"),), tags=("even",))
    found = report(along(_log()[:-2], only), How())
    assert (found["log"]["decisions"], found["tags"]) == (2, ["even"])
    assert "only decisions with the tags even" in shown(found)

"""Exports and estimates of one route: its decisions, and what its policy would have learned."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bandit_service import cli
from bandit_service.core import events as ev
from bandit_service.core.exploration import Exploration
from bandit_service.data import parquet
from bandit_service.data.jsonl import lines, read
from bandit_service.data.log_source import LogSource
from bandit_service.data.scan import Scan
from bandit_service.offline.candidates import Candidate
from bandit_service.offline.offpolicy.fold import Asked, along
from tests.unit.data.making import a_log
from tests.unit.offpolicy.logs import IDS, catalogue, decision, reward

BOT = ev.RouteChanged(
    ts=0.0, route=ev.RouteSpec(id="bot", arms=IDS, policy="knn", parameters={}), key="k"
)


def _log(n: int = 60, *begin: ev.AnyEvent) -> list[ev.AnyEvent]:
    """By turns: of the route, where c earns all, and of `auto`, where a does."""
    events = [*catalogue(), *begin]
    for i in range(n):
        route, best = ("bot", 2) if i % 2 == 0 else ("", 0)
        drawn = (i // 2) % 3
        events += [decision(i, drawn, route=route), reward(i, float(drawn == best))]
    return events


@pytest.mark.parametrize(("route", "parity"), [("bot", 0), ("auto", 1)])
def test_an_export_is_cut_to_a_route(tmp_path: Path, route: str, parity: int) -> None:
    log = a_log(tmp_path / "log", _log(8, BOT))
    with Scan(LogSource(log), 0, joined=False, route=route) as scan:
        found = [read(one)[1] for one in lines(scan, "none")]
    with Scan(LogSource(log), 0, joined=True, route=route) as scan:
        parquet.write(scan, tmp_path / "tables", embeddings=False)
        told = scan.summary()
    log.close()
    ids = [f"d{i}" for i in range(8) if i % 2 == parity]
    assert [one.id for one in found if isinstance(one, ev.Decided)] == ids
    assert [one.decision_id for one in found if isinstance(one, ev.Rewarded)] == ids
    assert "4 decisions of another route" in told
    rows = pq.read_table(tmp_path / "tables" / "decisions.parquet").to_pylist()
    assert [(row["id"], row["route"]) for row in rows] == [
        (id, route.replace("auto", "")) for id in ids
    ]


@pytest.mark.parametrize(("forgotten", "route", "left"), [(False, "bot", "s0"), (True, None, "s1")])
def test_an_export_has_the_sessions_of_its_decisions_alone(
    tmp_path: Path, forgotten: bool, route: str | None, left: str
) -> None:
    events = _log(2, BOT)
    for i, owner in enumerate(("u0", "u1")):
        said = ev.SessionRewarded(
            ts=9.0, group=f"s{i}", owner=owner, signals={"quality": 1.0}, ids=(f"d{i}",),
            arms=(IDS[0],), weights=(1.0,), credits=(1.0,),
        )  # fmt: skip
        events += [said, ev.SessionCredited(ts=9.0, group=f"s{i}", number=1)]
    if forgotten:
        events.append(ev.Forgotten(ts=9.0, owner="u0"))
    log = a_log(tmp_path / "log", events)
    with Scan(LogSource(log), 0, joined=False, route=route) as scan:
        found = [event for _, event in scan.events()]
    log.close()
    assert [one.group for one in found if isinstance(one, ev.SessionRewarded)] == [left]
    if route is not None:
        assert [one.group for one in found if isinstance(one, ev.SessionCredited)] == [left]


@pytest.mark.parametrize("begin", [(BOT,), ()], ids=["whole log", "shortened log"])
@pytest.mark.parametrize(("route", "best"), [("bot", 2), ("", 0)])
def test_a_candidate_learns_of_its_route_alone(
    begin: tuple[ev.AnyEvent, ...], route: str, best: int
) -> None:
    greedy = Candidate(name="epsilon_greedy", parameters={"epsilon": 0.0, "prior_mean": 0.5})
    asked = Asked(candidates=(greedy,), route=route, explore=Exploration(share=0.0))
    found = along(_log(60, *begin), asked)
    assert found.left_out == {"route": 30}
    last = list(found._rows.values())[-1]
    assert last.proposals[0][best] == 1.0


def test_the_command_names_the_routes_that_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    a_log(tmp_path / "log.sqlite3", _log(240, BOT)).close()
    evaluate = (
        "evaluate",
        "--from-log",
        "log.sqlite3",
        "--policy",
        "fixed:arm=c",
        "--json",
        "--anyway",
    )
    values = {}
    for route in ("bot", "auto"):
        assert cli.main([*evaluate, "--route", route]) == 0
        found = json.loads(capsys.readouterr().out)
        values[route] = found["policies"][0]["estimates"]["snips"]["value"]
        assert found.get("route", "auto") == route
    assert values["bot"] > 0.9
    assert values["auto"] < 0.1
    assert cli.main([*evaluate, "--route", "bto"]) == 2
    assert "--route: no decision is of the route 'bto'" in capsys.readouterr().err

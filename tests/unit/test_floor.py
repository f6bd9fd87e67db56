"""The floor: a share in all, or so much per arm; and logs of before it was a share."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

import policies
from bandit_service import settings
from bandit_service.core import events as ev
from bandit_service.core.apply import apply
from bandit_service.core.decide import decide, weigh
from bandit_service.core.exploration import Exploration
from bandit_service.core.outcomes import RewardRule
from bandit_service.core.query import Query, Recalled
from bandit_service.core.world import World, new_world
from bandit_service.data import jsonl
from bandit_service.offline.candidates import Candidate
from bandit_service.offline.offpolicy.fold import Asked, along
from bandit_service.offline.simulate import simulate
from bandit_service.runtime import recovery
from bandit_service.settings import PolicySettings
from policies import ArmId
from tests.unit.data.making import a_log
from tests.unit.data.recordings import planted

OLD = Exploration(floor=0.01)


def _read(tmp_path: Path, text: str, **environ: str) -> Exploration:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return settings.exploration(settings.read(path, environ).exploration)


def _world(n: int) -> World:
    world = new_world({"fixed": policies.load("fixed", arm="m0")}, "fixed", 10)
    for i in range(n):
        arm = ev.ArmSpec(id=ArmId(f"m{i}"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0)
        apply(world, ev.ArmAdded(ts=0.0, arm=arm, source="api"))
    return world


@pytest.mark.parametrize("arms", [2, 5, 23])
def test_by_default_all_arms_together_have_two_percent(arms: int) -> None:
    query = Query(np.eye(4, dtype=np.float32)[0], 10, 0.1)
    p = weigh(_world(arms), query, Recalled(), Exploration()).propensities
    assert p.min() == pytest.approx(0.02 / arms)
    assert p.max() == pytest.approx(0.98 + 0.02 / arms)
    assert p.sum() == pytest.approx(1.0)
    chosen = settings.exploration(settings.read(None, {}).exploration)
    assert chosen == Exploration()
    event = decide(_world(arms), query, Recalled(), "d", 0.0, chosen)
    assert min(event.propensities) == pytest.approx(0.02 / arms)


def test_a_file_of_before_means_what_it_meant(tmp_path: Path) -> None:
    for text, four, hundred in (
        ("[exploration]\nfloor = 0.01", 0.01, 0.001),
        ("[exploration]\nfloor = 0.02\nfloor_share = 0.06", 0.015, 0.0006),
        ("[exploration]\nfloor_share = 0.02", 0.005, 0.0002),  # floor was 0.01 where none was given
        ("[exploration]\nfloor_share = 0.2", 0.01, 0.002),
        ("[exploration]\nfloor = 0", 0.0, 0.0),
    ):
        found = _read(tmp_path, text)
        assert found.added(np.eye(4)[0])[1] == pytest.approx(four), text
        assert found.added(np.eye(100)[0])[1] == pytest.approx(hundred), text
    assert _read(tmp_path, "", BANDIT_EXPLORATION_FLOOR="0.0").label == "no floor"
    assert _read(tmp_path, "[exploration]\nshare = 0.05").label == "5 % in all"


@pytest.mark.parametrize(
    ("text", "environ", "said"),
    [
        ("share = 0.02\nfloor = 0.01", {}, "exploration.share: is in the place of exploration.fl"),
        ("share = 0.02", {"BANDIT_EXPLORATION_FLOOR_SHARE": "0.1"}, "exploration.floor_share; set"),
        ("share = 1.5", {}, "exploration.share: must be a number from 0 to 1, got 1.5"),
        ("floor = 'x'", {}, "exploration.floor: must be a number from 0 to 0.5, got 'x'"),
        ("floor = true", {}, "exploration.floor: must be a number from 0 to 0.5, got True"),
    ],
)
def test_a_floor_that_cannot_be_is_refused(
    tmp_path: Path, text: str, environ: dict[str, str], said: str
) -> None:
    with pytest.raises(settings.BadSettings) as caught:
        _read(tmp_path, f"[exploration]\n{text}", **environ)
    (mistake,) = caught.value.mistakes
    assert said in mistake


def test_a_log_of_the_old_floor_folds_as_before_and_keeps_its_propensities(tmp_path: Path) -> None:
    """A log records what was drawn from, and no fold reads a setting of the floor."""
    recorded, vectors = planted(120)
    written: list[ev.AnyEvent] = []
    done = simulate(
        recorded,
        vectors,
        policies.load("metallm"),
        seed=0,
        explore=OLD,
        rule=RewardRule(0.1),
        heard=written.append,
    )
    stored = [jsonl.read(jsonl.line(i, event))[1] for i, event in enumerate(written, 1)]
    assert stored == written
    decided = [event for event in stored if isinstance(event, ev.Decided)]
    assert len(decided) == len(done.arm) == 120
    least = {round(min(event.propensities), 12) for event in decided}
    assert least == {0.01, round(1 / 3, 12)}  # the latter where nothing was known yet

    log = a_log(tmp_path / "events.sqlite3", written)
    digests = set()
    for text in ("", "[exploration]\nfloor = 0.01", "[exploration]\nshare = 0.5"):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        chosen = settings.read(path, {})
        digests.add(recovery.replayed(log, chosen, PolicySettings("metallm")).world.digest())
    log.close()
    by_hand = new_world({"metallm": policies.load("metallm")}, "metallm", 20_000)
    for event in written:
        by_hand = apply(by_hand, event)
    assert digests == {by_hand.digest()}

    same = along(stored, Asked(candidates=(Candidate(name="metallm"),), explore=OLD)).sample()
    assert same.behaviour is not None
    assert np.array_equal(same.targets[0], same.behaviour)  # at its own floor, bit for bit
    now = along(stored, Asked(candidates=(Candidate(name="metallm"),))).sample()
    assert np.array_equal(now.logged, same.logged)
    assert now.targets[0].min() == pytest.approx(0.02 / len(recorded.arms))


def test_the_floor_goes_to_a_child_process_and_back() -> None:
    for explore in (Exploration(), OLD, Exploration(seed=3, share=0.5)):
        asked = Asked(candidates=(Candidate(name="knn"),), explore=explore)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(asked), type=Asked) == asked

"""The cells of past queries are kept beside the snapshots, and a start continues with them."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

import policies
from bandit_service import settings
from bandit_service.app import assembly
from bandit_service.core.world import World, new_world
from bandit_service.testing.indexes import DIM, clustered
from policies import ArmId, Outcome
from store.history import HybridIndex


def _world(n: int) -> World:
    world = new_world({"uniform": policies.load("uniform")}, "uniform", 1000)
    for vector in clustered(n, 3):
        world.events += 1
        world.history.number(world.events)
        world.history.remember(vector, Outcome(ArmId("a"), 1.0, 1.0))
    world.history.take_changes()
    return world


def _chosen(data: Path) -> settings.Settings:
    read = settings.read(None, {"BANDIT_DATA_DIR": str(data)})
    return replace(read, history=replace(read.history, capacity=1000, exact_below=300))


def test_a_second_start_computes_no_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, world = _chosen(tmp_path), _world(400)
    assembly.open_snapshots(chosen)
    first = assembly._index(world, chosen, DIM)
    assert [path.name for path in (tmp_path / "snapshots").iterdir()] == ["cells"]
    assert assembly.open_snapshots(chosen).found() == []
    monkeypatch.setattr(HybridIndex, "_build", None)
    second = assembly._index(world, chosen, DIM)
    assert second.approximate
    one, other = first.placed(), second.placed()
    assert one is not None
    assert other is not None
    assert one.ids.tolist() == other.ids.tolist()


def test_without_space_for_them_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are a cache: the service says so, and computes them again at the next start."""
    chosen = _chosen(tmp_path)
    with caplog.at_level(logging.WARNING):
        index = assembly._index(_world(400), chosen, DIM)  # there is no such directory
    assert index.approximate
    assert [record.message for record in caplog.records] == [
        "the cells of past queries are not kept"
    ]

"""A request that is the first to name a policy does not hold up the event loop by its import."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import policies
from bandit_service.runtime.experiment_monitor import Background
from tests.service.running import Client
from tests.service.test_live_configuration import change

_POLICY = """
import threading

from policies.uniform import Uniform
IMPORTED_BY = threading.get_ident()
__all__ = ["Uniform"]
"""
_By = Callable[[str], int]
_NAMES = ("of_route", "beside", "of_draft")


@pytest.fixture
def imported_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_By]:
    """By which thread a new policy was imported."""
    own = tmp_path / "own"
    own.mkdir()
    for name in _NAMES:
        (own / f"{name}.py").write_text(_POLICY, encoding="utf-8")
    monkeypatch.setattr(policies, "__path__", [*policies.__path__, str(own)])
    yield lambda name: sys.modules[f"policies.{name}"].IMPORTED_BY
    for name in _NAMES:
        _forget(name)


def _forget(name: str) -> None:
    """As after a restart."""
    if sys.modules.pop(f"policies.{name}", None) is not None:
        delattr(policies, name)
    importlib.invalidate_caches()


async def test_policies_are_imported_on_a_thread(
    client: Client, imported_by: _By, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = threading.get_ident()
    route = {"id": "bot", "policy": "of_route"}
    for sections in ({"routes": [route]}, {"policies": [{"name": "beside"}]}):
        status, told = await change(client, sections)
        assert status == 200, told
    draft = {"variants": [{"key": "a", "policy": "of_draft", "weight": 0.5},
                          {"key": "b", "policy": "uniform", "weight": 0.5}]}  # fmt: skip
    status, told = await client.call("PUT", "/v1/experiments/e", draft)
    assert status == 201, told
    assert all(imported_by(name) != loop for name in _NAMES)

    _forget("of_draft")
    monkeypatch.setattr(Background, "begun", _nothing)  # it would be trained in another process
    status, told = await client.post("/v1/experiments/e/start", {})
    assert (status, told["status"]) == (202, "starting")
    assert imported_by("of_draft") != loop

    status, told = await change(client, {"routes": []})
    assert status == 400  # forget: what the route has learned
    status, told = await change(client, {"routes": [], "forget": ["bot"]})
    assert status == 200, told
    _forget("of_route")
    status, told = await change(client, {"to": 2}, path="/v1/configuration/rollback")
    assert status == 200, told
    assert imported_by("of_route") != loop


async def _nothing(*_: object) -> None:
    """In the place of the training."""

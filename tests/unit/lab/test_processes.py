"""What tasks came to is kept, and not run for again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bandit_service.lab.processes import in_processes, keeping
from policies import Floats
from tests.tools import needed

needed("threadpoolctl")

_calls: list[tuple[str, int]] = []


@dataclass(frozen=True)
class _Shared:
    table: Floats
    note: str = ""


@dataclass(frozen=True)
class _Row:
    label: str
    sums: Floats
    mean: float


def _begin(_: _Shared) -> None: ...


def _task(label: str, by: int) -> _Row | str:
    _calls.append((label, by))
    if label == "fails":
        return "cannot be fitted"
    if label == "raises":
        raise ZeroDivisionError
    return _Row(label, np.arange(4.0).reshape(2, 2) * by, by / 3)


def _run(shared: _Shared, *tasks: tuple[str, int]) -> list[_Row | str]:
    _calls.clear()
    return list(in_processes(_begin, (shared,), _task, tasks, 1))


def test_what_a_task_came_to_is_taken_from_its_file(tmp_path: Path) -> None:
    shared = _Shared(np.eye(2))
    with keeping(tmp_path / "runs"):
        first = _run(shared, ("a", 1), ("fails", 2))
        assert _calls == [("a", 1), ("fails", 2)]
        known, failed, new = _run(shared, ("a", 1), ("fails", 2), ("a", 2))
    assert _calls == [("a", 2)]
    assert failed == first[1] == "cannot be fitted"
    assert isinstance(known, _Row)
    assert isinstance(first[0], _Row)
    assert (known.label, known.mean) == (first[0].label, first[0].mean)
    assert known.sums.dtype == first[0].sums.dtype
    assert np.array_equal(known.sums, first[0].sums)
    assert isinstance(new, _Row)
    assert new.mean == pytest.approx(2 / 3)


def test_other_data_is_another_task(tmp_path: Path) -> None:
    with keeping(tmp_path / "runs"):
        _run(_Shared(np.eye(2)), ("a", 1))
        for other in (_Shared(np.eye(2) * 2), _Shared(np.eye(2), "noted"), _Shared(np.eye(3))):
            _run(other, ("a", 1))
            assert _calls == [("a", 1)]


def test_a_task_that_raises_leaves_what_came_before_it_and_no_file_of_its_own(
    tmp_path: Path,
) -> None:
    shared = _Shared(np.eye(2))
    with keeping(tmp_path / "runs"):
        with pytest.raises(ZeroDivisionError):
            _run(shared, ("a", 1), ("raises", 1))
        assert len(list((tmp_path / "runs").iterdir())) == 1
        with pytest.raises(ZeroDivisionError):
            _run(shared, ("a", 1), ("raises", 1))
    assert _calls == [("raises", 1)]


def test_outside_nothing_is_kept() -> None:
    shared = _Shared(np.eye(2))
    for _ in range(2):
        _run(shared, ("a", 1))
        assert _calls == [("a", 1)]

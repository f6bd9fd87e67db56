"""Where recorded data and published tables lie, if they are here at all."""

import json
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(*parts: str) -> Path:
    """The path below `../shared`, or a skip that says what is missing."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"recorded data {'/'.join(parts)} is not beside this checkout")
    return path


def vectors(name: str) -> dict[str, Any]:
    """A published table, or a skip that says that it is missing."""
    found: dict[str, Any] = json.loads(shared("vectors", name).read_text(encoding="utf-8"))
    return found


def rows(name: str, key: str = "cases") -> list[Any]:
    """A published table's rows, each to be its own test; one that is skipped without the table."""
    path = SHARED.joinpath("vectors", name)
    if not path.exists():
        why = f"recorded data vectors/{name} is not beside this checkout"
        return [pytest.param(None, marks=pytest.mark.skip(reason=why))]
    found = json.loads(path.read_text(encoding="utf-8"))[key]
    return [pytest.param(row, id=_named(row)) for row in found]


def _named(row: Any) -> str:
    told = row.get("description") or row.get("subjectKey") if isinstance(row, dict) else row[0]
    return told if isinstance(told, str) and told else json.dumps(row)[:60]

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

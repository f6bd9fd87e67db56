"""The hashes and sizes of docs/data.md are those of the files that are here."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
from pathlib import Path

import pytest

from tests.shared_data import SHARED

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w./-]+)` \|(.*)\| ([0-9a-f]{64}) \|$", PAGE, re.MULTILINE)
SPECIALISTS = ROOT / "bandit_service" / "data" / "specialists"


def _there(name: str) -> Path:
    """Where the file is, if it is here."""
    package = importlib.util.find_spec("pareto_bandit")
    places = [SPECIALISTS, SHARED / "data"]
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent)
    return next((place / name for place in places if (place / name).is_file()), Path(name))


@pytest.mark.parametrize(("name", "cells", "sha256"), ROWS, ids=[row[0] for row in ROWS])
def test_a_file_is_the_one_of_the_page(name: str, cells: str, sha256: str) -> None:
    path = _there(name)
    if not path.is_file():
        pytest.skip(f"{name} is not here")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    numbers = [int(cell) for cell in re.findall(r"\d+", cells)]
    if numbers:
        assert numbers[-1] == path.stat().st_size
    if len(numbers) == 3:
        assert gzip.decompress(path.read_bytes()).count(b"\n") == numbers[0]


def test_every_recording_of_the_results_is_on_the_page() -> None:
    pages = {path.stem for path in (ROOT / "docs" / "results").glob("*.md")}
    assert pages
    assert all(re.search(rf"\b{name}\b", PAGE) for name in pages)

"""What `make fuzz` writes into the page on reliability is of a whole run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import conftest
from tests.fuzz.effort import left_out

_PAGE = "<!-- fuzz -->\nof a whole run\n<!-- /fuzz -->"


class _Item:
    def __init__(self, name: str) -> None:
        self.name = name
        self.user_properties = [("tried", "10 passing, 0 failing")]


class _Session:
    def __init__(self, *names: str) -> None:
        self.items = [_Item(each) for each in names]


@pytest.mark.parametrize("whole", [True, False])
def test_a_run_of_a_part_leaves_the_table_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Seen on 0e17ee51: one file of tests/fuzz alone replaced the table of all of them."""
    page = tmp_path / "reliability.md"
    page.write_text(_PAGE)
    monkeypatch.setattr(conftest, "PAGE", page)
    monkeypatch.setattr(conftest, "is_long", lambda: True)
    every = sorted(left_out(()))
    assert len(every) > 5
    ran = [f"{every[0]}[1]", *every[1:]] if whole else every[1:]
    conftest.pytest_sessionfinish(_Session(*ran))  # type: ignore[arg-type]
    told = page.read_text()
    assert ("of a whole run" in told) is not whole
    assert ("| 10 | no |" in told) is whole

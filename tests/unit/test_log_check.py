"""What is found beside serving is noted for the next start, or it is said that it could not be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from bandit_service.runtime.log_check import LogCheck
from store import Corrupt, Offset


class Damaged:
    """A writer and its log, of which the third record is damaged."""

    def __init__(self) -> None:
        self.log: Any = self
        self.told: list[Corrupt] = []

    def replay(self, after: Offset) -> Any:
        raise Corrupt(3, "its checksum does not match")

    def damaged(self, error: Corrupt) -> None:
        self.told.append(error)


@pytest.mark.parametrize("there", [True, False])
async def test_damage_is_noted_or_it_is_said_why_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, there: bool
) -> None:
    writer: Any = Damaged()
    note = tmp_path / ("events.db-verify" if there else "none/events.db-verify")
    with caplog.at_level(logging.ERROR, "bandit.check"):
        await LogCheck(writer, note, 9)._verify()
    assert [each.offset for each in writer.told] == [3]
    if there:
        assert "damaged at offset 3" in note.read_text()
        assert not caplog.records
    else:
        (said,) = caplog.records
        assert "cannot be written" in said.getMessage()
        assert vars(said)["why"] == "No such file or directory"

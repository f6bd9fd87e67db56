"""The command where an extra is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bandit_service import cli


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert cli.main(["export", "--format", "parquet", "--to", str(tmp_path / "tables")]) == 2
    assert "Parquet needs pyarrow: pip install" in capsys.readouterr().err
    assert not (tmp_path / "tables").exists()

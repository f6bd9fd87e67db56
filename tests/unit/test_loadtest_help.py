"""Every program of `loadtest` that takes arguments says which."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

import loadtest

ROOT = Path(loadtest.__file__).parent


PROGRAMS = sorted(
    ".".join(("loadtest", *each.relative_to(ROOT).with_suffix("").parts))
    for each in ROOT.rglob("*.py")
    if all(mark in each.read_text(encoding="utf-8") for mark in ("def main(", "arser("))
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_says_what_it_takes(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two branches once gave one program the same option, and nobody had started it since."""
    main = importlib.import_module(name).main
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        main(*([["--help"]] if inspect.signature(main).parameters else []))
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out

"""Every program of `loadtest` that takes arguments says which."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
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


@pytest.mark.parametrize(
    ("raised", "told"),
    [("raise KeyboardInterrupt", ""), ("raise OSError('disk full')", "disk full")],
)
def test_ctrl_c_while_a_program_is_imported_is_no_traceback(raised: str, told: str) -> None:
    """As `python -m` leaves the name of the program while it imports the package."""
    ended = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv = ['-m']; import loadtest; {raised}"],
        cwd=ROOT.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode != 0
    assert told in ended.stderr
    assert bool(ended.stderr) == bool(told)

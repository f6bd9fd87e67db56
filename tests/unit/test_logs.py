"""Log lines in both forms, and what never gets into one."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from bandit_service import logs

SECRET = "what the user asked"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _logged(form: str = "json", stream: io.StringIO | None = None) -> io.StringIO:
    stream = stream or io.StringIO()
    logs.configure("info", stream, form)
    return stream


def _line(stream: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stream.getvalue())
    return found


def test_a_json_line_has_level_logger_message_ids_and_the_fields_that_are_known() -> None:
    stream = _logged()
    asked, decided = logs.request_id.set("r1"), logs.decision_id.set("d1")
    logging.getLogger("bandit.x").warning("told", extra={"why": "full", "secret": SECRET})
    logs.request_id.reset(asked)
    logs.decision_id.reset(decided)
    line = _line(stream)
    assert isinstance(line.pop("ts"), float)
    assert line == {
        "level": "warning",
        "logger": "bandit.x",
        "message": "told",
        "request_id": "r1",
        "decision_id": "d1",
        "why": "full",
    }


def test_a_lines_own_decision_goes_before_that_of_the_request() -> None:
    stream = _logged()
    decided = logs.decision_id.set("d1")
    logging.getLogger("bandit.x").info("told", extra={"decision_id": "d2"})
    logs.decision_id.reset(decided)
    assert _line(stream)["decision_id"] == "d2"
    assert "request_id" not in _line(stream)


def test_a_console_line_can_be_read_and_taken_apart() -> None:
    stream = _logged("console")
    logging.getLogger("bandit.x").warning(
        "told", extra={"why": "no space\nleft", "code": 503, "url": "http://127.0.0.1:1"}
    )
    (line,) = stream.getvalue().splitlines()
    assert re.match(r"\d\d:\d\d:\d\d\.\d\d\d WARNING  bandit\.x told ", line)
    assert line.endswith(r'why="no space\nleft" code=503 url=http://127.0.0.1:1')


def test_auto_is_console_on_a_terminal_and_json_elsewhere() -> None:
    for stream, json_line in ((_Terminal(), False), (io.StringIO(), True)):
        logging.getLogger("bandit.x").info("not yet")
        _logged("auto", stream)
        logging.getLogger("bandit.x").info("told")
        assert stream.getvalue().startswith("{") is json_line


def test_less_than_the_level_is_not_written() -> None:
    stream = _logged()
    logging.getLogger("bandit.x").debug("told")
    assert stream.getvalue() == ""


def _fail() -> None:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(SECRET) from error


@pytest.mark.parametrize("form", ["json", "console"])
def test_of_an_exception_the_frames_and_types_are_written_and_not_the_messages(form: str) -> None:
    stream = _logged(form)
    try:
        _fail()
    except ValueError:
        logging.getLogger("bandit.x").exception("internal error")
    written = stream.getvalue()
    assert SECRET not in written
    for part in ("ValueError", "KeyError", "test_logs.py:", "_fail"):
        assert part in written


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_other_packages_log_has_our_form_and_repeats_nothing(form: str) -> None:
    stream = _logged(form)
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %s", SECRET)
    logging.getLogger("aiohttp.server").error("Unhandled %s", SECRET)
    logging.getLogger("aiohttp.server").info("too little")
    written = stream.getvalue()
    assert SECRET not in written
    assert written.count("\n") == 2
    assert "Task exception was never retrieved" in written


def _given(module: Path) -> set[str]:
    """The names of the fields that a module gives its lines: in dicts, by name or on the spot."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    logged = [
        call
        for call in calls
        if isinstance(call.func, ast.Attribute) and "_log" in ast.unparse(call.func)
    ]
    extras = [each.value for call in logged for each in call.keywords if each.arg == "extra"]
    parts = [part for extra in extras for part in ast.walk(extra)]
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    assigned = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and {ast.unparse(each) for each in node.targets} & names
    ]
    dicts = [each for each in (*parts, *assigned) if isinstance(each, ast.Dict)]
    return {str(key.value) for each in dicts for key in each.keys if isinstance(key, ast.Constant)}


def test_every_field_that_is_given_is_written() -> None:
    package = Path(__file__).parents[2] / "bandit_service"
    given = {path: _given(path) for path in package.rglob("*.py")}
    assert {"events", "usd", "deployment", "upstream"} <= set().union(*given.values())
    assert [str(path) for path, names in given.items() if names - {*logs.FIELDS}] == []


def test_every_field_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert rows == ["ts", "level", "logger", "message", *logs.FIELDS]

"""Kinds of faults that reading foreign logs had on commit 5a5a85b: each test would fail there."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bandit_service.data import dsjson, open_bandit
from bandit_service.data.log_source import Unreadable
from tests.unit.data.test_dsjson_import import VW, with_


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


FORMS: dict[str, dict[str, Any]] = {
    "_p": _without(VW, "p") | {"_p": [0.8, 0.2]},
    "_a and _p": _without(VW, "a", "p") | {"_a": [2, 1], "_p": [0.8, 0.2]},
    "one label": _without(VW, "_label_cost", "_label_probability", "_label_Action")
    | {"_label": {"Action": 2, "Cost": -1.0, "Probability": 0.8}},
    "capitals": _without(VW, "_label_cost", "_label_probability")
    | {"_label_Cost": -1.0, "_label_Probability": 0.8},
    "numbers of other types": VW | {"a": [2.0, 1.0], "p": ["0.8", "0.2"], "_label_cost": "-1"},
    "nulls": VW | {"pdrop": None, "_label_probability": None, "_labelIndex": None,
                   "_skipLearn": None, "tenant": None, "quality": None},
}  # fmt: skip


@pytest.mark.parametrize("row", FORMS.values(), ids=FORMS)
def test_forms_that_vows_own_reader_takes_are_read(row: dict[str, Any]) -> None:
    """Seen on 5a5a85b: "p: must be a list of 2 probabilities" of a log with `_p`."""
    found = dsjson.read_line(json.dumps(row).encode())
    assert (found.drawn, found.propensities) == (1, (0.2, 0.8))
    assert found.signals == {"reward": 1.0}
    assert found.tenant == ""


def test_lines_need_no_id_and_no_time(tmp_path: Path) -> None:
    """Seen on 5a5a85b: "EventId: must be a text"."""
    path = tmp_path / "l.dsjson"
    path.write_text(json.dumps(_without(VW, "EventId", "Timestamp")) + "\n")
    ((_, found),) = dsjson.read(path)
    assert (found.id, found.ts) == ("line-1", 0.0)


@pytest.mark.parametrize(
    "written",
    [
        gzip.compress,
        lambda body: b"\xef\xbb\xbf" + body,
        lambda body: body.decode().encode("utf-16"),
    ],
    ids=["gzip", "mark", "utf-16"],
)
def test_packed_and_marked_logs_are_read(tmp_path: Path, written: Callable[[bytes], bytes]) -> None:
    """Seen on 5a5a85b: "JSON is malformed: invalid character (byte 0)"."""
    path = tmp_path / "l"
    path.write_bytes(written(with_() + b"\n"))
    assert [found.id for _, found in dsjson.read(path)] == ["e1"]
    table = b"timestamp,action,reward,pscore\n2026-01-01,a,1,0.5\n2026-01-01,b,,0.5\n"
    path.write_bytes(written(table))
    assert [found.drawn for _, found in open_bandit.read(path)] == [0, 1]


@pytest.mark.parametrize(
    "table",
    [
        "Timestamp;ACTION;click;propensity_score\n2026-01-01;a;1,0;0,5\n2026-01-01;b;;0,5\n",
        "timestamp\taction\treward\tpscore\n2026-01-01\ta\ttrue\t0.5\n2026-01-01\tb\tNULL\t0.5\n",
        "sep=|\ntimestamp|action|reward|pscore\n2026-01-01|a|1|0.5\n2026-01-01|b|nan|0.5\n",
    ],
)
def test_tables_of_any_usual_form_are_read(tmp_path: Path, table: str) -> None:
    """Seen on 5a5a85b: "there is no column action or item_id"."""
    path = tmp_path / "l.csv"
    path.write_text(table)
    first, second = (found for _, found in open_bandit.read(path))
    assert (first.signals, first.propensities) == ({"reward": 1.0}, (0.5, 0.5))
    assert second.signals == {}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Seen on 5a5a85b: a refusal that named neither the columns there are nor the encoding."""
    path = tmp_path / "l.csv"
    path.write_text("timestamp,acton,reward,pscore\n2026-01-01,a,1,0.5\n")
    with pytest.raises(Unreadable, match="did you mean acton"):
        list(open_bandit.read(path))
    path.write_bytes("timestamp,action,reward,pscore\n2026-01-01,é,1,0.5\n".encode("latin-1"))
    with pytest.raises(Unreadable, match=r"not UTF-8 \(byte 0xe9\)"):
        list(open_bandit.read(path))

"""Kinds of faults that imports had on commit 5a5a85b: each test would fail there."""

from __future__ import annotations

import argparse
import bz2
import gzip
import json
import lzma
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from bandit_service.cli.commands import convert
from bandit_service.data.answer_logs import load_long
from bandit_service.data.recordings import load
from bandit_service.data.routerbench import load_routerbench
from bandit_service.data.rows import BadRecording, Scale
from bandit_service.lab.offline import OfflineRow, evaluate_offline
from bandit_service.lab.plots import offline_plot
from bandit_service.lab.reports import Report
from bandit_service.lab.routers import standard
from tests.tools import imported, needed
from tests.unit.lab.labelled import topics

pa = imported("pyarrow")
pq = imported("pyarrow.parquet")

TABLE = "query,model,quality,cost_usd\nfirst é,a,0.5,0.001\nfirst é,b,1,0\nsecond,a,0,0.25\n"
LINES = "".join(
    json.dumps({"query": query, "model": model, "quality": quality, "cost_usd": usd}) + "\n"
    for query, model, quality, usd in (
        ("first é", "a", 0.5, 0.001),
        ("first é", "b", 1, 0),
        ("second", "a", 0, 0.25),
    )
)
QUALITY = [[0.5, 1.0], [0.0, np.nan]]
COST = [[0.001, 0.0], [0.25, np.nan]]


def _read(path: Path, body: bytes | str, **options: Any) -> None:
    """The three answers are read, whatever they are written in."""
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    recorded = load_long(path, **options)
    assert recorded.texts == ("first é", "second")
    np.testing.assert_allclose(recorded.quality, QUALITY)
    np.testing.assert_allclose(recorded.cost, COST)
    assert recorded.left_out == ()


def _convert(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args([str(each) for each in argv]))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize(("name", "body"), [("l.csv", TABLE), ("l.jsonl", LINES)])
def test_a_mark_of_the_encoding_is_no_text(
    tmp_path: Path, name: str, body: str, encoding: str
) -> None:
    """Seen on 5a5a85b: JSON lines with a byte-order mark lost their first row, UTF-16 all."""
    _read(tmp_path / name, body.encode(encoding))


def test_marks_are_taken_off_recordings_and_their_meta_files(tmp_path: Path) -> None:
    """Seen on 5a5a85b: "not JSON: JSON is malformed: invalid character (byte 0)"."""
    prices = {"a": {"input": 1, "output": 1}}
    meta = json.dumps({"models": ["a"], "usd_per_million_tokens": prices})
    (tmp_path / "r.meta.json").write_text(meta, encoding="utf-8-sig")
    row = json.dumps({"text": "x", "quality": [1], "cost": [0]})
    (tmp_path / "r.jsonl").write_text(row, encoding="utf-8-sig")
    assert len(load(tmp_path / "r.jsonl")) == 1


def test_what_is_not_known_may_be_written_as_nan_and_half_a_character_is_read(
    tmp_path: Path,
) -> None:
    """Seen on 5a5a85b: rows with NaN, which pandas and json.dumps write, were left out."""
    rows = [
        '{"query":"q","model":"a","quality":1,"cost_usd":0,"latency_s":NaN,"task":null}',
        '{"query":"q\\ud83d","model":"a","quality":1,"cost_usd":0,"in_tok":NaN}',
    ]
    (tmp_path / "l.jsonl").write_text("\n".join(rows))
    recorded = load_long(tmp_path / "l.jsonl")
    assert recorded.texts == ("q", "q\ufffd")
    assert (recorded.latency, recorded.left_out) == (None, ())


SCALES = [
    ([5, 1, 4, 2], "1 5", [1.0, 0.0, 0.75, 0.25]),
    ([100, 0, 50, 25], "0 100", [1.0, 0.0, 0.5, 0.25]),
    ([10, 7, 1, 5.5], "1 10", [1.0, 2 / 3, 0.0, 0.5]),
    ([-1, 1, 0, 1], "-1 1", [0.0, 1.0, 0.5, 1.0]),
]


@pytest.mark.parametrize(("given", "scale", "meant"), SCALES)
def test_ratings_of_another_scale_are_refused_until_it_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: list[float],
    scale: str,
    meant: list[float],
) -> None:
    """Seen on 5a5a85b: of stars 2 to 5 were left out, 1 was kept as quality 1, exit 0."""
    path = tmp_path / "l.csv"
    rows = [f"question {i},a,{value},0.001" for i, value in enumerate(given)]
    path.write_text("\n".join(["query,model,quality,cost_usd", *rows]))
    to = tmp_path / "o.jsonl"
    assert _convert(path, "--to", to) == 2
    assert f"--scale {scale} if" in capsys.readouterr().err
    assert not to.exists()
    assert _convert(path, "--to", to, "--scale", *scale.split()) == 0
    np.testing.assert_allclose(load(to).quality[:, 0], meant)
    with pytest.raises(BadRecording, match="must be a number from"):
        load_long(path, scale=Scale(2.0, 3.0))


def test_a_scale_may_fall_and_a_truth_is_on_none(tmp_path: Path) -> None:
    """Seen on 5a5a85b: there was no scale, and grades from 1, the best, were left out."""
    path = tmp_path / "l.csv"
    path.write_text("query,model,quality,cost_usd\nx,a,1,0\ny,a,6,0\n")
    assert load_long(path, scale=Scale(6.0, 1.0)).quality.tolist() == [[1.0], [0.0]]
    path.write_text("query,model,quality,cost_usd\nx,a,true,0\ny,a,5,0\n")
    with pytest.raises(BadRecording, match="must be a number from 1 to 5, got 'true'"):
        load_long(path, scale=Scale(1.0, 5.0))
    with pytest.raises(ValueError, match="two different numbers"):
        Scale(1.0, 1.0)


def test_a_wide_table_of_another_scale_is_refused_too(tmp_path: Path) -> None:
    """Seen on 5a5a85b: `load_routerbench` left such rows out."""
    path = tmp_path / "rb.csv"
    path.write_text("sample_id,prompt,m,m|total_cost\n1,x,1,0\n2,y,4,0\n3,z,5,0\n")
    with pytest.raises(BadRecording, match=r"2 of 3 rows .*convert --scale 1 5"):
        load_routerbench(path)
    assert load_routerbench(path, scale=Scale(1, 5)).quality.tolist() == [[0.0], [0.75], [1.0]]


@pytest.mark.parametrize(
    ("column", "value"),
    [("quality", "bad"), ("cost_usd", "-1"), ("cost_usd", "20000"), ("latency_s", "-1")],
)
def test_one_row_in_a_thousand_is_not_left_out_by_its_outcome(
    tmp_path: Path, column: str, value: str
) -> None:
    """Seen on 5a5a85b: whatever a row said of an answer, it could be left out for it."""
    path = tmp_path / "l.csv"
    row = {"quality": "1", "cost_usd": "0", "latency_s": "1"}
    rows = [f"q{i},a,{','.join(row.values())}" for i in range(999)]
    rows.append(f"q,a,{','.join((row | {column: value}).values())}")
    path.write_text("\n".join(["query,model,quality,cost_usd,latency_s", *rows]))
    with pytest.raises(BadRecording, match=f"csv:1001: {column}: .*1 of 1000 rows"):
        load_long(path, most_left_out=1.0)


def test_too_many_rows_that_are_left_out_refuse_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Seen on 5a5a85b: any share was left out, and the exit code was 0."""
    path = tmp_path / "l.csv"
    rows = ["query,model,quality,cost_usd", *(f"q{i},a,1,0" for i in range(8)), "x,a", "y,a,,0"]
    path.write_text("\n".join(rows))
    command = (path, "--to", tmp_path / "o.jsonl")
    assert _convert(*command) == 2
    assert "2 of 10 rows (20.0%) cannot be used; at most 10%" in capsys.readouterr().err
    assert _convert(*command, "--max-left-out", "0.2") == 0
    path.write_text("\n".join([*rows[:8], "x,a"]))
    assert _convert(*command) == 0  # one line that was cut
    assert _convert(*command, "--max-left-out", "0") == 2


def test_values_are_read_by_their_meaning_not_their_type(tmp_path: Path) -> None:
    """Seen on 5a5a85b: "no usable row, got Decimal('0.0010')" of a warehouse's Parquet."""
    ids = [UUID(int=1).bytes, UUID(int=2).bytes]
    table = pa.table(
        {
            "Query": pa.array([b"one", b"two"], pa.binary()),
            "model": pa.array([7, 7], pa.int32()),
            "quality": pa.array([Decimal("0.25"), None], pa.decimal128(6, 2)),
            "cost_usd": pa.array([Decimal("0.0010"), Decimal("0.0020")], pa.decimal128(12, 4)),
            "in_tok": pa.array([Decimal(12), None], pa.decimal128(6, 0)),
            "latency_s": pa.array(["1.5", "NaN"]),
            "task": pa.array(["x", "y"]).dictionary_encode(),
            "query_id": pa.array([id.hex() for id in ids]),
        }
    )
    pq.write_table(table, tmp_path / "l.parquet")
    recorded = load_long(tmp_path / "l.parquet")
    assert (recorded.texts, recorded.arms[0].id) == (("one",), "7")
    assert recorded.quality.tolist() == [[0.25]]
    assert recorded.cost.tolist() == [[0.001]]
    assert recorded.tokens.tolist() == [12]
    assert [str(bad) for bad in recorded.left_out] == ["l.parquet:2: quality: missing"]


@pytest.mark.parametrize(
    ("true", "false"), [("true", "false"), ("True", "False"), ("t", "f"), ("yes", "NO")]
)
def test_truths_are_qualities(tmp_path: Path, true: str, false: str) -> None:
    """Seen on 5a5a85b: t and f, as PostgreSQL writes them, and yes and no were left out."""
    path = tmp_path / "l.csv"
    path.write_text(f"query,model,quality,cost_usd\nx,a,{true},0\ny,a,{false},0\n")
    assert load_long(path).quality.tolist() == [[1.0], [0.0]]


TABLES = {
    "semicolons and decimal commas": TABLE.replace(",", ";").replace(".", ","),
    "tabs": TABLE.replace(",", "\t"),
    "tabs and decimal commas": TABLE.replace(",", "\t").replace(".", ","),
    "bars": TABLE.replace(",", "|"),
    "Excel's sep": "sep=;\r\n" + TABLE.replace(",", ";"),
    "Excel's sep=,": "sep=,\n" + TABLE,
    "blank lines first": "\r\n\n" + TABLE,
    "capitals and blanks": TABLE.replace("query,model", "Query, MODEL "),
    "empty columns at the end": TABLE.replace("\n", ",,\n").replace("usd,,", "usd"),
}


@pytest.mark.parametrize("body", TABLES.values(), ids=TABLES)
def test_tables_of_any_usual_form_are_read(tmp_path: Path, body: str) -> None:
    """Seen on 5a5a85b: refused with the header shown, "no column 'query'"."""
    _read(tmp_path / "l.csv", body)
    _read(tmp_path / "l.CSV", body.encode("utf-16"))


@pytest.mark.parametrize(
    ("end", "pack"),
    [
        (".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress),
        (".zst", lambda body: pa.compress(body, "zstd", asbytes=True)),
        ("", gzip.compress),
    ],
)  # fmt: skip
def test_packed_files_are_unpacked_whatever_their_name(tmp_path: Path, end: str, pack: Any) -> None:
    """Seen on 5a5a85b: only .gz, and only by its name."""
    _read(tmp_path / f"l.csv{end}", pack(TABLE.encode()))
    _read(tmp_path / f"l.ndjson{end}", pack(LINES.encode()))


def test_json_is_read_as_lines_or_as_one_list(tmp_path: Path) -> None:
    """Seen on 5a5a85b: .json and .ndjson were refused, and a list of rows was one bad line."""
    rows = [json.loads(line) for line in LINES.splitlines()]
    for name in ("l.json", "l.jsonl"):
        _read(tmp_path / name, json.dumps(rows, indent=1))
        _read(tmp_path / name, LINES)
    (tmp_path / "l.json").write_text(json.dumps({"query": {"0": "x"}, "model": {"0": "a"}}))
    with pytest.raises(BadRecording, match="orient='records'"):
        load_long(tmp_path / "l.json")


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("l.csv", TABLE.encode("latin-1"), "not UTF-8 (byte 0xe9); it may be Windows-1252"),
        ("l.jsonl", LINES.encode().replace(b"\\u00e9", b"\xe9"), "not UTF-8 (byte 0xe9)"),
        ("l.csv", b"PK\x03\x04...", "save the sheet as CSV"),
        ("l.csv", b"PAR1...", "let its name end in .parquet"),
        ("l.csv", TABLE.replace("cost_usd", "cost").encode(),
         "no column 'cost_usd'; did you mean cost?"),
        ("l.csv", b"question;model\n", "it has question, model (parted by semicolons)"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_in_the_refusal(
    tmp_path: Path, name: str, body: bytes, why: str
) -> None:
    """Seen on 5a5a85b: "'utf-8' codec can't decode byte", or a header as one column."""
    (tmp_path / name).write_bytes(body)
    with pytest.raises(BadRecording) as caught:
        load_long(tmp_path / name)
    assert why in str(caught.value)


@pytest.mark.parametrize("costs", [(0.0, 0.0), (0.0, 0.01), (0.01, 0.01)])
def test_a_degenerate_table_is_drawn(tmp_path: Path, costs: tuple[float, float]) -> None:
    """Seen on 5a5a85b: ValueError "Geometric sequence cannot include zero", all else lost."""
    needed("matplotlib")
    data = topics(60, arms=2)
    data.recorded.cost[:] = costs
    data.recorded.quality[:] = 1.0
    every = standard()
    routers = {name: every[name] for name in ("zero router", "oracle", "kNN")}
    rows = evaluate_offline(data, routers, seeds=(0,))
    assert all(path.stat().st_size for path in offline_plot(rows, data, "t", tmp_path))
    nothing: list[OfflineRow] = []
    assert all(path.stat().st_size for path in offline_plot(nothing, data, "t", tmp_path))


def test_a_plot_that_fails_loses_nothing_else() -> None:
    """Seen on 5a5a85b: plots were drawn before anything was written."""

    def broken() -> list[Path]:
        raise ZeroDivisionError("no width")

    report = Report(plot=broken)
    assert report.draw() == []
    assert report.warnings == ["a plot could not be drawn: ZeroDivisionError: no width"]


@pytest.mark.parametrize("value", ["-0.001", "-0.00001"])
@pytest.mark.parametrize("row", ["y,a,1,{},1", "y,a,1,0.1,{}"])
def test_what_is_measured_and_negative_is_no_rounding_of_zero(
    tmp_path: Path, row: str, value: str
) -> None:
    """Seen on e98ba34: a negative cost of up to a cent was taken for 0, and the model was free."""
    path = tmp_path / "l.csv"
    table = "query,model,quality,cost_usd,latency_s\nx,a,1,0.1,1\n"
    path.write_text(table + row.format(value))
    with pytest.raises(BadRecording, match=f"must be a number from 0 to .*, got '{value}'"):
        load_long(path)
    path.write_text(table + row.format("-1e-17"))
    assert len(load_long(path)) == 2


@pytest.mark.parametrize(
    ("given", "scale", "meant"),
    [
        (["50%", "100 %", "0%"], Scale(), [0.5, 1.0, 0.0]),
        (["50%", "100", "0"], Scale(0.0, 100.0), [0.5, 1.0, 0.0]),
        (["y", "N", "On"], Scale(), [1.0, 0.0, 1.0]),
    ],
)
def test_words_whose_meaning_is_plain_are_read(
    tmp_path: Path, given: list[str], scale: Scale, meant: list[float]
) -> None:
    """Seen on e98ba34: "must be a number from 0 to 1, got '50%'", and of Y and N only the rest."""
    path = tmp_path / "l.csv"
    rows = [f"question {i},a,{value},0.001" for i, value in enumerate(given)]
    path.write_text("\n".join(["query,model,quality,cost_usd", *rows]))
    np.testing.assert_allclose(load_long(path, scale=scale).quality[:, 0], meant)


def test_a_share_of_a_hundred_is_on_no_other_scale_and_infinity_on_none(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("query,model,quality,cost_usd\nx,a,50%,0\ny,a,5,0\n")
    with pytest.raises(BadRecording, match="must be a number from 1 to 5, got '50%'"):
        load_long(path, scale=Scale(1.0, 5.0))
    path.write_text("query,model,quality,cost_usd\nx,a,Infinity,0\ny,a,1,0\n")
    with pytest.raises(BadRecording, match=r"got 'Infinity'.* fix them"):
        load_long(path)


def test_a_length_of_time_is_its_seconds(tmp_path: Path) -> None:
    """Seen on e98ba34: "latency_s: must be a number, got datetime.timedelta(seconds=2)"."""
    columns = {"query": ["x"], "model": ["a"], "quality": [1], "cost_usd": [0.1]}
    waited = pa.array([timedelta(seconds=2)])
    pq.write_table(pa.table(columns | {"latency_s": waited}), tmp_path / "l.parquet")
    latency = load_long(tmp_path / "l.parquet").latency
    assert latency is not None
    assert latency.tolist() == [[2.0]]

"""Converting: a line per answer to the format of recordings, prices, and what is refused."""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.cli.commands import convert
from bandit_service.data.answer_logs import load_long
from bandit_service.data.convert import read_prices, write
from bandit_service.data.recordings import BadRecording, load
from tests.tools import imported
from tests.unit.data.recordings import planted

GOOD = {"query": "why?", "model": "a", "quality": 1, "cost_usd": 0.002}
PRICES = {"a": {"input": 1.0, "output": 2.0}, "b": {"input": 3.0, "output": 4.0}}


def _csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = path.open("w", newline="", encoding="utf-8")
    with text as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _jsonl(path: Path, rows: Sequence[Any]) -> Path:
    body = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n"
    path.write_bytes(gzip.compress(body.encode()) if path.suffix == ".gz" else body.encode())
    return path


def _run(*argv: object) -> int:
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    return convert.run(parser.parse_args([str(each) for each in argv]))


THREE = [
    {**GOOD, "query": "one,\ntwo", "task": "x", "in_tok": 7, "latency_s": 1.5},
    {**GOOD, "query": "one,\ntwo", "model": "b", "quality": 0.25, "cost_usd": 0},
    {**GOOD, "query": "three", "model": "b", "quality": 0.5},
]


@pytest.mark.parametrize("name", ["l.csv", "l.jsonl", "l.jsonl.gz", "l.parquet"])
def test_a_line_per_answer_becomes_a_row_per_query(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        _csv(path, THREE)
    elif name.endswith("parquet"):
        pa, pq = imported("pyarrow"), imported("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(THREE), path)
    else:
        _jsonl(path, THREE)
    recorded = load_long(path, PRICES)
    assert (recorded.name, recorded.left_out) == ("l", ())
    assert recorded.texts == ("one,\ntwo", "three")
    assert [arm.id for arm in recorded.arms] == ["a", "b"]
    assert recorded.tokens.tolist() == [7, 2]
    assert recorded.tasks == ("x", "")
    np.testing.assert_array_equal(recorded.quality, [[1.0, 0.25], [np.nan, 0.5]])
    np.testing.assert_array_equal(recorded.cost, [[0.002, 0.0], [np.nan, 0.002]])
    assert recorded.latency is not None
    np.testing.assert_array_equal(recorded.latency, [[1.5, np.nan], [np.nan, np.nan]])


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    original = load_long(_csv(tmp_path / "l.csv", THREE), PRICES)
    for to in (tmp_path / "new" / "n.jsonl.gz", tmp_path / "n.jsonl"):
        meta = write(original, to, {"source": "made"})
        assert json.loads(meta.read_text())["source"] == "made"
        again = load(to)
        for name in ("arms", "ids", "texts", "tasks", "left_out"):
            assert getattr(again, name) == getattr(original, name)
        for name in ("quality", "cost", "tokens", "latency"):
            np.testing.assert_array_equal(getattr(again, name), getattr(original, name))
        assert sorted(each.name for each in to.parent.glob("*partial*")) == []


def test_equal_recordings_are_equal_files(tmp_path: Path) -> None:
    recorded, _ = planted(30)
    write(recorded, tmp_path / "a.jsonl.gz")
    write(recorded, tmp_path / "b.jsonl.gz")
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


MALFORMED = [
    ("{", "not JSON"),
    ("[1]", "must be an object, got [1]"),
    ({**GOOD, "query": " "}, "query: must be a string that is not empty, got ' '"),
    ({**GOOD, "model": None}, "model: must be a string that is not empty, got None"),
    ({**GOOD, "model": "c", "quality": ""}, "quality: missing"),
    ({**GOOD, "model": "c", "cost_usd": None}, "cost_usd: missing"),
    ({**GOOD, "model": "c", "in_tok": 1.5}, "in_tok: must be a whole number from 0 up, got 1.5"),
    ({**GOOD, "model": "c", "task": [3]}, "task: must be a string, got [3]"),
    ({**GOOD, "model": "c", "query_id": 1.5}, "query_id: must be a string, got 1.5"),
    ({**GOOD, "query_id": "2", "query": "other"}, "'2' stands for another query in an earlier row"),
    ({**GOOD, "query_id": "2", "quality": 0}, "'a' already answered query '2'; the first"),
]


@pytest.mark.parametrize(("bad", "why"), MALFORMED, ids=[why for _, why in MALFORMED])
def test_a_malformed_line_is_left_out_with_its_number(tmp_path: Path, bad: Any, why: str) -> None:
    recorded = load_long(_jsonl(tmp_path / "l.jsonl", [{**GOOD, "query_id": 2}, "", bad]), None)
    (left_out,) = recorded.left_out
    assert (left_out.file, left_out.line) == ("l.jsonl", 3)
    assert why in left_out.reason
    assert recorded.quality.tolist() == [[1.0]]  # the first answer stays, and c has none


def test_a_csv_row_counts_where_it_begins_and_must_have_every_cell(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text(
        '\ufeffquery,model,quality,cost_usd\r\n"a\nb",m,1,0\r\n\r\nx,m,1\r\n"c\nd",m,,0\r\ny,m,true,1e-3\r\n'
    )
    recorded = load_long(path, most_left_out=0.5)
    assert recorded.texts == ("a\nb", "y")
    assert recorded.quality.tolist() == [[1.0], [1.0]]
    assert [(bad.line, bad.reason) for bad in recorded.left_out] == [
        (5, "must have 4 cells, got 3"),
        (6, "quality: missing"),
    ]


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("l.csv", b"\n \n", "l.csv: is empty; it needs the columns query, model, quality, "),
        ("l.csv", b"query,model,quality\nx,m,1\n", "no column 'cost_usd'; it has query, model,"),
        ("l.csv", b"query,model,quality,cost_usd,model\n", "duplicate column 'model'"),
        ("l.csv", b"query,model,quality,cost_usd\n", "no usable row"),
        (
            "l.csv",
            b"query,model,quality,cost_usd\nx,m,9,1\n",
            "l.csv:2: quality: must be a number from 0 to 1, got '9'; 1 of 1 rows",
        ),
        (
            "l.csv",
            b"query,model,quality,cost_usd\n\xff,m,1,1\n",
            "not UTF-8 (byte 0xff); it may be Windows-1252",
        ),
        ("l.jsonl.gz", b"no gzip", "cannot be read after line 0"),
        ("l.parquet", b"no parquet", "cannot be read as Parquet"),
        ("l.doc", b"", "must end in .csv"),
        ("l.xlsx", b"PK", "save the sheet as CSV"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_error_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, body: bytes, why: str
) -> None:
    path = tmp_path / name
    path.write_bytes(body)
    assert _run(path, "--to", tmp_path / "out.jsonl.gz") == 2
    assert why in capsys.readouterr().err
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_prices_are_estimated_so_that_costs_come_out_right_on_average(tmp_path: Path) -> None:
    rows = [
        {**GOOD, "query": "x" * 40, "cost_usd": 0.001, "out_tok": 90},
        {**GOOD, "query": "x" * 40, "model": "b", "cost_usd": 0.0062},
        {**GOOD, "query": "y", "cost_usd": 0.003, "in_tok": 100, "out_tok": 0},
    ]
    recorded = load_long(_jsonl(tmp_path / "l.jsonl", rows))
    # a: 0.004 USD over 10 + 90 + 100 + 0 tokens; b: over 10 and the 300 a new arm is taken to give
    assert [(a.id, a.usd_per_mtok_in, a.usd_per_mtok_out) for a in recorded.arms] == [
        ("a", 20.0, 20.0),
        ("b", 20.0, 20.0),
    ]


TOML = "[a]\ninput = 1\noutput = 2\n"


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("p.toml", TOML),
        ("p.json", json.dumps({"a": {"input": 1, "output": 2, "source": "list"}})),
        ("p.meta.json", json.dumps({"usd_per_million_tokens": {"a": {"input": 1, "output": 2}}})),
    ],
)
def test_prices_are_read_from_toml_json_and_meta_files(
    tmp_path: Path, name: str, body: str
) -> None:
    (tmp_path / name).write_text(body)
    assert read_prices(tmp_path / name) == {"a": {"input": 1.0, "output": 2.0}}


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("p.toml", "a = ", "neither JSON nor a .toml file"),
        ("p.json", "[]", "must be a map of models"),
        ("p.json", '{"a": 1}', "a: input: must be USD per million tokens, a number from 0 up, got"),
        ("p.json", '{"a": {"input": 1, "output": -1}}', "a: output: must be USD"),
        ("p.json", '{"a": {"input": 1, "output": 1}}', "prices: no price for 'b'"),
    ],
)
def test_prices_that_cannot_be_used_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, body: str, why: str
) -> None:
    (tmp_path / name).write_text(body)
    logs = _csv(tmp_path / "l.csv", THREE)
    assert _run(logs, "--to", tmp_path / "o.jsonl", "--prices", tmp_path / name) == 2
    assert why in capsys.readouterr().err
    assert not (tmp_path / "o.jsonl").exists()


def test_the_command_tells_what_it_left_out_and_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = _csv(tmp_path / "l.csv", [*THREE, THREE[0]])
    assert _run(logs, "--to", tmp_path / "o.jsonl.gz") == 0
    out, err = capsys.readouterr()
    assert "l.csv:7: model: 'a' already answered" in err
    assert "2 queries, 2 models, 3 answers" in out
    assert "prices estimated" in out
    meta = json.loads((tmp_path / "o.meta.json").read_text())
    assert (meta["left_out"], meta["queries"]) == (1, 2)
    assert len(load(tmp_path / "o.jsonl.gz")) == 2


def test_a_name_that_recordings_do_not_have_is_refused_before_reading(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(tmp_path / "nowhere.csv", "--to", tmp_path / "o.txt") == 2
    assert "must be named NAME.jsonl.gz or NAME.jsonl" in capsys.readouterr().err
    with pytest.raises(BadRecording, match="no such file"):
        load_long(tmp_path / "nowhere.csv")


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["p", "q", "r"]),
            st.sampled_from(["a", "b"]),
            st.floats(0, 1),
            st.floats(0, 10_000),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_first_answer_of_each_model_to_each_query_is_kept_and_the_others_counted(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[str, str, float, float]]
) -> None:
    rows = [dict(zip(GOOD, answer, strict=True)) for answer in answers]
    path = _jsonl(tmp_path_factory.mktemp("l") / "l.jsonl", rows)
    recorded = load_long(path, PRICES, most_left_out=1.0)
    first: dict[tuple[str, str], tuple[float, float]] = {}
    for query, model, quality, cost in answers:
        first.setdefault((query, model), (quality, cost))
    kept = {
        (recorded.texts[i], recorded.arms[k].id): (recorded.quality[i, k], recorded.cost[i, k])
        for i, k in zip(*np.nonzero(~np.isnan(recorded.quality)), strict=True)
    }
    assert kept == first
    assert len(recorded.left_out) == len(answers) - len(first)

"""RouterBench's table: pickled or CSV, and pickles that want more than a table."""

from __future__ import annotations

import builtins
import io
import os
import pickle  # noqa: TID251 - to make what must be refused
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.data.frames import BadFrame, read_frame
from bandit_service.data.recordings import BadRecording, Recorded
from bandit_service.data.routerbench import load_routerbench, looks_like
from tests.tools import imported

pd = imported("pandas")

ROWS: dict[str, list[Any]] = {
    "sample_id": ["mmlu.0", "mmlu.1", "mtbench.2"],
    "prompt": ["['Is it\\nso?']", "plain [text]", "['Name a river.', 'Another?']"],
    "eval_name": ["mmlu", "mmlu", "mtbench"],
    "org/big": [1.0, 0.0, 0.5],
    "small": [True, False, True],
    "org/big|model_response": ["['yes']", "no" * 18, "x" * 8],
    "small|model_response": ["y", "n", "z"],
    "org/big|total_cost": [0.002, 0.001, 0.003],
    "small|total_cost": [1e-5, 2e-5, 0.0],
    "oracle_model_to_route_to": ["small", "no_model_correct", "small"],
}


def _write(path: Path, **changed: list[Any]) -> Path:
    frame = pd.DataFrame({**ROWS, **changed})
    if path.suffix == ".pkl":
        frame.to_pickle(path)
    else:
        frame.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("name", ["rb.pkl", "rb.csv"])
def test_the_table_is_read_with_turns_joined(tmp_path: Path, name: str) -> None:
    recorded = load_routerbench(_write(tmp_path / name), None)
    assert (recorded.name, recorded.left_out) == ("rb", ())
    assert recorded.ids == ("mmlu.0", "mmlu.1", "mtbench.2")
    assert recorded.texts == ("Is it\nso?", "plain [text]", "Name a river.\nAnother?")
    assert recorded.tasks == ("mmlu", "mmlu", "mtbench")
    assert [arm.id for arm in recorded.arms] == ["org/big", "small"]
    assert recorded.quality.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.5, 1.0]]
    assert recorded.cost.tolist() == [[0.002, 1e-5], [0.001, 2e-5], [0.003, 0.0]]


def test_prices_are_those_given_or_cost_over_tokens(tmp_path: Path) -> None:
    path = _write(tmp_path / "rb.pkl")
    given = {name: {"input": 1.0, "output": 2.0} for name in ("org/big", "small")}
    assert {arm.usd_per_mtok_out for arm in load_routerbench(path, given).arms} == {2.0}
    # prompts of 9, 12 and 22 characters, answers of 7, 36 and 8: 3 + 3 + 6 + 2 + 9 + 2 tokens
    big, _ = load_routerbench(path, None).arms
    assert big.usd_per_mtok_in == big.usd_per_mtok_out == 240.0
    with pytest.raises(BadRecording, match="prices: no price for 'small'"):
        load_routerbench(path, {"org/big": given["small"]})


@pytest.mark.parametrize("name", ["rb.pkl", "rb.csv"])
@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("org/big|total_cost", [0.1, None, 0.1], "org/big|total_cost: missing, but the score is"),
        ("prompt", ["a", "", "b"], "prompt: must be a text or a list of texts"),
        ("sample_id", ["a", "a", "b"], "sample_id: duplicate id 'a'"),
    ],
)
def test_a_malformed_row_is_left_out_with_its_number(
    tmp_path: Path, name: str, column: str, values: list[Any], why: str
) -> None:
    recorded = load_routerbench(_write(tmp_path / name, **{column: values}), None)
    assert len(recorded) == 2
    (left_out,) = recorded.left_out
    assert (left_out.file, left_out.line) == (name, 2 if name == "rb.pkl" else 3)
    assert why in left_out.reason


@pytest.mark.parametrize("name", ["rb.pkl", "rb.csv"])
@pytest.mark.parametrize(
    ("column", "values", "why"),
    [
        ("org/big", [1.0, 1.5, 0.5], "org/big: must be a number from 0 to 1, got "),
        ("org/big|total_cost", [0.1, -1.0, 0.1], "org/big|total_cost: must be a number from 0 to"),
    ],
)
def test_an_outcome_that_cannot_be_taken_refuses_the_file(
    tmp_path: Path, name: str, column: str, values: list[Any], why: str
) -> None:
    with pytest.raises(BadRecording) as caught:
        load_routerbench(_write(tmp_path / name, **{column: values}), None)
    assert why in str(caught.value)
    assert "1 of 3 rows" in str(caught.value)


@pytest.mark.parametrize("name", ["rb.pkl", "rb.csv"])
def test_a_missing_score_is_an_answer_that_is_missing(tmp_path: Path, name: str) -> None:
    recorded = load_routerbench(_write(tmp_path / name, **{"org/big": [1.0, None, 0.5]}), None)
    assert np.isnan(recorded.quality).tolist() == [[False] * 2, [True, False], [False] * 2]
    np.testing.assert_array_equal(np.isnan(recorded.cost), np.isnan(recorded.quality))


def test_prompts_may_be_lists_as_they_are(tmp_path: Path) -> None:
    path = _write(tmp_path / "rb.pkl", prompt=[["a", "b"], ["c"], "[1, 2]"])
    assert load_routerbench(path, None).texts == ("a\nb", "c", "[1, 2]")


def test_a_prompt_that_only_looks_like_a_list_is_text(tmp_path: Path) -> None:
    prompts = ["[\\d and (", "[" * 5000 + "]" * 5000, "[]"]
    assert load_routerbench(_write(tmp_path / "rb.csv", prompt=prompts), None).texts == tuple(
        prompts
    )


@pytest.mark.parametrize("name", ["rb.pkl", "rb.csv"])
@pytest.mark.parametrize(
    ("gone", "why"),
    [
        ("prompt", "no column 'prompt', which RouterBench has"),
        ("org/big", "column 'org/big' of model 'org/big' is missing"),
        ("small|total_cost", "column 'small|total_cost' of model 'small' is missing"),
    ],
)
def test_a_table_of_another_layout_is_refused(
    tmp_path: Path, name: str, gone: str, why: str
) -> None:
    frame = pd.DataFrame(ROWS).drop(columns=gone)
    path = tmp_path / name
    if name == "rb.pkl":
        frame.to_pickle(path)
    else:
        frame.to_csv(path)
    with pytest.raises(BadRecording) as caught:
        load_routerbench(path, None)
    assert why in str(caught.value)


def test_the_layout_is_told_from_the_header(tmp_path: Path) -> None:
    assert looks_like(_write(tmp_path / "rb.csv"))
    (tmp_path / "long.csv").write_text("query,model,quality,cost_usd\n")
    assert not looks_like(tmp_path / "long.csv")
    assert not looks_like(tmp_path / "long.parquet")


# --- pickles ------------------------------------------------------------------------------


def _frames() -> dict[str, Callable[[], Any]]:
    def objects() -> Any:
        return pd.DataFrame(ROWS).astype({"prompt": object, "sample_id": object})

    return {
        "as pandas makes it": lambda: pd.DataFrame(ROWS),
        "strings as objects": objects,
        "rows left out": lambda: pd.DataFrame(ROWS).iloc[[2, 0]],
        "columns moved": lambda: pd.DataFrame(ROWS)[list(ROWS)[::-1]],
        "of an array": lambda: pd.DataFrame(np.arange(6.0).reshape(2, 3), columns=list("abc")),
        "of an array on its side": lambda: pd.DataFrame(
            np.arange(6.0).reshape(3, 2).T, columns=list("abc")
        ),
        "lists inside": lambda: pd.DataFrame({"a": [["x"], [np.float64(0.5)]], "b": [1, 2]}),
        "string dtype": lambda: pd.DataFrame({"a": pd.array(["x", None, "ü"], dtype="string")}),
        "strings in Python": lambda: pd.DataFrame(
            {"a": pd.array(["x", None], dtype=pd.StringDtype("python"))}
        ),
    }


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", _frames())
def test_a_pickled_frame_is_read_as_pandas_reads_it(
    tmp_path: Path, name: str, protocol: int
) -> None:
    frame = _frames()[name]()
    frame.to_pickle(tmp_path / "f.pkl", protocol=protocol)
    found = read_frame(tmp_path / "f.pkl")
    assert list(found) == list(frame.columns)
    for column, values in found.items():
        expected = [None if each is pd.NA else each for each in frame[column].tolist()]
        assert [None if each != each else each for each in values] == expected


class _Runs:
    """Its pickle calls a function with arguments."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.called = function, args

    def __reduce__(self) -> Any:
        return self.called


def _global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (os.system, "touch {marker}", f"{os.system.__module__}.system"),
        (builtins.eval, "open('{marker}', 'w')", "builtins.eval"),
        (builtins.getattr, "{marker}", "builtins.getattr"),
        (io.open, "{marker}", "open"),
        (np.load, "{marker}", "numpy.load"),
        (pd.read_pickle, "{marker}", "pandas.read_pickle"),
        (pd.eval, "{marker}", "pandas.eval"),
    ],
)
def test_a_pickle_that_would_run_code_does_not_and_says_what(
    tmp_path: Path, function: Any, args: str, named: str
) -> None:
    marker, path = tmp_path / "marker", tmp_path / "rb.pkl"
    inside = _Runs(function, args.format(marker=marker))
    path.write_bytes(pickle.dumps(pd.DataFrame({**ROWS, "extra": [inside, 1, 2]})))
    with pytest.raises(BadRecording, match=named.replace(".", r"\.")) as caught:
        load_routerbench(path, None)
    assert "which a table does not need" in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "names",
    [
        ("pandas", "BlockManager"),
        ("pandas", "Index"),
        ("pandas", "_new_Index"),
        ("pandas", "DataFrame"),
        ("numpy", "dtype"),
    ],
)
def test_a_pickle_cannot_change_what_it_names(tmp_path: Path, names: tuple[str, str]) -> None:
    state = b"(N}X\x01\x00\x00\x00xK\x01stb."  # attributes for slots: (None, {"x": 1})
    (tmp_path / "f.pkl").write_bytes(b"\x80\x02" + _global(*names) + state)
    with pytest.raises(BadFrame):
        read_frame(tmp_path / "f.pkl")
    frame = pd.DataFrame(ROWS)
    frame.to_pickle(tmp_path / "g.pkl")
    assert list(read_frame(tmp_path / "g.pkl")) == list(ROWS)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "not a pickled DataFrame"),
        (b"no pickle", "not a pickled DataFrame"),
        (pickle.dumps({"a": 1}), "must hold a DataFrame, got dict"),
        (pickle.dumps(pd.Series([1])), "names pandas"),
        (pickle.dumps(pd.DataFrame({"t": pd.to_datetime(["2020-01-01"])})), "DatetimeArray"),
        (pickle.dumps(pd.DataFrame(ROWS))[:-200], "not a pickled DataFrame"),
        (b"\x80\x02" + _global("pandas", "DataFrame") + b")\x81.", "no blocks"),
        (b"\x80\x02" + _global("_codecs", "encode")
         + b"X\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "encodes in 'hex'"),
        (b"\x80\x02" + b"X\x01\x00\x00\x00aQ.", "not a pickled DataFrame"),
    ],
)  # fmt: skip
def test_what_is_no_pickled_table_is_refused(tmp_path: Path, body: bytes, why: str) -> None:
    path = tmp_path / "rb.pkl"
    path.write_bytes(body)
    with pytest.raises(BadRecording, match=r"rb\.pkl") as caught:
        load_routerbench(path, None)
    assert why in str(caught.value)


def test_broken_arrow_offsets_do_not_reach_beyond_their_buffers() -> None:
    from bandit_service.data.frames import _arrow

    def strings(offsets: list[int], length: int, start: int = 0) -> list[str | None]:
        data = (
            "large_string",
            length,
            0,
            start,
            [None, np.array(offsets, "<i8").tobytes(), b"abc"],
        )
        return _arrow((*data, [], None))

    assert strings([0, 1, 3], 2) == ["a", "bc"]
    assert strings([0, 1, 3], 1, 1) == ["bc"]
    assert strings([0, 1, 10**9], 2) == ["a", "bc"]
    for offsets, length in ([0, 3, 1], 2), ([-2, 1], 1), ([0, 1], 5):
        with pytest.raises(BadFrame, match="broken offsets"):
            strings(offsets, length)


def test_reading_a_file_that_is_not_there(tmp_path: Path) -> None:
    def reads(path: Path) -> Recorded:
        return load_routerbench(path, None)

    with pytest.raises(BadRecording, match="no such file"):
        reads(tmp_path / "rb.pkl")
    (tmp_path / "rb.txt").write_text("")
    with pytest.raises(BadRecording, match=r"must end in \.pkl"):
        reads(tmp_path / "rb.txt")

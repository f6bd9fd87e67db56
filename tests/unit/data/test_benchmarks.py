"""`convert --from` a published benchmark, on small files of the formats that are published."""

from __future__ import annotations

import json
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import pytest

from bandit_service.cli.main import main
from bandit_service.data import benchmarks
from bandit_service.data.benchmarks import _tokens
from bandit_service.data.benchmarks.zeroeval import answer_in, equal
from bandit_service.data.recordings import open_recording

GSM8K = (
    "prompt,mixtral-8x7b-instruct-v0.1,gpt-4-1106-preview,mixtral-8x7b-instruct-v0.1_response,"
    "gpt-4-1106-preview_response\n"
    '"Two ducks lay 3 eggs each.\nHow many?",True,True,"2 * 3 = 6\n#### 6","Six."\n'
    "A robe takes 2 bolts. How many do two?,False,True,Three.,Four.\n"
)
ALGEBRA = (
    "prompt,mixtral-8x7b-instruct-v0.1,gpt-4-1106-preview\n"
    '"The inverse of -i is\nA. 1\nB. -1\nC. i\nD. -i\nAnswer:",False,True\n'
)
MODELS = ("gemma-2-9b-it", "qwen2.5-7b-instruct")
DCROUTER = [
    {"question": "Who wrote Faust?", "scores": dict(zip(MODELS, (1.0, 0.25), strict=True))},
    {"question": "And Hamlet?", "scores": dict(zip(MODELS, (0.0, 1.0), strict=True))},
]


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiktoken whose tokens are words, so that costs can be counted by hand."""
    told = types.SimpleNamespace(encode=lambda text, disallowed_special: text.split())
    fake = types.ModuleType("tiktoken")
    fake.get_encoding = lambda name: told  # type: ignore[attr-defined]
    fake.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "tiktoken", fake)
    _tokens.counting.cache_clear()


def _rows(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """quality and cost of each model, by query id."""
    found = open_recording(str(path))
    ids = [arm.id for arm in found.arms]
    return {
        id: {
            arm: {"quality": float(found.quality[i][k]), "cost": float(found.cost[i][k])}
            for k, arm in enumerate(ids)
        }
        for i, id in enumerate(found.ids)
    }


def _converted(kind: str, to: Path, *paths: Path) -> dict[str, dict[str, dict[str, float]]]:
    first, *more = map(str, paths)
    words = ["convert", first, *(w for each in more for w in ("--with", each))]
    assert main([*words, "--from", kind, "--to", str(to)]) == 0
    return _rows(to)


def test_routellm(tmp_path: Path) -> None:
    gsm, mmlu = tmp_path / "gsm8k_responses.csv", tmp_path / "mmlu_abstract_algebra.csv"
    gsm.write_text(GSM8K)
    mmlu.write_text(ALGEBRA)
    rows = _converted("routellm", tmp_path / "routellm.jsonl.gz", gsm, mmlu)
    assert list(rows) == [
        "routellm-gsm8k-0",
        "routellm-gsm8k-1",
        "routellm-abstract_algebra-0",
    ]
    ducks = rows["routellm-gsm8k-0"]  # 8 words asked; 1 and 7 answered
    assert ducks["gpt-4-1106-preview"] == {"quality": 1.0, "cost": 0.00011}
    assert ducks["mixtral-8x7b-instruct"]["cost"] == pytest.approx((8 + 7) * 0.6e-6, rel=1e-3)
    inverse = rows["routellm-abstract_algebra-0"]
    assert (inverse["mixtral-8x7b-instruct"]["quality"]) == 0.0
    assert inverse["gpt-4-1106-preview"]["cost"] == pytest.approx(14e-6 * 10 + 1e-6 * 30, rel=1e-3)
    meta = json.loads((tmp_path / "routellm.meta.json").read_text())
    assert meta["licence"] == "Apache-2.0"
    assert meta["source"] == "https://github.com/lm-sys/RouteLLM"
    assert (meta["tokens"], meta["prices"]) == ("cl100k_base", "list prices of 2024")
    assert meta["usd_per_million_tokens"]["gpt-4-1106-preview"] == {"input": 10.0, "output": 30.0}


def test_llmrouter_by_its_directory(tmp_path: Path) -> None:
    source = tmp_path / "dcrouter_preprocessed"
    source.mkdir()
    (source / "train.json").write_text(json.dumps(DCROUTER))
    (source / "test.json").write_text(json.dumps(DCROUTER[:1]).replace("Faust", "Egmont"))
    rows = _converted("llmrouter", tmp_path / "nvmix.jsonl.gz", source)
    assert list(rows) == ["nvmix-test-0", "nvmix-train-0", "nvmix-train-1"]
    assert rows["nvmix-train-0"]["qwen2.5-7b-instruct"]["quality"] == 0.25
    assert rows["nvmix-train-0"]["gemma-2-9b-it"]["cost"] == pytest.approx(203 * 0.1e-6, rel=1e-3)


def _mmlu(id: int, answer: str, **said: Any) -> dict[str, Any]:
    return {
        "question_id": id, "question": "Which?", "options": ["this", "that"], "answer": answer,
        "category": "law", **said,
    }  # fmt: skip


def test_mmlu_pro_of_zips_and_json(tmp_path: Path) -> None:
    zipped = tmp_path / "model_outputs_Meta-Llama-3_1-70B-Instruct_5shots.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        right = [
            _mmlu(7, "A", model_outputs="the answer is (A)."),
            _mmlu(8, "B", pred="A", response="x"),
        ]
        archive.writestr("out/result.json", json.dumps(right))
        archive.writestr("__MACOSX/out/._result.json", b"\0Mac OS X")
    other = tmp_path / "model_outputs_yi-6b-chat_5shots.json"
    none = [_mmlu(7, "A", pred=None, response="no idea"), _mmlu(8, "B", model_outputs="Answer: B")]
    other.write_text(json.dumps(none))
    (tmp_path / "business_summary.json").write_text("{}")  # beside them, and of no use
    unpriced = tmp_path / "model_outputs_Llama-2-7b-hf_5shots.json"
    unpriced.write_text(json.dumps(none))
    assert unpriced.exists()
    rows = _converted("mmlu-pro", tmp_path / "out" / "mmlupro.jsonl.gz", tmp_path)
    assert list(rows) == ["mmlupro-7", "mmlupro-8"]
    assert [rows[id]["llama-3.1-70b-instruct"]["quality"] for id in rows] == [1.0, 0.0]
    assert [rows[id]["yi-6b-chat"]["quality"] for id in rows] == [0.0, 1.0]
    assert set(rows["mmlupro-7"]) == {"llama-3.1-70b-instruct", "yi-6b-chat"}
    # Which? A. this B. that: five words; the answer is (A).: four
    assert rows["mmlupro-7"]["llama-3.1-70b-instruct"]["cost"] == pytest.approx(
        9 * 0.88e-6, rel=1e-3
    )


def test_zeroeval_of_its_tasks(tmp_path: Path) -> None:
    def put(task: str, model: str, *items: tuple[str, str]) -> None:
        path = tmp_path / "result_dirs" / task / f"{model}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {
                "id": f"{task}8k-main-test-#{i}",
                "question": f"Q {task} {i}",
                "answer": key,
                "output": [f"```json\n{said}\n```"],
            }
            for i, (key, said) in enumerate(items)
        ]
        path.write_text(json.dumps(rows))

    put("gsm", "gpt-4o-2024-08-06", ("# 18", '{"reasoning": "r", "answer": "$18.00"}'), ("3", "4"))
    put("gsm", "Meta-Llama-3.1-8B-Instruct", ("18", 'so "answer": 17}'), ("3", r"\boxed{3}"))
    put(
        "crux", "gpt-4o-2024-08-06", ("'ab'", '{"answer": "ab"}'), ("[1, 2]", '{"answer": "[1,2]"}')
    )
    put("gsm/sampling", "gpt-4o-2024-08-06", ("18", "0"))  # another run, which is not asked for
    tasks = [tmp_path / "result_dirs" / task for task in ("crux", "gsm")]
    rows = _converted("zeroeval", tmp_path / "zeroeval.jsonl.gz", *tasks)
    assert list(rows) == ["zeroeval-crux-0", "zeroeval-crux-1", "zeroeval-gsm-0", "zeroeval-gsm-1"]
    assert [each["gpt-4o-2024-08-06"]["quality"] for each in rows.values()] == [1, 1, 1, 0]
    small = [rows[f"zeroeval-gsm-{i}"]["llama-3.1-8b-instruct"]["quality"] for i in (0, 1)]
    assert small == [0.0, 1.0]


@pytest.mark.parametrize(
    ("said", "key", "right"),
    [
        ('{"answer": "1/3"}', "0.33333", True),
        ('{"answer": "1/3"}', "0.3335", False),
        (r"\boxed{\frac{1}{2}}", "0.5", True),
        (r"\boxed{\sqrt{12}}", "12", False),
        (r'{"answer": "\frac{1}{x}"}', r"\frac{1}{x}", True),  # read as a form feed
        (r'{"reasoning": "\(", "answer": "\\frac{1}{x}"}', r"\frac{1}{x}", True),  # no JSON
        (r"thus \boxed{x^2}", "x ^ 2", True),
        ('{"answer": "12 eggs"}', "12", True),
        ('{"answer": "1e999"}', "1", False),
        ("no answer at all", "0", False),
        ('{"answer": ' + "[" * 100_000, "0", False),
        ('{"answer": ""}', "", False),
    ],
)
def test_an_answer_is_the_key_or_is_not(said: str, key: str, right: bool) -> None:
    assert equal(answer_in(said), key) is right


@pytest.mark.parametrize(
    ("kind", "name", "text", "says"),
    [
        ("routellm", "a.csv", "query,x\n1,True\n", "no column 'prompt'"),
        ("routellm", "a.csv", "prompt,gpt-4-1106-preview\nWhy?,7\n", "a number from 0 to 1"),
        ("llmrouter", "train.json", '[{"question": 3, "scores": []}]', "must have question"),
        ("llmrouter", "train.json", '[{"question": "Why?", "scores": {"gemma-2-9b-it": 2}}]',
         "a number from 0 to 1"),
        ("mmlu-pro", "model_outputs_x_5shots.json", "{}", "must be a list of objects"),
        ("mmlu-pro", "model_outputs_x_5shots.zip", "no zip", "cannot be read"),
        ("mmlu-pro", "yi-6b-chat.json", '[{"question": "Why?"}]', "not a question of MMLU-Pro"),
        ("mmlu-pro", "missing.json", None, "no such file"),
        ("zeroeval", "gpt-4o-2024-08-06.json", '[{"question": "Q", "answer": "1", "output": []}]',
         "a list of strings"),
    ],
)  # fmt: skip
def test_what_is_not_of_the_format_is_refused_and_nothing_is_written(
    tmp_path: Path,
    kind: str,
    name: str,
    text: str | None,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, to = tmp_path / name, tmp_path / "out.jsonl.gz"
    if text is not None:
        path.write_text(text)
    assert main(["convert", str(path), "--from", kind, "--to", str(to)]) == 2
    assert says in capsys.readouterr().err
    assert not to.exists()


def test_a_directory_without_files_and_options_of_exports_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--to", str(tmp_path / "out.jsonl.gz")]
    assert main(["convert", str(tmp_path), "--from", "zeroeval", *to]) == 2
    assert "has no *.json" in capsys.readouterr().err
    assert main(["convert", str(tmp_path), "--from", "zeroeval", "--metric", "x", *to]) == 2
    assert "--metric: is not of benchmarks" in capsys.readouterr().err


def test_without_tiktoken_tokens_are_estimated_and_the_file_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _tokens.counting.cache_clear()
    assert "estimated" in benchmarks.about("zeroeval")["tokens"]


def test_the_data_command_knows_a_file_by_its_bytes(tmp_path: Path) -> None:
    specialists = Path(benchmarks.__file__).parents[1] / "specialists" / "specialists.jsonl.gz"
    copy = tmp_path / "another-name.gz"
    copy.write_bytes(specialists.read_bytes())
    changed = tmp_path / "nvmix.jsonl.gz"
    changed.write_bytes(b"other")
    command = [sys.executable, "-m", "bandit_service.cli", "data", "check"]
    good = subprocess.run([*command, str(copy)], capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout == f"{copy}: is specialists.jsonl.gz of the results, to the byte\n"
    bad = subprocess.run([*command, str(copy), str(changed)], capture_output=True, text=True)
    assert bad.returncode == 1
    assert "differs from nvmix.jsonl.gz of the results: 5 bytes and SHA-256 d9298a1" in bad.stdout
    none = subprocess.run([*command, str(tmp_path / "none")], capture_output=True, text=True)
    assert none.returncode == 2
    assert none.stderr == f"bandit-service: {tmp_path / 'none'}: No such file or directory\n"

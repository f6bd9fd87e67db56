"""Other tools' exports as recordings: what is joined, what is left out and why, what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bandit_service.cli import main
from bandit_service.data import exports
from bandit_service.data.recorded import Recorded
from bandit_service.data.rows import BadRecording, Scale

PRICES = {"small": {"input": 1.0, "output": 2.0}, "large": {"input": 10.0, "output": 20.0}}


def _lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def _asked(text: str) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def _reasons(recorded: Recorded) -> list[str]:
    return [bad.reason for bad in recorded.left_out]


# --- Langfuse


def _generation(id: str, trace: str, model: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id, "traceId": trace, "type": "GENERATION", "model": model, "input": _asked(text),
        "startTime": "2026-01-02T03:04:05.000Z", "endTime": "2026-01-02T03:04:06.500Z",
        "usageDetails": {"input": 100, "output": 10, "total": 110},
        "costDetails": {"total": 0.002}, "level": "DEFAULT", **more,
    }  # fmt: skip


def _score(value: Any, name: str = "helpful", **about: str) -> dict[str, Any]:
    return {"id": "s", "name": name, "value": value, "dataType": "NUMERIC", **about}


def test_langfuse_generations_with_scores_of_them_and_of_their_traces(tmp_path: Path) -> None:
    observations = _lines(
        tmp_path / "observations.jsonl",
        _generation("g1", "t1", "small", "Why?"),
        _generation("g2", "t2", "large", "Why?", costDetails={}, calculatedTotalCost=0.03),
        _generation("g3", "t3", "large", "Two of one trace"),
        _generation("g4", "t3", "small", "Two of one trace"),
        _generation("g5", "t5", "small", "Nobody said how good"),
        _generation("g6", "t6", "small", "It broke", level="ERROR"),
        {"id": "x", "traceId": "t1", "type": "SPAN", "name": "retrieve"},
    )
    scores = _lines(
        tmp_path / "scores.jsonl",
        _score(0.25, observationId="g1", traceId="t1"),
        _score(1, traceId="t2"),
        _score(1, traceId="t3"),
        _score(0.5, observationId="g4", traceId="t3"),
        _score(3, "length", traceId="t1"),
        {**_score(None, traceId="t1"), "dataType": "CATEGORICAL", "stringValue": "good"},
    )
    found = exports.load("langfuse", [observations, scores], metric="helpful")
    assert found.texts == ("Why?", "Two of one trace")
    assert [arm.id for arm in found.arms] == ["large", "small"]
    assert np.array_equal(found.quality, [[1.0, 0.25], [np.nan, 0.5]], equal_nan=True)
    assert np.array_equal(found.cost, [[0.03, 0.002], [np.nan, 0.002]], equal_nan=True)
    assert found.latency is not None
    assert found.latency[0, 1] == 1.5
    assert found.tokens[0] == 100
    assert sorted(_reasons(found)) == [
        "helpful: no score",
        "helpful: the score is for a whole that has several calls",
        "level: the call failed",
        "score: 'helpful' is not a number",
        "type: not a generation: span",
    ]


def test_langfuse_as_its_api_pages_and_with_the_names_of_its_exports(tmp_path: Path) -> None:
    trace = {
        "id": "t", "name": "answer", "observations": [_generation("g", "t", "small", "Paged?")],
        "scores": [_score(1, traceId="t")],
    }  # fmt: skip
    page = tmp_path / "page.json"
    page.write_text(json.dumps({"data": [trace], "meta": {"page": 1}}), encoding="utf-8")
    assert exports.load("langfuse", [page]).texts == ("Paged?",)
    table = tmp_path / "observations.csv"
    row = {
        "id": "g", "trace_id": "t", "type": "GENERATION", "provided_model_name": "small",
        "input": json.dumps({"messages": _asked("Exported?")}), "total_cost": "0.5",
        "usage_details": '{"input": 7, "output": 8}', "start_time": "2026-01-02 03:04:05.0",
        "end_time": "2026-01-02 03:04:07.0",
    }  # fmt: skip
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, list(row))
        rows.writeheader()
        rows.writerow(row)
    scores = tmp_path / "mine.csv"
    scores.write_text("id,quality\ng,1\n", encoding="utf-8")
    found = exports.load("langfuse", [table], scores=scores)
    assert (found.texts, found.cost.tolist(), found.tokens.tolist()) == (
        ("Exported?",), [[0.5]], [7]
    )  # fmt: skip
    assert found.latency is not None
    assert found.latency.tolist() == [[2.0]]


# --- LiteLLM


def _spent(id: str, model: str, text: str, **more: Any) -> dict[str, Any]:
    return {
        "request_id": id, "call_type": "acompletion", "model": model, "spend": 0.01,
        "prompt_tokens": 9, "completion_tokens": 4, "messages": _asked(text),
        "startTime": "2026-01-02 03:04:05.123", "endTime": "2026-01-02 03:04:05.623",
        "response": {"id": f"chatcmpl-{id}"}, "status": "success", "cache_hit": "False", **more,
    }  # fmt: skip


def test_litellm_spend_logs_with_a_table_of_scores(tmp_path: Path) -> None:
    logs = _lines(
        tmp_path / "spend.jsonl",
        _spent("1", "small", "Same"),
        _spent("2", "large", "Same"),
        _spent("3", "small", "Same"),
        _spent("4", "small", "", messages=json.dumps(_asked("As text"))),
        _spent("5", "small", "Cached", cache_hit="True"),
        _spent("6", "small", "Failed", status="failure"),
        _spent("7", "embed", "Vector", call_type="aembedding"),
        _spent("8", "small", "", messages={}, proxy_server_request={"messages": _asked("Newer")}),
    )
    scores = tmp_path / "scores.csv"
    said = "".join(f"{id},{value}\n" for id, value in
                   (("1", 1), ("chatcmpl-2", 0), ("3", 0), ("4", 1), ("8", 1)))  # fmt: skip
    scores.write_text(f"id,quality\n{said}", encoding="utf-8")
    found = exports.load("litellm", [logs], scores=scores)
    assert sorted(zip(found.texts, found.quality.tolist(), strict=True))[-2:] == [
        ("Same", [0.0, 1.0]), ("Same", pytest.approx([np.nan, 0.0], nan_ok=True))
    ]  # fmt: skip
    assert {*found.texts} == {"Same", "As text", "Newer"}
    assert found.latency is not None
    assert np.nanmax(found.latency) == 0.5
    assert sorted(_reasons(found)) == [
        "cache_hit: no model answered",
        "call_type: not a chat: aembedding",
        "status: the call failed",
    ]


def test_litellm_that_kept_no_prompts_is_refused_with_the_way_out(tmp_path: Path) -> None:
    logs = _lines(tmp_path / "spend.jsonl", _spent("1", "small", "", messages={}))
    scores = tmp_path / "scores.csv"
    scores.write_text("id,quality\n1,1\n", encoding="utf-8")
    with pytest.raises(BadRecording, match="store_prompts_in_spend_logs"):
        exports.load("litellm", [logs], scores=scores)


# --- OpenTelemetry


def _said(**attributes: Any) -> list[dict[str, Any]]:
    def typed(value: Any) -> dict[str, Any]:
        match value:
            case bool():
                return {"boolValue": value}
            case int():
                return {"intValue": str(value)}
            case float():
                return {"doubleValue": value}
            case list():
                return {"arrayValue": {"values": [typed(each) for each in value]}}
            case dict():
                pairs = [{"key": key, "value": typed(each)} for key, each in value.items()]
                return {"kvlistValue": {"values": pairs}}
            case _:
                return {"stringValue": value}

    return [{"key": name.replace("__", "."), "value": typed(value)}
            for name, value in attributes.items()]  # fmt: skip


def _span(id: str, model: str, **more: Any) -> dict[str, Any]:
    attributes = {
        "gen_ai__operation__name": "chat", "gen_ai__request__model": model,
        "gen_ai__usage__input_tokens": 1000, "gen_ai__usage__output_tokens": 100,
        **more.pop("said", {}),
    }  # fmt: skip
    return {
        "traceId": "t", "spanId": id, "startTimeUnixNano": "1000000000",
        "endTimeUnixNano": "1250000000", "attributes": _said(**attributes), **more,
    }  # fmt: skip


def _payload(*spans: Any, kind: str = "Spans", records: str = "spans") -> dict[str, Any]:
    return {f"resource{kind}": [{f"scope{kind}": [{records: list(spans)}]}]}


def test_spans_of_opentelemetry_with_evaluations(tmp_path: Path) -> None:
    parts = [{"role": "user", "parts": [{"type": "text", "content": "By parts?"}]}]
    evaluated = {"gen_ai__evaluation__name": "Relevance", "gen_ai__evaluation__score__value": 0.75}
    spans = _payload(
        _span(
            "a", "small", said={"gen_ai__input__messages": json.dumps(parts)},
            events=[{"name": "gen_ai.evaluation.result", "attributes": _said(**evaluated)}],
        ),
        _span("b", "large", said={"gen_ai__input__messages": parts,
                                  "gen_ai__response__id": "answer-b"}),
        _span("c", "large", events=[{"name": "gen_ai.content.prompt", "attributes": _said(
            gen_ai__prompt=json.dumps(_asked("Of old?")))}]),
        _span("d", "embed", said={"gen_ai__operation__name": "embeddings"}),
        _span("e", "small", status={"code": 2}),
        {"spanId": "f", "attributes": _said(http__method="GET")},
    )  # fmt: skip
    logs = _payload(
        {"eventName": "gen_ai.evaluation.result", "attributes": _said(
            **{**evaluated, "gen_ai__evaluation__score__value": 0.5,
               "gen_ai__response__id": "answer-b"})},
        {"spanId": "c", "attributes": _said(
            event__name="gen_ai.evaluation.result", **evaluated)},
        {"spanId": "c", "eventName": "gen_ai.evaluation.result", "attributes": _said(
            gen_ai__evaluation__name="Tone", gen_ai__evaluation__score__label="kind")},
        kind="Logs", records="logRecords",
    )  # fmt: skip
    paths = [_lines(tmp_path / "spans.jsonl", spans), _lines(tmp_path / "logs.json", logs)]
    found = exports.load("otel", paths, PRICES)
    assert found.texts == ("By parts?", "Of old?")
    assert np.array_equal(found.quality, [[0.5, 0.75], [0.75, np.nan]], equal_nan=True)
    assert found.cost[0].tolist() == [0.012, 0.0012]
    assert found.latency is not None
    assert found.latency[0].tolist() == [0.25, 0.25]
    assert sorted(_reasons(found)) == [
        "gen_ai.evaluation.result: 'Tone' has a label but no number",
        "gen_ai.operation.name: not a chat: 'embeddings'",
        "span: not a call of a model",
        "status: the call failed",
    ]


# --- TensorZero


def test_tensorzero_tables_in_any_order(tmp_path: Path) -> None:
    def inference(id: str, episode: str, text: str) -> dict[str, Any]:
        content = [{"type": "text", "text": text}]
        told = {"system": "s", "messages": [{"role": "user", "content": content}]}
        return {"id": id, "function_name": "write", "variant_name": "v", "episode_id": episode,
                "input": json.dumps(told), "output": "[]", "processing_time_ms": 300}  # fmt: skip

    def model(id: str, name: str) -> dict[str, Any]:
        return {"id": f"m-{id}", "inference_id": id, "model_name": name,
                "input_tokens": 1000, "output_tokens": 100, "response_time_ms": 290}  # fmt: skip

    feedback = _lines(
        tmp_path / "feedback.jsonl",
        {"id": "f1", "target_id": "i1", "metric_name": "solved", "value": False},
        {"id": "f2", "target_id": "i1", "metric_name": "solved", "value": True},
        {"id": "f3", "target_id": "e2", "metric_name": "solved", "value": False},
        {"id": "f4", "target_id": "i3", "value": "a comment"},
    )
    inferences = _lines(
        tmp_path / "inferences.jsonl",
        inference("i1", "e1", "One"),
        inference("i2", "e2", "Two"),
        inference("i3", "e3", "Best of two"),
        model("i1", "small"),
        model("i2", "large"),
        model("i3", "small"),
        model("i3", "large"),
    )
    found = exports.load("tensorzero", [feedback, inferences], PRICES)
    assert found.texts == ("One", "Two")
    assert np.array_equal(found.quality, [[np.nan, 1.0], [0.0, np.nan]], equal_nan=True)
    assert found.cost[1, 0] == pytest.approx(0.012)
    assert found.tasks == ("write", "write")
    assert found.latency is not None
    assert found.latency[0, 1] == 0.3
    assert sorted(_reasons(found)) == [
        "feedback: a comment or a demonstration is not a score",
        "the inference has several model calls",
    ]


# --- OpenAI's batches


def test_batches_of_the_same_requests_to_two_models(tmp_path: Path) -> None:
    def asked(model: str) -> list[dict[str, Any]]:
        return [{"custom_id": id, "method": "POST", "url": "/v1/chat/completions",
                 "body": {"model": model, "messages": _asked(id)}}
                for id in ("q1", "q2")]  # fmt: skip

    def answered(id: str, model: str, status: int = 200) -> dict[str, Any]:
        usage = {"prompt_tokens": 1000, "completion_tokens": 100}
        body = {"id": f"chatcmpl-{model}-{id}", "model": f"{model}-2026-01-01", "usage": usage}
        if status != 200:
            return {"custom_id": id, "response": {"status_code": status, "body": {}},
                    "error": {"code": "server_error"}}  # fmt: skip
        return {"custom_id": id, "response": {"status_code": 200, "request_id": "r", "body": body},
                "error": None}  # fmt: skip

    answers = [answered(id, model) for id in ("q1", "q2") for model in PRICES]
    files = [
        _lines(tmp_path / "asked.jsonl", *asked("small"), *asked("large")),
        _lines(tmp_path / "answers.jsonl", *answers, answered("q1", "small", 500)),
    ]
    ids = [each["response"]["body"]["id"] for each in answers]
    scores = _lines(tmp_path / "scores.jsonl",
                    *({"id": id, "quality": 1 + i} for i, id in enumerate(ids)))  # fmt: skip
    found = exports.load("openai-batch", files, PRICES, Scale(1.0, 5.0), scores=scores)
    assert found.texts == ("q1", "q2")
    assert found.quality.tolist() == [[0.25, 0.0], [0.75, 0.5]]
    assert found.cost.tolist() == [[0.012, 0.0012]] * 2
    assert _reasons(found) == ["response: the call failed"]


# --- what is refused


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("", r"--metric: there are several scores, name one: helpful \(2\), length \(1\)"),
        ("helpfull", "there are no scores of 'helpfull'; did you mean helpful"),
    ],
)
def test_which_score_is_meant_has_to_be_clear(tmp_path: Path, metric: str, said: str) -> None:
    rows = _lines(
        tmp_path / "all.jsonl",
        _generation("g", "t", "small", "?"),
        _score(1, traceId="t"),
        _score(1, observationId="g"),
        _score(1, "length", traceId="t"),
    )
    with pytest.raises(BadRecording, match=said):
        exports.load("langfuse", [rows], metric=metric)


def test_an_export_without_scores_prices_or_on_another_scale_is_refused(tmp_path: Path) -> None:
    rows = _lines(tmp_path / "g.jsonl", _generation("g", "t", "small", "?", costDetails={}))
    with pytest.raises(BadRecording, match="nothing says how good an answer was"):
        exports.load("langfuse", [rows])
    said = _lines(tmp_path / "s.jsonl", _score(5, traceId="t"))
    with pytest.raises(BadRecording, match="give the prices of 'small' with --prices"):
        exports.load("langfuse", [rows, said])
    with pytest.raises(BadRecording, match="name the scale, as with --scale 1 5"):
        exports.load("langfuse", [rows, said], PRICES)
    assert exports.load("langfuse", [rows, said], PRICES, Scale(1.0, 5.0)).quality[0, 0] == 1.0


def test_too_many_rows_that_cannot_be_used_refuse_the_file(tmp_path: Path) -> None:
    good = [_generation(f"g{i}", f"t{i}", "small", f"{i}?") for i in range(10)]
    bad = [_generation(f"b{i}", f"u{i}", "small", f"{i}?", input=None) for i in range(2)]
    said = [_score(1, traceId=each["traceId"]) for each in good]
    rows = _lines(tmp_path / "g.jsonl", *good, *bad, *said)
    with pytest.raises(BadRecording, match=r"2 of 12 rows \(16.7%\) cannot be used"):
        exports.load("langfuse", [rows])
    assert len(exports.load("langfuse", [rows], most_left_out=0.2)) == 10


@pytest.mark.parametrize("kind", exports.names())
def test_nonsense_is_told_and_breaks_nothing(tmp_path: Path, kind: str) -> None:
    odd: list[Any] = [1, "x", None, [], {}, {"data": 3}, {"id": []}, {"custom_id": "a", "body": 1},
                      {"resourceSpans": {"scopeSpans": 1}}, {"inference_id": 1, "model_name": 2},
                      {"request_id": "1", "messages": [1]}, {"traceId": "t", "type": 3},
                      {"function_name": "f", "id": "i", "input": 3}]  # fmt: skip
    rows = _lines(tmp_path / "odd.jsonl", *odd)
    scores = tmp_path / "scores.csv"
    scores.write_text("id,quality\na,1\n", encoding="utf-8")
    with pytest.raises(BadRecording, match=r"no usable row|cannot be used"):
        exports.load(kind, [rows], scores=scores)


# --- as a user would


def test_convert_says_what_it_left_out_and_replay_reads_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _lines(
        tmp_path / "traces.jsonl",
        *(_generation(f"g{i}", f"t{i}", ("small", "large")[i % 2], f"{i // 2}?") for i in range(8)),
        *(_generation(f"n{i}", f"n{i}", "small", f"{i}?") for i in range(3)),
    )
    scores = _lines(tmp_path / "scores.jsonl",
                    *(_score(i % 2, traceId=f"t{i}") for i in range(8)))  # fmt: skip
    to = tmp_path / "mine.jsonl.gz"
    asked = ["convert", str(rows), "--from", "langfuse", "--with", str(scores), "--to", str(to)]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert "4 queries, 2 models, 8 answers" in said.out
    assert "3 rows were skipped\n  3 of them: helpful: no score" in said.err
    assert json.loads((tmp_path / "mine.meta.json").read_text())["source"].endswith(", langfuse")
    assert main(["replay", "--data", str(to), "--policy", "uniform", "--seeds", "1"]) == 0


def test_options_of_exports_without_a_format_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _lines(tmp_path / "x.jsonl", {})
    to = tmp_path / "mine.jsonl"
    assert main(["convert", str(rows), "--to", str(to), "--metric", "helpful"]) == 2
    assert "--metric: is of exports; name one with --from: langfuse," in capsys.readouterr().err
    assert not to.exists()

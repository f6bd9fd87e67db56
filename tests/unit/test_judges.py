"""What judges say, with values by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.gateway import judges
from bandit_service.gateway.judges import verdict
from bandit_service.settings.judges import JudgeSpec, check_judge

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def _asking(schema: object) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}


def test_exact_compares_what_is_said_and_not_how_it_is_written() -> None:
    judge = JudgeSpec(id="j", kind="exact")
    for text in ("Paris", " paris.\n", '"PARIS"', "ＰＡＲＩＳ"):
        assert verdict(judge, {}, "Paris", text) == 1.0
    assert verdict(judge, {}, "Paris", "Paris, France") == 0.0
    assert verdict(judge, {}, "", "Paris") is None


def test_a_pattern_is_looked_for() -> None:
    judge = JudgeSpec(id="j", kind="regex", pattern=r"\b42\b")
    assert [verdict(judge, {}, "", text) for text in ("it is 42.", "420")] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("schema", "text", "quality"),
    [
        (SCHEMA, '{"n": 1}', 1.0),
        (SCHEMA, '{"n": "1"}', 0.0),
        (SCHEMA, "not json", 0.0),
        ({"type": "no such type"}, "{}", None),
        ({"$ref": "http://127.0.0.1:9/schema"}, "{}", None),
        ({"$ref": "#"}, "{}", None),
        ({"type": "string", "pattern": "^(a+)+$"}, '"' + "a" * 40 + '!"', 1.0),
        ({"patternProperties": {"^(a+)+$": {}}}, "{}", None),
    ],
)
def test_json_is_held_to_the_requests_schema(
    schema: object, text: str, quality: float | None
) -> None:
    assert verdict(JudgeSpec(id="j", kind="json_schema"), _asking(schema), "", text) == quality


def test_a_schema_that_doubles_with_each_reference_is_given_up() -> None:
    definitions: dict[str, Any] = {
        f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)
    }
    definitions["d60"] = {"type": "integer"}
    schema = {"$defs": definitions, "$ref": "#/$defs/d0"}
    assert verdict(JudgeSpec(id="j", kind="json_schema"), _asking(schema), "", "1") is None


def test_without_a_schema_or_with_a_text_too_long_nothing_is_said() -> None:
    judge = JudgeSpec(id="j", kind="json_schema")
    assert verdict(judge, {}, "", "{}") is None
    assert verdict(judge, _asking(SCHEMA), "", " " * 70_000) is None


def test_a_score_is_read_and_nothing_else_is_taken_for_one() -> None:
    assert judges.score_of('{"score": 7}') == 0.7
    assert judges.score_of('Here: {"score": "10"}') == 1.0
    for text in ("", "7", '{"score": -1}', '{"score": 10.5}', '{"points": 3}'):
        assert judges.score_of(text) is None
    assert [judges.better_of(f'{{"better": "{x}"}}') for x in ("A", "b", "TIE", "C")] == [
        "A",
        "B",
        "tie",
        None,
    ]


def test_the_text_of_an_answer_is_that_of_its_only_choice() -> None:
    def answer(*choices: object) -> dict[str, Any]:
        return {"choices": list(choices)}

    assert judges.answer_text(answer({"message": {"content": "x"}})) == "x"
    assert judges.answer_text(answer({"text": "y"})) == "y"
    for none in (
        answer(),
        answer({"text": "y"}, {"text": "z"}),
        answer({"message": {"content": None}}),
        answer({"message": {"content": "x", "tool_calls": [{}]}}),
        {},
    ):
        assert judges.answer_text(none) is None


def test_what_was_asked_is_told_with_its_roles_and_without_images() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:"}}
    body = {
        "messages": [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
        ]
    }
    assert judges.question_text(body) == "system: Be brief\nuser: What is it?"
    assert judges.question_text({"prompt": "Once"}) == "user: Once"
    assert judges.question_text({"prompt": ["Once", "Twice"]}) == "user: Once\nTwice"
    assert judges.question_text({"prompt": [[1, 2]]}) == ""


@given(st.text(max_size=200), st.text(max_size=200))
def test_reading_a_judgement_never_fails(text: str, expected: str) -> None:
    score = judges.score_of(text)
    assert score is None or 0.0 <= score <= 1.0
    assert judges.better_of(text) in ("A", "B", "tie", None)
    for judge in (JudgeSpec(id="j", kind="exact"), JudgeSpec(id="j", kind="json_schema")):
        assert verdict(judge, _asking(SCHEMA), expected, text) in (0.0, 1.0, None)


@pytest.mark.parametrize(
    ("field", "given_"),
    [
        ("id", {"id": ""}),
        ("kind", {"kind": "vote"}),
        ("share", {"share": 0.0}),
        ("pattern", {"kind": "regex"}),
        ("pattern", {"kind": "regex", "pattern": "("}),
        ("arm", {"kind": "llm"}),
        ("arm", {"arm": "a"}),
        ("max_per_minute", {"max_per_minute": 0}),
        ("usd_per_day", {"usd_per_day": 0.0}),
    ],
)
def test_a_wrong_judge_is_refused_by_its_field(field: str, given_: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        check_judge(JudgeSpec(**({"id": "j", "kind": "exact"} | given_)))

"""When a stream has come to its end, of one choice and of several."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bandit_service.gateway.failures import Rejected
from bandit_service.gateway.streamed_answer import StreamedAnswer, rewritten


def _told(*events: list[tuple[int, str | None]]) -> StreamedAnswer:
    passed = StreamedAnswer()
    for choices in events:
        told: list[Any] = [
            {"index": index, "delta": {"content": "x"}, "finish_reason": reason}
            for index, reason in choices
        ]
        rewritten([json.dumps({"choices": told}).encode()], "id", passed)
    return passed


@pytest.mark.parametrize(
    ("events", "finished"),
    [
        ([[(0, None)], [(0, "stop")]], True),
        ([[(0, None)]], False),
        ([[(0, None)], [(1, None)], [(0, "stop")]], False),
        ([[(0, None)], [(0, "stop")], [(1, None)]], False),
        ([[(0, None)], [(1, None)], [(0, "stop")], [(1, "length")]], True),
        ([[(0, "stop")], [(0, None)]], True),
        ([[]], False),
    ],
)
def test_a_stream_is_finished_when_every_choice_has_said_why_it_stopped(
    events: list[list[tuple[int, str | None]]], finished: bool
) -> None:
    assert _told(*events).finished is finished


def test_an_emoji_cut_in_two_goes_on_and_is_whole_for_a_judge() -> None:
    """Seen on 5a5a85b: "an event is not JSON", and the stream ended."""
    passed = StreamedAnswer(text=[])
    told = b""
    for half in ("\\ud83d", "\\ude00"):
        event = b'{"choices": [{"index": 0, "delta": {"content": "%b"}}]}' % half.encode()
        told += rewritten([event], "id", passed)
    assert (b"\\ud83d" in told, b"\\ude00" in told) == (True, True)
    assert passed.whole_text() == "\N{GRINNING FACE}"


def test_a_refusal_with_half_an_emoji_is_a_refusal() -> None:
    """On 09672bb it was a failure of the arm, though another arm might have taken the request."""
    said = rb'{"error": {"message": "hi \ud83d", "code": "context_length_exceeded"}}'
    with pytest.raises(Rejected) as refused:
        rewritten([said], "ours", StreamedAnswer())
    assert refused.value.unsuited
    assert json.loads(refused.value.body)["error"]["message"] == "hi \ufffd"

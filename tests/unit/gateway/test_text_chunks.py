"""A chunk that goes on as it came says what it says when it is read and written anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.gateway.failures import Failed, Rejected
from bandit_service.gateway.streamed_answer import StreamedAnswer, rewritten
from bandit_service.gateway.text_chunks import Renamed, plain_chunk

_TEXT = st.text(st.sampled_from('ab"\\{}:, \n\N{GRINNING FACE}é')) | st.sampled_from(
    ['"id"', '"usage": null', ', "usage": null', "id", "usage"]
)
_DELTA = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": st.none() | _TEXT,
        "refusal": st.none() | _TEXT,
        "reasoning_content": _TEXT,
        "tool_calls": st.just([{"index": 0, "function": {"arguments": "{"}}]),
        "error": st.just({"code": 500}),
    },
)
_CHOICE = st.fixed_dictionaries(
    {"delta": _DELTA},
    optional={
        "index": st.integers(0, 2),
        "finish_reason": st.sampled_from([None, None, "stop", "error"]),
        "logprobs": st.none(),
        "usage": st.just({"prompt_tokens": 3}),
    },
)
_CHUNK = st.fixed_dictionaries(
    {"choices": st.lists(_CHOICE, max_size=2)},
    optional={
        "id": st.sampled_from(["a", "b", "id", 'q"', "é"]),
        "model": _TEXT | st.just("id"),
        "created": st.integers(0, 9) | st.none(),
        "object": st.sampled_from(["chat.completion.chunk", "error"]),
        "usage": st.none()
        | st.sampled_from([{}, {"prompt_tokens": 7, "completion_tokens": 2}, {"cost": 0.1}]),
        "error": st.none() | st.just({"message": "broken", "code": 500}),
        "x_groq": st.just({"usage": {"prompt_tokens": 3}}),
        "system_fingerprint": st.none() | _TEXT,
    },
)


def _told(chunks: list[bytes], hide: bool, keep: bool, renamed: bool) -> tuple[Any, Any]:
    answer = StreamedAnswer(
        hide_usage=hide,
        text=[] if keep else None,
        renamed=Renamed("ours", hide) if renamed else None,
    )
    told: list[Any] = []
    try:
        for chunk in chunks:
            events = rewritten([chunk], "ours", answer).split(b"\n\n")
            told += [json.loads(event.removeprefix(b"data: ")) for event in events if event]
    except (Failed, Rejected) as error:
        told.append(str(error))
    state = {
        name: getattr(answer, name)
        for name in (
            *("usage", "finished", "model", "theirs", "finish_reason"),
            *("done", "choices", "received"),
        )
    }
    return told, state | {"spoke": answer.spoke, "text": answer.whole_text()}


@given(st.lists(_CHUNK, max_size=4), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_it_is_the_same_stream(
    chunks: list[dict[str, Any]], hide: bool, keep: bool, ascii_only: bool, narrow: bool
) -> None:
    separators = (",", ":") if narrow else None
    data = [
        json.dumps(each, ensure_ascii=ascii_only, separators=separators).encode() for each in chunks
    ]
    assert _told(data, hide, keep, renamed=True) == _told(data, hide, keep, renamed=False)


@given(
    _CHUNK,
    st.lists(st.lists(_TEXT | st.just("plain"), min_size=2, max_size=5) | _CHUNK, max_size=3),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
def test_it_is_the_same_stream_where_chunks_differ_in_their_text_alone(
    alike: dict[str, Any], parts: list[Any], hide: bool, keep: bool, ascii_only: bool
) -> None:
    data = []
    for part in parts:
        chunks = [part]
        if isinstance(part, list):
            chunks = [
                alike | {"choices": [{"index": 0, "delta": {"content": text}}]}
                for text in ("first", *part)
            ]
        data += [json.dumps(each, ensure_ascii=ascii_only).encode() for each in chunks]
    assert _told(data, hide, keep, renamed=True) == _told(data, hide, keep, renamed=False)


_ALIKE = b'{"id":"u","model":"m","choices":[{"index":0,"delta":{"content":"%b"}}],"usage":null}'


def test_chunks_that_are_alike_are_told_without_being_decoded() -> None:
    renamed = Renamed("ours", hide_usage=True)
    first = _ALIKE % b"first"
    assert renamed.alike(first) is None, "nothing is learned yet"
    told = renamed.event(first)
    assert told is not None
    renamed.learn(first, "first", told)
    for text in (b"", b"then", "é \N{GRINNING FACE}".encode()):
        assert renamed.alike(_ALIKE % text) == text
        assert renamed.told(text) == renamed.event(_ALIKE % text)


@given(
    st.lists(
        st.sampled_from(
            [
                _ALIKE % b"one",
                _ALIKE % b"",
                _ALIKE % "\N{GRINNING FACE}".encode(),
                _ALIKE % rb"\u00e9",
                _ALIKE % rb"\"}}],\"usage\":null}",
                _ALIKE.replace(b"null", b'{"prompt_tokens":1}') % b"with a usage",
                _ALIKE.replace(b"}}]", b'},"finish_reason":"stop"}]') % b"the last",
                b"{}",
            ]
        ),
        max_size=9,
    ),
    st.booleans(),
)
def test_events_that_come_together_are_told_as_one_by_one(data: list[bytes], keep: bool) -> None:
    ways = []
    for pieces in ([data], [[each] for each in data]):
        answer = StreamedAnswer(
            hide_usage=True, renamed=Renamed("ours", hide_usage=True), text=[] if keep else None
        )
        told = b"".join(rewritten(piece, "ours", answer) for piece in pieces)
        ways.append((told, answer.whole_text(), answer.received, answer.spoke, answer.usage))
    assert ways[0] == ways[1]


def test_a_run_ends_before_what_is_not_surely_alike() -> None:
    renamed = Renamed("ours", hide_usage=True)
    first = _ALIKE % b"first"
    assert renamed.run([first, first]) == [], "nothing is learned yet"
    renamed.learn(first, "first", renamed.event(first) or b"")
    texts = [b"a", b"", "\u00e9".encode()]
    alike = [_ALIKE % text for text in texts]
    assert renamed.run(alike) == texts
    assert renamed.told_all(texts) == b"".join(map(renamed.told, texts))
    half = [_ALIKE % b"\xc3", _ALIKE % b"\xa9"]  # one character, which is no text in either
    for odd in (*half, _ALIKE % rb"\n", _ALIKE % b'"', (_ALIKE % b"")[:-1], b"[DONE]"):
        assert renamed.run([*alike, odd, *alike]) == texts
        assert renamed.run([odd, *alike]) == []
    assert renamed.run([*alike, *half]) == texts
    assert renamed.run([b"\n".join(alike)]) == [], "an event with line breaks in it"


@pytest.mark.parametrize(
    "data",
    [
        _ALIKE % b'quote","refusal":"x',
        _ALIKE % rb"\u00e9",
        _ALIKE % b"\n",
        _ALIKE % b"\xff",
        _ALIKE.replace(b'"u"', b'"v"') % b"of another id",
        _ALIKE.replace(b"null", b'{"prompt_tokens":1}') % b"with a usage",
        _ALIKE.replace(b"}}]", b'},"finish_reason":"stop"}]') % b"the last",
        (_ALIKE % b"")[:-40],
    ],
)
def test_what_is_not_surely_alike_is_read(data: bytes) -> None:
    renamed = Renamed("ours", hide_usage=True)
    first = _ALIKE % b"first"
    renamed.learn(first, "first", renamed.event(first) or b"")
    assert renamed.alike(data) is None


def test_where_each_chunk_is_another_nothing_more_is_learned() -> None:
    renamed = Renamed("ours", hide_usage=False)
    for i in range(9):
        chunk = (_ALIKE % b"text").replace(b'"m"', b'"m%d"' % i)
        renamed.learn(chunk, "text", renamed.event(chunk) or b"")
    assert renamed.alike(chunk) is None
    assert renamed.alike((_ALIKE % b"more").replace(b'"m"', b'"m3"')) == b"more"


_SAID = b'{"id":"u","choices":[{"index":0,"delta":{"content":"x"}%b}]%b}'


@pytest.mark.parametrize(
    "data",
    [
        _SAID % (b',"finish_reason":"error"', b""),
        _SAID % (b"", b',"usage":{}'),
        _SAID % (b"", b',"object":"error"'),
        _SAID % (b"", b',"error":{"code":500}'),
        _SAID % (b',"error":{}', b""),
        _SAID % (b"", b',"error_code":336003'),
        b'{"id":"u","choices":[{"delta":{"tool_calls":[]}}]}',
        b'{"id":"u","choices":[]}',
        b"[DONE]",
        b"",
    ],
)
def test_what_says_more_is_read_as_any_event(data: bytes) -> None:
    assert plain_chunk(data) is None


@pytest.mark.parametrize("hide", [True, False])
def test_the_last_chunks_go_on_as_they_came(hide: bool) -> None:
    answer = StreamedAnswer(hide_usage=hide, renamed=Renamed("ours", hide))
    last = b'{"id":"u", "choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    used = b'{"id":"u", "choices":[],"usage":{"prompt_tokens":1}}'
    told = rewritten([last, used, b"[DONE]"], "ours", answer)
    ours = [each.replace(b'"u"', b'"ours"') for each in ([last] if hide else [last, used])]
    assert told == b"".join(b"data: %b\n\n" % each for each in (*ours, b"[DONE]"))
    assert (answer.finish_reason, answer.usage) == ("stop", {"prompt_tokens": 1})
    assert answer.finished
    assert answer.done


def test_nothing_is_learned_of_a_text_that_says_why_it_stopped() -> None:
    renamed = Renamed("ours", hide_usage=True)
    last = _SAID % (b',"finish_reason":"stop"', b"")
    assert rewritten([last], "ours", StreamedAnswer(hide_usage=True, renamed=renamed))
    assert renamed.alike(last) is None


def test_most_chunks_go_on_as_they_came() -> None:
    renamed = Renamed("ours", hide_usage=True)
    for text in ("one", "two"):
        chunk = b'{"id": "u", "object": "x", "choices": [{"delta": {"content": "%b"}}]%b}'
        data = chunk % (text.encode(), b', "usage": null')
        ours = b"data: " + (chunk % (text.encode(), b"")).replace(b'"id": "u"', b'"id":"ours"')
        assert renamed.event(data) == ours + b"\n\n"

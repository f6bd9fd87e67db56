"""The same events come out of a stream, wherever its bytes are cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bandit_service.gateway.sse import Events, TooLong

_TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1)
_LINES = st.lists(
    st.one_of(
        st.tuples(st.just("data"), _TEXT),
        st.tuples(st.sampled_from(["event", "id", "", "retry"]), _TEXT),
    ),
    min_size=1,
    max_size=4,
)


def _read(pieces: list[bytes], most: int = 10_000) -> list[bytes]:
    events = Events(most)
    found = [data for piece in pieces for data in events.feed(piece)]
    return [*found, *([last] if (last := events.end()) else [])]


def _cut(whole: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(min(place, len(whole)) for place in at), len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(places)]


@given(
    st.lists(_LINES, max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(0, 400)),
    st.booleans(),
)
def test_any_cutting_gives_the_same_events(
    events: list[list[tuple[str, str]]], end: str, at: list[int], ended: bool
) -> None:
    whole = "".join(
        "".join(f"{name}: {value}{end}" for name, value in lines) + end for lines in events
    ).encode()
    if not ended:
        whole = whole.rstrip(b"\r\n")  # the last event has no end
    expected = [
        "\n".join(value for name, value in lines if name == "data").encode() for lines in events
    ]
    expected = [data for data in expected if data]
    assert _read([whole]) == expected
    assert _read(_cut(whole, at)) == expected
    assert _read([whole[i : i + 1] for i in range(len(whole))]) == expected


def test_an_event_is_given_as_soon_as_its_empty_line_is_there() -> None:
    events = Events(100)
    assert events.feed(b"data: a\r\n\r") == [b"a"]
    assert events.feed(b"\ndata: b\n\n") == [b"b"]
    assert events.feed("data: é".encode()[:-1]) == []
    assert events.feed("é".encode()[-1:] + b"\n\n") == ["é".encode()]


def test_an_event_that_is_too_long_is_refused_whole_or_in_pieces() -> None:
    with pytest.raises(TooLong, match="100 bytes"):
        Events(100).feed(b"data: " + b"x" * 100)
    with pytest.raises(TooLong, match="100 bytes"):
        _read([b"x"] * 101, most=100)
    assert _read([b"data: x\n\n" * 100], most=100) == [b"x"] * 100

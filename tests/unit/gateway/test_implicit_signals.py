"""What is taken for a retry, a regenerate or an edit, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from bandit_service.core.metric_spec import EDIT, REGENERATE, RETRY
from bandit_service.gateway import implicit_signals
from bandit_service.gateway.implicit_signals import ImplicitSignals, Turn, Whose

ALL = {RETRY: 1.0, REGENERATE: 1.0, EDIT: 1.0}
ASKED = [{"role": "user", "content": "What is 17 * 23?"}]
OTHER = [{"role": "user", "content": "What is 17 + 23?"}]
ANSWER = {"role": "assistant", "content": "391"}
LATER = [*ASKED, ANSWER, {"role": "user", "content": "Why?"}]
EDITED = [*ASKED, ANSWER, {"role": "user", "content": "How?"}]
NAMED = Whose(conversation="c")


def turn(
    signals: ImplicitSignals, messages: Any, whose: Whose = NAMED, at: float = 0.0, by: str = ""
) -> Turn | None:
    return signals.turn(messages, (by, ""), whose, at)


def came(
    signals: ImplicitSignals, messages: Any, id: str, *, whole: bool = True, **more: Any
) -> tuple[str, str] | None:
    """A request with its answer; what it says of the one before."""
    found = turn(signals, messages, **more)
    if found is None:
        return None
    said = signals.said(found)
    with signals.under_way(found):
        found.decision_id = id
        if whole:
            found.ended = True
    return said


@pytest.mark.parametrize(
    ("first", "whole", "second", "signal"),
    [
        (ASKED, True, ASKED, REGENERATE),
        (ASKED, False, ASKED, RETRY),
        (ASKED, True, OTHER, None),
        (LATER, True, LATER, REGENERATE),
        (LATER, True, EDITED, EDIT),
        (LATER, False, EDITED, EDIT),
        (ASKED, True, LATER, None),
        (LATER, True, ASKED, None),
    ],
)
def test_a_request_is_compared_with_the_one_before(
    first: Any, whole: bool, second: Any, signal: str | None
) -> None:
    signals = ImplicitSignals(ALL, 300.0)
    assert came(signals, first, "d1", whole=whole) is None
    assert came(signals, second, "d2") == (None if signal is None else (signal, "d1"))


@pytest.mark.parametrize("system", [[], [{"role": "system", "content": "Be short."}]])
def test_who_sends_only_the_newest_message_edits_and_regenerates_nothing(system: Any) -> None:
    """On 164cc0c0 each question of such a conversation was an edit of the one before."""
    signals = ImplicitSignals(ALL, 300.0)

    def asked(text: str, id: str, whole: bool = True) -> tuple[str, str] | None:
        return came(signals, [*system, {"role": "user", "content": text}], id, whole=whole)

    assert asked("What is 17 * 23?", "d1") is None
    assert asked("Why?", "d2") is None
    assert asked("Go on", "d3") is None
    assert asked("Go on", "d4") is None
    assert asked("And then?", "d5", whole=False) is None
    assert asked("And then?", "d6") == (RETRY, "d5")
    # one who sends all of it is told apart as soon as an answer is there
    assert came(signals, [*system, *LATER], "d7") is None
    assert came(signals, [*system, *EDITED], "d8") == (EDIT, "d7")
    assert came(signals, [*system, *EDITED], "d9") == (REGENERATE, "d8")


@pytest.mark.parametrize("signal", list(ALL))
def test_only_what_has_a_weight_is_looked_for(signal: str) -> None:
    signals = ImplicitSignals({**dict.fromkeys(ALL, 0.0), signal: 0.5}, 300.0)
    came(signals, ASKED, "d1")
    assert (came(signals, ASKED, "d2", whole=False) is not None) == (signal == REGENERATE)
    assert (came(signals, ASKED, "d3") is not None) == (signal == RETRY)
    came(signals, LATER, "d4")
    assert (came(signals, EDITED, "d5") is not None) == (signal == EDIT)


def test_without_any_weight_nothing_is_remembered() -> None:
    assert turn(ImplicitSignals(dict.fromkeys(ALL, 0.0), 300.0), ASKED) is None


def test_who_names_neither_conversation_nor_session_nor_unit_is_not_looked_at() -> None:
    signals = ImplicitSignals(ALL, 300.0)
    assert turn(signals, ASKED, Whose()) is None
    for whose in (Whose(session="s"), Whose(unit="u")):
        came(signals, ASKED, "d1", whose=whose)
        assert came(signals, OTHER, "d2", whose=whose) is None  # another conversation of theirs
        assert came(signals, ASKED, "d3", whose=whose) == (REGENERATE, "d1")


def test_conversations_are_of_one_caller() -> None:
    signals = ImplicitSignals(ALL, 300.0)
    came(signals, ASKED, "d1", by="a")
    assert came(signals, ASKED, "d2", by="b") is None


def test_what_is_asked_at_the_same_time_or_much_later_says_nothing() -> None:
    signals = ImplicitSignals(ALL, 300.0)
    first = turn(signals, ASKED)
    assert first is not None
    with signals.under_way(first):
        first.decision_id = "d1"
        second = turn(signals, ASKED)
        assert second is not None
        assert signals.said(second) is None
    assert came(signals, ASKED, "d2", at=301.0) is None
    assert came(signals, ASKED, "d3", at=500.0) == (REGENERATE, "d2")


@pytest.mark.parametrize(
    "messages",
    [None, [], "x", [{"role": "tool", "content": "1"}], [3], [*ASKED, {"role": "assistant"}]],
)
def test_a_turn_without_a_users_word_at_its_end_is_none(messages: Any) -> None:
    assert turn(ImplicitSignals(ALL, 300.0), messages) is None


def test_the_oldest_conversations_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implicit_signals, "MAX_TALKS", 2)
    signals = ImplicitSignals(ALL, 300.0)
    for name in "abc":
        came(signals, ASKED, name, whose=Whose(conversation=name))
    assert came(signals, ASKED, "d", whose=Whose(conversation="a")) is None
    assert came(signals, ASKED, "d", whose=Whose(conversation="c")) == (REGENERATE, "c")

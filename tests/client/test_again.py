"""What is sent again, when, and what is not: a decide is known again by its key."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bandit_client import (
    AsyncClient,
    BadAnswer,
    Busy,
    Client,
    NoAnswer,
    NotReached,
    Retries,
    ServiceError,
    TimedOut,
    Unavailable,
)
from bandit_client._retry import may_again
from bandit_client.errors import told
from tests.client.unruly import CUT, DECIDED, SOON, Said, an_error, unruly

STOPPING = Said(503, an_error("unavailable"), {"Retry-After": "0"})


@pytest.mark.parametrize("code", ["busy", "rate_limited", "reward_share", "budget_exhausted"])
def test_what_the_service_asks_to_send_again_is(code: str) -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.script = [Said(429, an_error(code)), STOPPING, DECIDED]
        assert client.decide("hello").decision_id == "d1"
        assert len(server.asked) == 3
        assert len({headers["x-request-id"] for _, headers, _ in server.asked}) == 3


async def test_it_waits_at_least_as_long_as_it_is_told() -> None:
    with unruly() as server:
        server.script = [Said(429, an_error("busy"), {"Retry-After": "1"}), DECIDED]
        async with AsyncClient(server.url, retries=SOON) as client:
            begun = time.monotonic()
            await client.decide("hello")
            assert time.monotonic() - begun >= 1.0


def test_it_does_not_wait_beyond_its_time() -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.always = Said(429, an_error("budget_exhausted"), {"Retry-After": "3600"})
        begun = time.monotonic()
        with pytest.raises(Busy) as busy:
            client.decide("hello")
        assert time.monotonic() - begun < 20
        assert (busy.value.retry_after_s, len(server.asked)) == (3600.0, 1)


def test_it_gives_up_after_its_attempts() -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.always = STOPPING
        with pytest.raises(Unavailable):
            client.ready()
        assert len(server.asked) == SOON.attempts


@pytest.mark.parametrize("said", [CUT, Said(502, "<html>"), Said(503, "<html>"), Said(504, "")])
def test_a_decide_that_may_have_been_made_is_asked_for_again_by_its_key(said: Said) -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.script, server.always = [said, said], DECIDED
        assert client.decide("hello").decision_id == "d1"
        keys = {headers["idempotency-key"] for _, headers, _ in server.asked}
        assert (len(server.asked), len(keys)) == (3, 1)
        client.decide("hello")
        assert server.asked[-1][1]["idempotency-key"] not in keys
        client.decide("hello", idempotency_key="mine")
        assert "idempotency-key" not in server.asked[-1][1]


def test_it_says_by_which_id_an_answer_was_asked_for() -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.always = CUT
        with pytest.raises(NoAnswer) as lost:
            client.decide("hello")
        assert lost.value.request_id == server.asked[-1][1]["x-request-id"]


@pytest.mark.parametrize("said", [CUT, Said(502, "<html>"), STOPPING])
def test_an_outcome_is_sent_again_as_it_was(said: Said) -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.script = [said, said]
        assert client.reward(arm="a", query="hello", quality=1.0).status == "accepted"
        sent = [body for _, _, body in server.asked]
        assert len(sent) == 3
        assert sent[0] == sent[1] == sent[2]
        assert len(sent[0]["idempotency_key"]) == 32
        server.script, before = [said], len(server.asked)
        assert client.compare("a", "b", query="hello").status == "accepted"
        again = [body for _, _, body in server.asked[before:]]
        assert again[0] == again[1]
        assert again[0]["idempotency_key"] != sent[0]["idempotency_key"]


def test_a_key_is_made_where_a_resend_is_not_known_without() -> None:
    with unruly() as server, Client(server.url) as there:
        there.reward("d1", quality=1.0)  # known by the decision and the signal
        there.reward("d1", quality=0.5, correction=True)
        there.reward(query="q", arm="a", quality=1.0, idempotency_key="mine")
        keys = [body.get("idempotency_key") for _, _, body in server.asked]
    assert keys[0] is None
    assert len(keys[1]) == 32
    assert keys[2] == "mine"


@pytest.mark.parametrize("code", ["invalid_value", "unknown", "conflict", "expired", "internal"])
def test_what_would_fail_again_is_not_sent_again(code: str) -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.always = Said(400, an_error(code))
        with pytest.raises(ServiceError) as error:
            client.reward("d1", quality=1.0)
        assert (error.value.code, len(server.asked)) == (code, 1)


def test_the_service_is_told_how_long_it_may_take() -> None:
    """So that it gives up first, and says that nothing was decided."""
    with unruly() as server, Client(server.url) as client:
        server.script = [Said(504, an_error("timeout"))]
        with pytest.raises(TimedOut):
            client.decide("hello", timeout_s=60.0)
        assert 45.0 < float(server.asked[0][1]["x-request-timeout"]) < 60.0
        server.script = [Said(body="late", after_s=3600.0)]
        with pytest.raises(NoAnswer, match="no answer in"):
            client.decide("hello", timeout_s=1.0)
        assert len(server.asked) == 2


@pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"results": []}'])
def test_what_no_service_answers_is_told(body: Any) -> None:
    with unruly() as server, Client(server.url, retries=SOON) as client:
        server.always = Said(body=body)
        with pytest.raises(BadAnswer, match="not one of a bandit-service"):
            client.reward("d1", quality=1.0)


def test_waits_are_of_any_length_up_to_a_bound_that_doubles() -> None:
    retries, gone = Retries(first_s=1.0, max_s=6.0), NotReached("gone")
    for failures, most in ((1, 1.0), (2, 2.0), (3, 4.0), (4, 6.0), (500, 6.0)):
        waits = [retries.wait_s(failures, gone) for _ in range(400)]
        assert 0.0 <= min(waits) < 0.1 * most
        assert 0.9 * most < max(waits) <= most
        assert 0.4 * most < sum(waits) / 400 < 0.6 * most
    busy = told({"code": "busy"}, 429, retry_after_s=3.0)
    assert 3.0 <= min(retries.wait_s(1, busy) for _ in range(100)) < 3.2


def test_which_errors_may_be_sent_again() -> None:
    """As docs/errors.md says: those that name a wait, and the stream's credit."""
    codes = ("busy", "rate_limited", "reward_share", "budget_exhausted", "no_credit", "unavailable")
    for code in (*codes, "timeout", "too_slow", "upstream_failed", "internal", "unauthorized"):
        assert may_again(told({"code": code}, 500), harmless=True) == (code in codes), code


def test_it_asks_for_what_it_was_told_before_only_if_it_is_to() -> None:
    answers = [
        Said(body=DECIDED.body, headers={"x-bandit-offset": offset})
        for offset in ("12", "9", "soon", "9" * 30)
    ]
    with unruly() as server:
        for reads_own in (True, False):
            with Client(server.url, retries=SOON, read_your_writes=reads_own) as client:
                server.asked = []
                server.script = [*answers, Said(503, an_error("behind")), DECIDED]
                for _ in range(5):
                    client.decide("hello")
                sent = [headers.get("x-bandit-after") for _, headers, _ in server.asked]
                assert sent == [None, *(["12"] * 5 if reads_own else [None] * 5)]


def test_after_the_last_behind_it_begins_anew_from_what_is_there() -> None:
    """As after a failover that lost records: the offset that it knows may never be reached."""

    def at(offset: str) -> Said:
        return Said(body=DECIDED.body, headers={"x-bandit-offset": offset})

    behind = Said(503, an_error("behind"), {"x-bandit-offset": "7", "Retry-After": "0"})
    with unruly() as server, Client(server.url, retries=SOON, read_your_writes=True) as client:
        server.script = [at("12"), *[behind] * SOON.attempts, at("7"), at("8"), at("8")]
        for _ in range(4):
            client.decide("hello")
        sent = [headers.get("x-bandit-after") for _, headers, _ in server.asked]
        assert sent == [None, *["12"] * SOON.attempts, None, "7", "8"]
        server.script = [*[behind] * SOON.attempts, Said(502, "<html>"), at("9")]
        with pytest.raises(ServiceError):
            client.decide("hello")
        client.decide("hello")  # a proxy's answer names no offset, so the old one stays
        assert server.asked[-1][1]["x-bandit-after"] == "8"


def test_outcomes_ask_for_nothing_that_was_learned() -> None:
    with (
        unruly() as server,
        Client(server.url, timeout_s=10.0, retries=SOON, read_your_writes=True) as client,
    ):
        server.script = [Said(body=DECIDED.body, headers={"x-bandit-offset": "12"})]
        client.decide("hello")
        client.reward("d1", quality=1.0)
        client.compare("a", "b", query="hello")
        client.reward_later("d1", quality=1.0)
        client.flush()
        server.always = DECIDED
        client.decision("d1")
        sent = [(path, headers.get("x-bandit-after")) for path, headers, _ in server.asked[1:]]
        assert [after for _, after in sent] == [None, None, None, "12"], sent
        assert 0.0 < float(server.asked[-1][1]["x-request-timeout"]) < 10.0

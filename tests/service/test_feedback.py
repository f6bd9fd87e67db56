"""Votes by token over HTTP: without a key, for one decision, until a time, and for nothing else."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bandit_service import clock
from bandit_service.core.feedback import FeedbackTokens, SigningKey
from bandit_service.http import feedback as feedback_http
from tests.service.keyring import Keyring
from tests.service.provider import HELLO, a_gateway
from tests.service.running import Client, a_vector, opened, serving

SECRET = "t0ken-secret-" * 4
ENV = {"BANDIT_FEEDBACK_SECRET_ENV": "TOKEN_SECRET", "TOKEN_SECRET": SECRET}
MINE = FeedbackTokens([SigningKey.of(SECRET.encode())], 3600.0)


async def _page(
    client: Client, token: str, form: str | None = None, **headers: str
) -> tuple[int, str, Any]:
    """As a browser asks: status, text and headers; no redirect is followed."""
    headers = {"Accept": "text/html", **headers}
    if form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    async with client.session.request(
        "GET" if form is None else "POST",
        f"{client.url}/v1/feedback/{token}",
        data=form,
        headers=headers,
        allow_redirects=False,
    ) as answer:
        return answer.status, await answer.text(), answer.headers


async def _signals(client: Client, id: str) -> tuple[dict[str, float], bool]:
    _, body = await client.get(f"/v1/decisions/{id}")
    return body["signals"], body["settled"]


async def test_a_vote_is_a_grade_and_may_be_changed_and_taken_back(client: Client) -> None:
    decided = await client.decide()
    path = f"/v1/feedback/{decided['feedback_token']}"
    status, body = await client.get(path)
    assert (status, body["vote"]) == (200, "neutral")
    for vote, signals, settled in (
        ("up", {"quality": 1.0, "vote": 1.0}, True),
        ("up", {"quality": 1.0, "vote": 1.0}, True),
        ("down", {"quality": 0.0, "vote": 0.0}, True),
        ("neutral", {}, False),
        ("neutral", {}, False),
        ("down", {"quality": 0.0, "vote": 0.0}, True),
    ):
        status, body = await client.post(path, {"vote": vote})
        assert (status, body["vote"]) == (200, vote)
        assert (await client.get(path))[1] == body
        assert await _signals(client, decided["decision_id"]) == (signals, settled)


async def test_a_form_votes_without_a_script_and_a_get_never_does(client: Client) -> None:
    decided = await client.decide()
    token = decided["feedback_token"]
    status, text, headers = await _page(client, token)
    assert status == 200
    assert "<script" not in text
    assert "You have not voted." in text
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (await _page(client, f"{token}?vote=up"))[0] == 200
    assert await _signals(client, decided["decision_id"]) == ({}, False)
    status, text, headers = await _page(client, token, "vote=down")
    assert (status, headers["Location"]) == (303, token)
    _, text, _ = await _page(client, token)
    assert "You voted: bad answer." in text
    assert 'value="down" aria-pressed="true"' in text
    assert (await _signals(client, decided["decision_id"]))[0]["quality"] == 0.0
    # JSON that curl sends as a form, as it does where no header is given
    assert (await _page(client, token, '{"vote": "up"}'))[0] == 200
    assert (await _signals(client, decided["decision_id"]))[0]["quality"] == 1.0


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b'{"vote": "yes"}', "json", "vote: must be one of up, down, neutral, got 'yes'"),
        (b"{}", "json", "vote"),
        (b'{"vote": "up", "quality": 1}', "json", "quality"),
        (b'"up"', "json", "object"),
        (b"{", "json", "JSON"),
        (b"", "json", "JSON"),
        (b"vote=yes", "x-www-form-urlencoded", "vote: must be one of up, down, neutral"),
        (b"", "x-www-form-urlencoded", "not both; got neither"),
        (b' {"vote": "yes"}', "x-www-form-urlencoded", "vote: must be one of up, down, neutral"),
        (b'{"vote": 1}', "x-www-form-urlencoded", "vote: must be a text or null, got a whole"),
        (b"vote=up&vote=down", "x-www-form-urlencoded", "vote: must be sent exactly once"),
        (b"vote=up&arm=o3", "x-www-form-urlencoded", "arm"),
        (b"\xff" * 9, "x-www-form-urlencoded", "not a form"),
        (b"&".join(b"a%d=1" % i for i in range(99)), "x-www-form-urlencoded", "not a form"),
    ],
)
async def test_a_wrong_vote_is_refused_with_what_is_allowed(
    light: Client, body: bytes, kind: str, told: str
) -> None:
    decided = await light.decide()
    async with light.session.post(
        f"{light.url}/v1/feedback/{decided['feedback_token']}",
        data=body,
        headers={"Content-Type": f"application/{kind}"},
    ) as answer:
        error = (await answer.json())["error"]
        assert answer.status == 400, error
        assert told in error["message"]
    assert await _signals(light, decided["decision_id"]) == ({}, False)


@pytest.fixture
async def light(tmp_path: Path, models: Path) -> Any:
    async with serving(tmp_path / "var", models, **ENV) as running:
        yield running


async def test_a_wrong_expired_or_foreign_token_is_told_so_to_programs_and_to_browsers(
    light: Client,
) -> None:
    decided = await light.decide()
    id, now = decided["decision_id"], clock.now()
    assert MINE.read(decided["feedback_token"], now).decision_id == id
    foreign = FeedbackTokens([SigningKey.of(b"f" * 32)], 60.0)
    for token, status, code, words in (
        ("nonsense", 400, "invalid_value", "token: not a valid feedback token"),
        (foreign.token(id, "", "", now), 403, "forbidden", "not made by this service"),
        (MINE.token(id, "", "", now - 7200.0), 410, "expired", "token: it expired at"),
        (MINE.token(id, "acme", "", now), 404, "unknown", "token: no such decision"),
    ):
        for method in ("GET", "POST"):
            got, body = await light.call(method, f"/v1/feedback/{token}", {"vote": "up"})
            assert (got, body["error"]["code"]) == (status, code)
            assert words in body["error"]["message"]
        for form in (None, "vote=up"):
            got, text, headers = await _page(light, token, form)
            assert got == status
            assert words in text
            assert headers["Content-Type"].startswith("text/html")
            assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert await _signals(light, id) == ({}, False)


async def test_a_grade_of_the_client_stands_against_a_vote(light: Client) -> None:
    decided = await light.decide()
    await light.reward(decided["decision_id"], quality=0.5)
    path = f"/v1/feedback/{decided['feedback_token']}"
    status, body = await light.post(path, {"vote": "up"})
    assert (status, body["error"]["code"]) == (409, "conflict")
    status, text, _ = await _page(light, decided["feedback_token"], "vote=up")
    assert (status, "already reported" in text) == (409, True)


async def test_the_token_needs_no_key_opens_nothing_else_and_delegates_only_what_one_may(
    tmp_path: Path, models: Path
) -> None:
    ring = Keyring(app={}, asks={"scopes": ["decide", "read"]}, acme={"tenant": "acme"})
    async with serving(tmp_path / "var", models, **ring.environ, **ENV) as nobody:
        app, asks = nobody.by(ring["app"]), nobody.by(ring["asks"])
        assert "feedback_token" not in await asks.decide(), "it could not reward it itself"
        decided = await nobody.by(ring["acme"]).decide()
        token = decided["feedback_token"]
        assert (await nobody.post(f"/v1/feedback/{token}", {"vote": "up"}))[0] == 200
        signals, _ = await _signals(app, decided["decision_id"])
        assert signals["quality"] == 1.0
        bearer = nobody.by(token)
        for method, path in (
            ("GET", f"/v1/decisions/{decided['decision_id']}"),
            ("POST", "/v1/rewards"),
            ("POST", "/v1/decide"),
            ("GET", "/v1/arms"),
        ):
            assert (await bearer.call(method, path, {}))[0] == 401
            assert (await nobody.call(method, path, {}))[0] == 401
    gone = Keyring(other={})
    async with serving(tmp_path / "var", models, **gone.environ, **ENV) as nobody:
        status, body = await nobody.post(f"/v1/feedback/{token}", {"vote": "down"})
        assert (status, body["error"]["code"]) == (401, "unauthorized")
        assert "may not reward it" in body["error"]["message"]


async def test_votes_count_in_the_share_of_the_key_that_asked(tmp_path: Path, models: Path) -> None:
    ring = Keyring(app={"reward_share": 0.01}, other={})
    async with serving(tmp_path / "var", models, **ring.environ) as nobody:
        app, codes = nobody.by(ring["app"]), []
        for i in range(12):
            decided = await app.decide(embedding=a_vector(i))
            path = f"/v1/feedback/{decided['feedback_token']}"
            codes.append((await nobody.post(path, {"vote": "up"}))[0])
        assert codes == [200] * 10 + [429] * 2


async def test_nobody_votes_without_end(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_http, "_EACH_PER_S", 1e-6)
    async with serving(tmp_path / "var", models) as client:
        token = (await client.decide())["feedback_token"]
        codes = [
            (await client.post(f"/v1/feedback/{token}", {"vote": ("up", "down")[i % 2]}))[0]
            for i in range(12)
        ]
        assert codes == [200] * 10 + [429] * 2
        other = (await client.decide())["feedback_token"]
        assert (await client.post(f"/v1/feedback/{other}", {"vote": "up"}))[0] == 200


async def test_a_page_of_another_origin_cannot_vote(light: Client) -> None:
    token = (await light.decide())["feedback_token"]
    for origin in ("https://evil.example", "null"):
        status, _, _ = await _page(light, token, "vote=up", Origin=origin)
        assert status == 403
    own = f"http://{urlsplit(light.url).netloc}"
    assert (await _page(light, token, "vote=up", Origin=own))[0] == 303


async def test_no_tokens_where_they_are_turned_off(tmp_path: Path, models: Path) -> None:
    async with serving(tmp_path / "var", models, BANDIT_FEEDBACK_TTL_S="0") as client:
        assert "feedback_token" not in await client.decide()
        status, body = await client.get("/v1/feedback/x")
        assert (status, "feedback.ttl_s is 0" in body["error"]["message"]) == (404, True)
    assert not (tmp_path / "var" / "feedback.secret").exists()


async def test_every_answer_of_the_gateway_and_of_the_stream_has_a_token(
    tmp_path: Path, models: Path
) -> None:
    async with a_gateway(tmp_path, models) as (client, provider):
        url = f"{client.url}/v1/chat/completions"
        for stream in (False, True):
            asked = {"model": "auto", "messages": HELLO, "stream": stream}
            async with client.session.post(url, json=asked) as answer:
                await answer.read()
                token, id = answer.headers["x-feedback-token"], answer.headers["x-decision-id"]
            status, _ = await client.post(f"/v1/feedback/{token}", {"vote": "up"})
            assert status == 200
            assert (await _signals(client, id))[0]["quality"] == 1.0
        provider.behaviour = dict.fromkeys(("alpha", "beta", "gamma"), "500")
        async with client.session.post(url, json={"model": "auto", "messages": HELLO}) as answer:
            assert answer.status >= 500
            assert "x-feedback-token" not in answer.headers


async def test_no_token_is_in_a_log_a_metric_or_the_events(
    tmp_path: Path, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path / "var", models) as client:
        token = (await client.decide())["feedback_token"]
        for path in (f"/v1/feedback/{token}", f"/v1/feedback/{token}/more"):
            await client.get(path)
            await client.post(path, {"vote": "up"})
        for path in ("/metrics", "/v1/events"):
            async with client.session.get(client.url + path) as answer:
                assert token.encode() not in await answer.read()
    secret = (tmp_path / "var" / "feedback.secret").read_text().split()[-1]
    told = "\n".join(str(vars(record)) for record in caplog.records if record.name != "asyncio")
    assert "/v1/feedback/{token}" in told
    assert token[:30] not in told
    assert secret not in told


async def test_the_secret_is_kept_over_a_restart(tmp_path: Path, models: Path) -> None:
    async with opened(tmp_path / "var", models) as (client, _):
        token = (await client.decide())["feedback_token"]
    async with opened(tmp_path / "var", models) as (client, world):
        assert (await client.post(f"/v1/feedback/{token}", {"vote": "up"}))[0] == 200
        (pending,) = world.pending.decisions.values()
        assert pending.signals == {"quality": 1.0, "vote": 1.0}

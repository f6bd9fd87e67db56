"""A refusal that may be about the arm: another is tried, and what that says is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.service.provider import HELLO, until
from tests.service.running import Client
from tests.service.wires import (
    STREAM_HEAD,
    Act,
    a_whole,
    an_event,
    behind,
    says,
    says_and_closes,
    text_from,
)

_USAGE = b'data: {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}\n\n'
_FINE = says_and_closes(
    STREAM_HEAD + b"\r\n" + an_event("fine", "stop") + _USAGE + b"data: [DONE]\n\n"
)


def refuses(status: str, body: Any = None, text: bytes = b"") -> Act:
    return says(a_whole(text if body is None else json.dumps(body).encode(), status=status))


def _error(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", **fields}}


REFUSALS = {
    "a parameter": refuses("400 Bad Request", _error("no top_k", code="unsupported_parameter")),
    "a length": refuses("400 Bad Request", _error("too long", code="context_length_exceeded")),
    "a quota by its code": refuses("400 Bad Request", _error("later", code="rate_limit_exceeded")),
    "a key's limit": refuses("403 Forbidden", _error("Key limit exceeded", code=403)),
    "no body": refuses("403 Forbidden"),
    "a body too large": refuses("413 Payload Too Large", text=b"<html>nginx</html>"),
    "what validates": refuses("422 Unprocessable", {"detail": [{"msg": "extra forbidden"}]}),
    "a name": refuses("404 Not Found", text=b"no such route"),
    "a text": refuses("400 Bad Request", {"error": "bad things happened", "code": 7}),
    "of law": refuses("451 Unavailable For Legal Reasons"),
}


async def _arm(client: Client, id: str) -> dict[str, Any]:
    _, state = await client.get("/v1/arms")
    found: dict[str, Any] = next(arm for arm in state["arms"] if arm["id"] == id)
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_each_refusal_is_followed_by_another_arm(
    tmp_path: Path, models: Path, stream: bool
) -> None:
    """Seen on 5a5a85b: a 400 that names its parameter went to the client, as did 403, 413, 422."""
    quick = {"BANDIT_GATEWAY_BREAKER_FAILURES": "1000"}
    async with behind(tmp_path, models, **quick) as (asking, client, alpha, beta):
        if stream:
            beta.always = _FINE
        for why, act in REFUSALS.items():
            alpha.script = [act]
            while alpha.script:  # chance may choose beta first
                assert await text_from(asking, "auto", stream=stream) == "fine", why
            if stream:
                alpha.always = _FINE

        async def taught() -> bool:
            observed = (await _arm(client, "alpha"))["observed"]
            return bool(observed["latencies"] >= len(REFUSALS))

        await until(taught)


async def test_an_arm_that_refuses_what_others_answer_is_soon_hardly_drawn(
    tmp_path: Path, models: Path
) -> None:
    """Seen on 5a5a85b: 198 of 200 requests were refused, and nothing was learned of it."""
    learning = {"BANDIT_POLICY_NAME": "metallm"}
    async with behind(tmp_path, models, **learning) as (asking, client, alpha, _):
        alpha.always = REFUSALS["a parameter"]
        asked = 40
        for i in range(asked):
            question: Any = [{"role": "user", "content": f"question {i}"}]
            raw = await asking.chat.completions.with_raw_response.create(
                model="auto", messages=question, max_tokens=50
            )
            assert raw.headers["x-arm"] == "beta"
            await client.reward(raw.headers["x-decision-id"], quality=0.9)
        assert alpha.requests <= asked // 4
        async with client.session.get(f"{client.url}/metrics") as exposed:
            text = await exposed.text()
        told = f'bandit_upstream_failures_total{{arm="alpha",kind="refused"}} {alpha.requests}.0'
        assert told in text
        assert 'bandit_upstream_up{arm="alpha"} 1.0' in text  # it is well: the breaker is not asked


async def test_where_all_refuse_the_first_refusal_is_told_and_nobody_is_taught(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models) as (asking, client, alpha, beta):
        for each, name in ((alpha, "alpha"), (beta, "beta")):
            each.always = refuses("400 Bad Request", _error(f"{name} wants messages", param="m"))
        with pytest.raises(openai.BadRequestError) as refused:
            await asking.chat.completions.create(model="auto", messages=HELLO)
        first = refused.value.response.headers["x-arm"]
        assert refused.value.body["arm"] == first  # type: ignore[index]
        assert f"{first} wants messages" in str(refused.value)
        assert (alpha.requests, beta.requests) == (1, 1)
        for arm in ("alpha", "beta"):
            with pytest.raises(openai.BadRequestError, match=f"{arm} wants messages"):
                await asking.chat.completions.create(model=arm, messages=HELLO)
        assert (alpha.requests, beta.requests) == (2, 2)
        for arm in ("alpha", "beta"):
            assert (await _arm(client, arm))["observed"]["latencies"] == 0


async def test_an_arm_that_could_not_and_one_that_is_down_is_told_as_down(
    tmp_path: Path, models: Path
) -> None:
    """What only one model cannot do is no word about the request, which may be sent again."""
    async with behind(tmp_path, models) as (asking, _, alpha, beta):
        beta.always = refuses("503 Service Unavailable")
        alpha.always = REFUSALS["a length"]
        with pytest.raises(openai.InternalServerError, match="status 503"):
            await asking.chat.completions.create(model="auto", messages=HELLO)
        alpha.always = refuses("400 Bad Request", _error("messages are wrong"))
        with pytest.raises(openai.BadRequestError, match="messages are wrong"):
            await asking.chat.completions.create(model="auto", messages=HELLO)


async def test_however_many_cannot_the_one_that_can_is_asked(tmp_path: Path, models: Path) -> None:
    """Arms that say they cannot do a request are no attempts: with three attempts and six arms."""
    one = [{"id": "alpha", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 4.0, "upstream": "alpha"}]
    arms = [{**one[0], "id": f"a{i}"} for i in range(5)] + [
        {**one[0], "id": "b", "upstream": "beta"}
    ]
    async with behind(tmp_path, models, BANDIT_ARMS=json.dumps(arms)) as (asking, _, alpha, beta):
        alpha.always = REFUSALS["a parameter"]
        for _ in range(6):
            assert await text_from(asking, "auto") == "fine"
        # of what is not that clear three are asked, but those first that lately answered
        alpha.always = refuses("400 Bad Request", _error("who knows"))
        for _ in range(6):
            assert await text_from(asking, "auto") == "fine"
        assert beta.requests == 12


async def test_the_error_of_an_arm_that_is_named_is_told_in_openais_shape(
    tmp_path: Path, models: Path
) -> None:
    async with behind(tmp_path, models) as (_, client, alpha, _beta):
        asked = {"model": "alpha", "messages": HELLO}
        for body, message in (
            (b'{"error": "no such voice"}', "no such voice"),
            (b'{"object": "error", "message": "seed is unknown"}', "seed is unknown"),
            (b'[{"error": {"code": 400, "message": "of a list"}}]', "of a list"),
            (b'\xef\xbb\xbf{"error": {"message": "marked"}}', "marked"),
            (b"<html>", "arm 'alpha' answered status 400"),
        ):
            alpha.script = [refuses("400 Bad Request", text=body)]
            status, answer = await client.post("/v1/chat/completions", asked)
            assert (status, answer["error"]["message"]) == (400, message)
            assert answer["error"]["arm"] == "alpha"


async def test_a_duels_second_arm_that_refuses_what_the_first_answered_is_taught(
    tmp_path: Path, models: Path
) -> None:
    duel = {"BANDIT_DUELS_SHARE": "1.0", "BANDIT_GATEWAY_ATTEMPTS": "1"}
    fixed = {"BANDIT_POLICY_NAME": "fixed", "BANDIT_POLICY_PARAMETERS": '{ arm = "beta" }',
             "BANDIT_EXPLORATION_FLOOR": "0.0"}  # fmt: skip
    async with behind(tmp_path, models, **duel, **fixed) as (asking, client, alpha, _):
        alpha.always = REFUSALS["a parameter"]
        assert await text_from(asking, "auto") == "fine"

        async def taught() -> bool:
            return bool((await _arm(client, "alpha"))["observed"]["latencies"] == 1)

        await until(taught)

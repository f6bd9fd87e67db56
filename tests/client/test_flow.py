"""The whole API through both clients, against a real service."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from typing import Any

import numpy as np
import pytest

from bandit_client import (
    AsyncClient,
    Client,
    Conflict,
    Denied,
    Expired,
    Invalid,
    NotReached,
    Retries,
    ServiceError,
    Unknown,
)
from tests.client.conftest import Served
from tests.service.running import a_vector

SPEC = {
    "variants": [
        {"key": "control", "weight": 0.5},
        {"key": "treatment", "weight": 0.5, "policy": "uniform", "begin": "nothing"},
    ]
}


def test_decide_and_learn(client: Client) -> None:
    text = client.decide("What is 17 * 23?", unit="u1", max_cost_usd=1.0, explain=True)
    assert text.propensities is not None
    assert sum(text.propensities.values()) == pytest.approx(1.0)
    assert text.arms is not None
    array = client.decide(embedding=np.asarray(a_vector(1)), arms=["gemini-2.5-pro"])
    assert (array.arm, array.propensity) == ("gemini-2.5-pro", 1.0)
    half: Any = np.float32(0.5)
    assert client.reward(array, quality=half, cost_usd=0.001).status == "accepted"
    assert client.reward(array.decision_id, quality=0.5).status == "duplicate"
    assert client.reward(array, quality=0.25, correction=True).status == "accepted"
    record = client.decision(array.decision_id)
    assert record.signals == {"quality": 0.25, "cost_usd": 0.001}
    assert client.explain(decision=array).arms[0].expected.n is not None
    messages = [{"role": "user", "content": "Write a haiku."}]
    assert client.explain(messages=messages).policy == text.policy
    loser = "mistral-large-2512"
    won = client.compare(array.arm, loser, decision_id=array.decision_id)
    assert (won.status, won.decision_id) == ("accepted", array.decision_id)
    both = client.comparisons(
        [
            {"winner": array.arm, "loser": loser, "embedding": a_vector(2)},
            {"winner": array.arm, "loser": "nobody", "embedding": a_vector(2)},
        ]
    )
    assert [each.status for each in both] == ["accepted", "error"]
    results = client.rewards(
        [
            {"decision_id": text.decision_id, "reward": 0.5},
            {"arm": loser, "embedding": a_vector(3), "quality": 1.0},
            {"decision_id": "nobody's", "quality": 1.0},
        ]
    )
    assert [each.status for each in results] == ["accepted", "accepted", "error"]
    assert results[2].error is not None
    assert results[2].error.code == "unknown"
    assert client.rewards([]) == []
    assert client.forget_unit("u1").erased >= 1
    with pytest.raises((Unknown, Expired)):
        client.decision(text.decision_id)


def test_decisions_are_found_by_tag(client: Client) -> None:
    made = [
        client.decide(embedding=a_vector(60 + i), tags=[f"mine{i}", "mine"]).decision_id
        for i in range(3)
    ]
    found = client.decisions(tags=["mine"], limit=2)
    assert [one.decision_id for one in found.decisions] == made[:0:-1]
    assert found.decisions[0].tags == ["mine", "mine2"]
    rest = client.decisions(tags=["mine"], before=found.next)
    assert [one.decision_id for one in rest.decisions] == made[:1]
    assert client.decision(made[0]).tags == ["mine", "mine0"]
    with pytest.raises(ValueError, match="tags: must be a list"):
        client.decisions(tags="mine")


def test_a_user_votes_by_token(client: Client) -> None:
    decision = client.decide(embedding=a_vector(40))
    assert decision.feedback_token
    assert client.vote(decision).vote == "neutral"
    assert client.vote(decision.feedback_token, "up").vote == "up"
    assert client.decision(decision.decision_id).signals == {"quality": 1.0, "vote": 1.0}
    assert client.vote(decision, "neutral").vote == "neutral"
    assert client.decision(decision.decision_id).settled is False
    with pytest.raises(Invalid, match="up, down, neutral"):
        client.vote(decision, "yes")
    with pytest.raises(ValueError, match="token: this decision has no feedback token"):
        client.vote(client.decision(decision.decision_id))


def test_the_catalogue_and_the_experiments(client: Client) -> None:
    made = client.put_arm("extra/one", usd_per_mtok_in=1.0, usd_per_mtok_out=2.0, tags=["new"])
    assert (made.source, made.tags, made.retired) == ("api", ["new"], False)
    assert client.retire_arm("extra/one").retired
    assert {"extra/one", "gemini-2.5-pro"} <= {each.id for each in client.arms()}
    serving = client.policies().serving
    assert client.policy_state(serving.name).key == serving.key
    with pytest.raises(Invalid) as wrong:
        client.put_policy("no_policy")
    assert wrong.value.field == "name"
    draft = client.put_experiment("trial", SPEC, why="a test")
    assert (draft.status, draft.experiment.variants[1].policy) == ("draft", "uniform")
    again = client.put_experiment("trial", draft.experiment)
    assert again.experiment.variants == draft.experiment.variants
    client.start_experiment("trial", why="reviewed")
    until = time.monotonic() + 60
    while client.experiment("trial").status == "starting":
        assert time.monotonic() < until
        time.sleep(0.05)
    assert client.change_experiment("trial", share=0.5).experiment.share == 0.5
    assert client.pause_experiment("trial").status == "paused"
    results = client.experiment_results("trial")
    assert [each.key for each in results.variants] == ["control", "treatment"]
    assert results.state == "not enough data"
    assert client.stop_experiment("trial", "control").winner == "control"
    assert [each.id for each in client.experiments().experiments] == ["trial"]
    assert client.delete_experiment("trial", why="done").id == "trial"
    assert client.put_rules(why="an outage", stopped=True).stopped
    assert not client.put_rules(stopped=False).stopped
    assert not client.rules().stopped
    assert client.health().status == "ok"
    assert client.ready().status == "ready"
    assert client.snapshot().offset > 0


def test_what_is_configured_changes_and_goes_back(served: Served, client: Client) -> None:
    before = client.configuration()
    budget = {"scope": "service", "per": "day", "usd": 1e6}
    after = client.put_configuration(before.revision, "more", budgets=[budget])
    assert (after.budgets, after.history[0].why) == ([budget], "more")
    with pytest.raises(Conflict, match="revision") as stale:
        client.put_configuration(before.revision, budgets=[])
    assert stale.value.code == "stale"
    back = client.rollback_configuration(before.revision, None, why="less")
    assert (back.budgets, back.revision) == (before.budgets, after.revision + 1)
    made = client.make_key("fresh", "an app", scopes=["decide"])
    with Client(served.url, made.key) as fresh:
        assert fresh.decide(embedding=a_vector(1)).arm
        rotated = client.rotate_key("fresh")
        with pytest.raises(Denied):
            fresh.decide(embedding=a_vector(1))
    assert (rotated.id, rotated.old_expires) == ("fresh", "")
    assert "fresh" in [each.id for each in client.keys().keys]
    assert "fresh" not in [each.id for each in client.revoke_key("fresh", "done").keys]
    with pytest.raises(Unknown):
        client.revoke_key("fresh")


def test_history_and_judges(client: Client) -> None:
    client.decide(embedding=a_vector(1), tags=["told"])
    told = client.history(per="hour", by="tag", groups=100)
    assert sum(each.groups["told"].decisions for each in told.periods if "told" in each.groups) == 1
    assert client.judges() == []
    with pytest.raises(Invalid) as wrong:
        client.history(per="days")
    assert wrong.value.field == "per"


def test_a_stream_tells_of_a_frame_that_is_too_large(client: Client) -> None:
    """The error named no request, so that the call waited until its timeout."""
    with client.stream() as stream:
        with pytest.raises(Invalid, match="the frame has") as refused:
            stream.decide("x" * 1_200_000).result(timeout=60)
        assert refused.value.code == "too_large"
        assert stream.decide(embedding=a_vector(1)).result(timeout=60).arm


def test_a_stream_with_many_in_flight(client: Client) -> None:
    vectors = [np.asarray(a_vector(i)) for i in range(4)]
    with client.stream() as stream:
        futures = [stream.decide(embedding=vectors[i % 4]) for i in range(300)]  # above the credits
        made = [future.result() for future in futures]
        assert len({each.decision_id for each in made}) == 300
        rewards = [stream.reward(each, quality=0.5) for each in made[:50]]
        assert {future.result().status for future in rewards} == {"accepted"}
        with pytest.raises(Invalid) as wrong:
            stream.reward(made[60], quality=7).result()
        assert (wrong.value.field, wrong.value.code) == ("quality", "invalid_value")
        arm = made[61].arm
        other = next(each.id for each in client.arms() if not each.retired and each.id != arm)
        compared = stream.compare(arm, other, decision_id=made[61].decision_id)
        assert compared.result().status == "accepted"


async def test_the_same_on_a_loop(served: Served) -> None:
    async with AsyncClient(served.url, served.key) as client:
        made = await asyncio.gather(
            *(client.decide(embedding=a_vector(i), unit=f"u{i}") for i in range(20))
        )
        assert len({each.decision_id for each in made}) == 20
        assert (await client.reward(made[0], quality=1.0)).status == "accepted"
        for each in made[1:]:
            await client.reward_later(each, quality=0.5)
        assert (await client.flush()).delivered == 19
        assert (await client.decision(made[1].decision_id)).signals == {"quality": 0.5}
        assert (await client.rewards([{"decision_id": made[2].decision_id, "quality": 0.5}]))[
            0
        ].status == "duplicate"
        assert (await client.explain(decision=made[0])).arms
        assert (await client.policies()).serving.name
        async with client.stream() as stream:
            asked = (stream.decide(embedding=a_vector(i % 4)) for i in range(300))
            assert len(await asyncio.gather(*asked)) == 300
        with pytest.raises(Unknown) as wrong:
            await client.experiment("nobody's")
        assert wrong.value.code == "unknown"
        assert client.delivery.lost == 0
    with pytest.raises(RuntimeError, match="closed"):
        await client.ready()


def test_a_client_of_another_loop_says_so(served: Served) -> None:
    client = AsyncClient(served.url, served.key)

    async def asked() -> None:
        await client.ready()

    async def closed() -> None:
        await client.close()

    with asyncio.Runner() as first:
        first.run(asked())
        with asyncio.Runner() as second, pytest.raises(RuntimeError, match="another event loop"):
            second.run(asked())
        first.run(closed())


@pytest.mark.parametrize(
    ("kind", "field", "allowed", "wrong"),
    [
        (Invalid, "quality", "must be a number from 0 to 1", {"quality": 7}),
        (Invalid, "qualiti", "did you mean quality?", {"qualiti": 1.0}),
        (Invalid, "metrics", "is no name for one", {"metrics": {"a b": 1.0}}),
        (Conflict, "quality", "correction: true", {"quality": 0.25}),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(
    client: Client, kind: type[ServiceError], field: str, allowed: str, wrong: dict[str, float]
) -> None:
    made = client.decide(embedding=a_vector(0))
    client.reward(made, quality=0.5)
    with pytest.raises(kind) as refused:
        client.reward(made, **wrong)  # type: ignore[arg-type]
    error = refused.value
    assert error.field == field
    assert allowed in error.allowed
    assert error.message.startswith(error.allowed) or error.field in error.message
    assert len(error.request_id) == 32
    assert error.request_id in str(error)


def test_other_refusals(served: Served, client: Client) -> None:
    with pytest.raises(Invalid) as none_left:
        client.decide("hello", max_cost_usd=0.0)
    assert (none_left.value.code, none_left.value.status) == ("no_eligible_arm", 422)
    with Client(served.url, "bs_wrong") as stranger, pytest.raises(Denied) as denied:
        stranger.arms()
    assert (denied.value.code, denied.value.status) == ("unauthorized", 401)
    with Client(served.url, served.reader) as reader:
        with pytest.raises(Denied) as forbidden:
            reader.decide("hello")
        assert forbidden.value.code == "forbidden"
        assert reader.arms()
    with Client(served.url, "bs_wrong") as stranger, pytest.raises(Denied), stranger.stream():
        pass


def test_nobody_is_there() -> None:
    with socket.socket() as bound:  # and does not listen
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with Client(url, retries=Retries(attempts=1)) as client:
            with pytest.raises(NotReached, match=re.escape(url)):
                client.decide("hello")
            with pytest.raises(NotReached, match=re.escape(url)), client.stream():
                pass


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("quality", {"quality": float("nan")}),
        ("cost_usd", {"cost_usd": float("inf")}),
        ("metrics.thumbs", {"metrics": {"thumbs": float("nan")}}),
        ("embedding", {"embedding": "text"}),
        ("embedding", {"embedding": [[0.6, 0.8]]}),
        ("arm", {"arm": object()}),
    ],
)
def test_what_cannot_be_sent_is_named_and_not_sent(
    client: Client, named: str, fields: dict[str, object]
) -> None:
    """JSON has no NaN: it would go out as null, which means that nothing was said."""
    with pytest.raises(ValueError, match=f"^{named}: must be"):
        client.reward("d1", **fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{named}: must be"):
        client.reward_later("d1", **fields)  # type: ignore[arg-type]
    assert client.delivery.waiting == 0

"""Keys, scopes, tenants, rates, TLS and how much one key may teach."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import numpy as np
import pytest
import trustme

import policies
from bandit_service import cli, settings
from bandit_service.app import service
from bandit_service.core.errors import Denied, Forbidden, RateLimited, ShareExceeded
from bandit_service.http import auth
from bandit_service.http.routes import SCOPES
from bandit_service.settings import keys
from policies import ArmId, Arms, Context, Rewarded
from tests.service.running import Client, a_vector, serving

SECRETS = {id: keys.new_key() for id in ("app", "other", "admin", "reader", "slow", "old")}


def _key(id: str, *scopes: str, **fields: Any) -> dict[str, Any]:
    return {"id": id, "hash": SECRETS[id][1], "scopes": list(scopes), **fields}


KEYS = [
    _key("app", "decide", "reward", "read", tenant="acme"),
    _key("other", "decide", "reward", "read", tenant="globex", self_contained=True),
    _key("admin", "admin", "read", "decide", "reward", self_contained=True),
    _key("reader", "read"),
    _key("slow", "read", rate_per_s=0.001, burst=2),
    _key("old", "read", expires="2020-01-01"),
]


def as_(client: Client, id: str) -> Client:
    """The same client with this key."""
    return client.by(SECRETS[id][0])


@asynccontextmanager
async def _guarded(tmp_path: Path, models: Path, **environ: str) -> AsyncIterator[Client]:
    environ = {"BANDIT_KEYS": json.dumps(KEYS), **environ}
    async with serving(tmp_path / "var", models, **environ) as client:
        yield client


async def _code(client: Client, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, answer = await client.call(method, path, body)
    return status, answer.get("error", {}).get("code", "")


def test_what_changes_something_needs_admin_and_so_does_a_route_that_was_forgotten() -> None:
    changing = {each for each, scope in SCOPES.items() if scope == "admin"}
    assert {each for each in SCOPES if each[0] in ("PUT", "DELETE")} <= changing
    gate = auth.Gate(SCOPES, [msgspec.convert(KEYS[3], keys.ApiKey)])
    bearer = f"Bearer {SECRETS['reader'][0]}"
    for method, path in changing | {("POST", "/v1/forgotten")}:
        with pytest.raises(Forbidden):
            gate.admit(method, path, bearer, 0.0, 0.0)


async def test_a_key_is_asked_for_and_its_scope_is_kept(tmp_path: Path, models: Path) -> None:
    async with _guarded(tmp_path, models, BANDIT_SECURITY_OPEN_METRICS="false") as client:
        asked = {"embedding": a_vector(0)}
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(path))[0] == 200
        assert await _code(client, "POST", "/v1/decide", asked) == (401, "unauthorized")
        assert await _code(client, "GET", "/metrics") == (401, "unauthorized")
        assert await _code(client.by("bs_no"), "GET", "/v1/arms") == (401, "unauthorized")
        assert await _code(as_(client, "old"), "GET", "/v1/arms") == (401, "unauthorized")
        assert await _code(as_(client, "reader"), "GET", "/v1/arms") == (200, "")
        assert await _code(as_(client, "reader"), "POST", "/v1/decide", asked) == (403, "forbidden")
        assert await _code(as_(client, "app"), "DELETE", "/v1/arms/x") == (403, "forbidden")
        assert await _code(as_(client, "app"), "DELETE", "/v1/units/x") == (403, "forbidden")
        assert await _code(as_(client, "admin"), "DELETE", "/v1/arms/x") == (404, "unknown")
        slow = as_(client, "slow")
        codes = [await _code(slow, "GET", "/v1/arms") for _ in range(3)]
        assert codes == [(200, ""), (200, ""), (429, "rate_limited")]
        async with client.session.get(
            f"{client.url}/metrics", headers={"Authorization": f"Bearer {SECRETS['reader'][0]}"}
        ) as answer:
            text = await answer.text()
        assert 'bandit_requests_denied_total{reason="expired"} 1.0' in text
        assert 'bandit_requests_denied_total{reason="rate"} 1.0' in text


async def test_tenants_see_nothing_of_each_other(tmp_path: Path, models: Path) -> None:
    async with _guarded(tmp_path, models) as client:
        acme, globex, admin = (as_(client, id) for id in ("app", "other", "admin"))
        theirs = (await acme.decide())["decision_id"]
        assert (await acme.get(f"/v1/decisions/{theirs}"))[1]["tenant"] == "acme"
        body = {"embedding": a_vector(0), "tenant": "globex"}
        assert await _code(acme, "POST", "/v1/decide", body) == (403, "forbidden")
        never = "01900000-0000-7000-8000-000000000000"
        reward = {"decision_id": theirs, "quality": 0.0}
        compared = {"decision_id": theirs, "winner": "gemini-2.5-pro", "loser": "x"}
        for method, path, sent in (
            ("GET", f"/v1/decisions/{theirs}", None),
            ("POST", "/v1/rewards", reward),
            ("POST", "/v1/comparisons", compared | {"loser": "mistral-large-2512"}),
        ):
            status, other = await globex.call(method, path, sent)
            unknown = json.loads(json.dumps(sent).replace(theirs, "01ffffff" + never[8:]))
            path_of_none = path.replace(theirs, "01ffffff" + never[8:])
            _, none = await globex.call(method, path_of_none, unknown)
            assert status == 404
            assert other["error"]["code"] == none["error"]["code"] == "unknown"
        assert await acme.reward(theirs, quality=1.0) == "accepted"
        # one idempotency key, two tenants; and acme may not stand alone
        alone = {"embedding": a_vector(3), "arm": "gemini-2.5-pro", "quality": 0.5}
        keyed = alone | {"idempotency_key": "k"}
        assert await _code(acme, "POST", "/v1/rewards", keyed) == (403, "forbidden")
        assert (await globex.post("/v1/rewards", keyed))[1]["results"][0]["status"] == "accepted"
        assert (await globex.post("/v1/rewards", keyed))[1]["results"][0]["status"] == "duplicate"
        other_value = keyed | {"quality": 0.9}
        assert (await admin.post("/v1/rewards", other_value))[1]["results"][0]["status"] == (
            "accepted"
        )


async def test_the_stream_asks_for_the_same(tmp_path: Path, models: Path) -> None:
    async with _guarded(tmp_path, models) as client:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await client.session.ws_connect(f"{client.url}/v1/stream", protocols=("bandit.v1",))
        async with client.session.ws_connect(
            f"{client.url}/v1/stream",
            protocols=("bandit.v1",),
            headers=as_(client, "reader").headers,
        ) as stream:
            await stream.receive_bytes()
            frame = {"op": "decide", "id": 1, "embedding": a_vector(0)}
            await stream.send_bytes(msgspec.msgpack.encode(frame))
            answer = msgspec.msgpack.decode(await stream.receive_bytes())
            assert answer["error"]["code"] == "forbidden"


async def test_tls_by_setting_and_nothing_older_than_1_2(tmp_path: Path, models: Path) -> None:
    ca = trustme.CA()
    server, client_cert = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.org")
    for name, blob in (("key", server.private_key_pem), ("ca", ca.cert_pem)):
        blob.write_to_path(tmp_path / name)
    for blob in server.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert", append=True)
    where = {
        "BANDIT_SERVER_TLS_CERT": str(tmp_path / "cert"),
        "BANDIT_SERVER_TLS_KEY": str(tmp_path / "key"),
        "BANDIT_SERVER_TLS_CLIENT_CA": str(tmp_path / "ca"),
    }
    async with serving(tmp_path / "var", models, **where) as client:
        assert client.url.startswith("https://")
        trusting = ssl.create_default_context()
        ca.configure_trust(trusting)
        with pytest.raises(aiohttp.ClientError):  # no certificate of its own
            await client.session.get(f"{client.url}/healthz", ssl=trusting)
        client_cert.configure_cert(trusting)
        async with client.session.get(f"{client.url}/healthz", ssl=trusting) as answer:
            assert answer.status == 200
        chosen = settings.read(None, where)
        context = service.tls_context(chosen)
        assert context is not None
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"BANDIT_SERVER_HOST": "0.0.0.0"}, "server.host"),
        ({"BANDIT_SERVER_HOST": "::", "BANDIT_KEYS": json.dumps(KEYS)}, "TLS"),
        ({"BANDIT_SERVER_TLS_CERT": "/no/such"}, "server.tls_key"),
        ({"BANDIT_SERVER_TLS_CERT": "/no", "BANDIT_SERVER_TLS_KEY": "/no"}, "cannot be used"),
    ],
)
async def test_what_would_be_open_to_the_world_does_not_start(
    tmp_path: Path, environ: dict[str, str], named: str
) -> None:
    chosen = settings.read(None, {"BANDIT_DATA_DIR": str(tmp_path), **environ})
    with pytest.raises(settings.BadSettings, match=named):
        async with service.serving(chosen):
            pass
    assert not (tmp_path / "events.sqlite3").exists()
    assert settings.exposure(settings.read(None, {"BANDIT_SERVER_HOST": "localhost"})) == ""
    open_on_purpose = {"BANDIT_SERVER_HOST": "0.0.0.0", "BANDIT_SERVER_INSECURE": "true"}
    assert settings.exposure(settings.read(None, open_on_purpose)) == ""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", "system"),
        ("scopes", ["root"]),
        ("scopes", []),
        ("hash", "abc"),
        ("reward_share", 0.0),
        ("expires", "tomorrow"),
        ("rate_per_s", -1.0),
        ("unheard_of", 1),
    ],
)
def test_a_wrong_key_is_refused_by_its_field(field: str, value: object) -> None:
    entry = _key("app", "decide") | {field: value}
    with pytest.raises(settings.BadSettings, match=rf"keys\[0\]\.{field}"):
        settings.read(None, {"BANDIT_KEYS": json.dumps([entry])})


def test_a_new_key_fits_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", "new", "--id", "a", "--scopes", "decide,reward"]) == 0
    printed = capsys.readouterr().out
    key = printed.split("only now: ")[1].split()[0]
    assert keys.hash_of(key) in printed
    assert cli.main(["keys", "new", "--id", "a", "--scopes", "everything"]) == 2


def test_time_tells_nothing_as_every_entry_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def counting(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("hmac.compare_digest", counting)
    gate = auth.Gate(SCOPES, [msgspec.convert(each, keys.ApiKey) for each in KEYS])
    gate.admit("GET", "/v1/arms", f"bearer {SECRETS['app'][0]}", 0.0, 0.0)
    with pytest.raises(Denied):
        gate.admit("GET", "/v1/arms", "Bearer bs_wrong", 0.0, 0.0)
    assert len(compared) == 2 * len(KEYS)


def test_a_bucket_refills_with_time() -> None:
    """Two a second, three at once: three pass, the fourth must wait; half a second on, one."""
    entry = msgspec.convert(_key("app", "read", rate_per_s=2.0, burst=3), keys.ApiKey)
    gate, bearer = auth.Gate(SCOPES, [entry]), f"Bearer {SECRETS['app'][0]}"
    for _ in range(3):
        gate.admit("GET", "/v1/arms", bearer, 0.0, 10.0)
    with pytest.raises(RateLimited):
        gate.admit("GET", "/v1/arms", bearer, 0.0, 10.0)
    gate.admit("GET", "/v1/arms", bearer, 0.0, 10.5)


def test_the_share_of_one_key_is_bounded_and_others_free_it() -> None:
    tables = [
        msgspec.convert(_key("app", "reward", reward_share=0.1), keys.ApiKey),
        msgspec.convert(_key("other", "reward"), keys.ApiKey),
    ]
    gate = auth.Gate(SCOPES, tables, window=200)
    greedy, others = auth.Caller("app"), auth.Caller("other")
    for _ in range(100):
        gate.taught(others)
    accepted = 0
    for _ in range(100):
        try:
            gate.may_teach(greedy)
        except ShareExceeded:
            continue
        gate.taught(greedy)
        accepted += 1
    assert accepted == 11  # the eleventh is a tenth of 110
    for _ in range(200):
        gate.taught(others)
    gate.may_teach(greedy)


def _traffic_of_the_best(share: float) -> float:
    """How often the better of two arms is taken while a client of 5 % of the queries lies in bulk.

    The liar sends twenty outcomes for each of its queries, as a client with self-contained
    outcomes can: the worse arm is praised, the better one damned.
    """
    tables = [
        msgspec.convert(_key("app", "reward", reward_share=share), keys.ApiKey),
        msgspec.convert(_key("other", "reward"), keys.ApiKey),
    ]
    gate, rng = auth.Gate(SCOPES, tables), np.random.default_rng(3)
    policy = policies.load("epsilon_greedy")
    state = policy.init()
    arms = Arms((ArmId("best"), ArmId("worst")), np.zeros(2), np.zeros(2))
    context = Context(np.ones(1, np.float32), 1, 0.1)
    taken = 0.0

    def teach(caller: auth.Caller, arm: ArmId, reward: float) -> None:
        nonlocal state
        try:
            gate.may_teach(caller)
        except ShareExceeded:
            return
        gate.taught(caller)
        rewarded = Rewarded(context, arm, 0.5, 0.0, 0.0, reward=reward)
        state = policy.learn(state, rewarded)

    for i in range(2000):
        propensities = policy.propose(state, context, arms).propensities
        taken += float(propensities[0])
        if i % 20 == 0:
            for _ in range(20):
                teach(auth.Caller("app"), ArmId("worst"), 1.0)
                teach(auth.Caller("app"), ArmId("best"), -1.0)
        arm = arms.ids[int(rng.random() > propensities[0])]
        quality = 0.8 if arm == "best" else 0.3
        teach(auth.Caller("other"), arm, quality + 0.1 * float(rng.normal()))
    return taken / 2000


def test_a_twentieth_of_liars_moves_little_when_their_share_is_bounded() -> None:
    honest, capped, free = (_traffic_of_the_best(share) for share in (1e-9, 0.05, 1.0))
    assert honest - capped < 0.05
    assert honest - free > 0.3

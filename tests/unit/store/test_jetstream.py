"""The log in NATS JetStream: what every log must do, and what its streams and servers add."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from bandit_service import clock
from bandit_service.testing.log_records import owned, record
from bandit_service.testing.logs import LogSuite
from loadtest.nats import Nats, NatsServers
from store import (
    Corrupt,
    Duplicate,
    Entry,
    EventLog,
    Fenced,
    Offset,
    OtherKey,
    Outdated,
    Record,
    Unfit,
    Unsure,
    _jetstream_reading,
    _nats_wire,
    can_erase_shared,
    jetstream,
)
from store import _jetstream_snapshots as shared_snapshots
from store._jetstream_record import pack, shard_of
from store._jetstream_stream import Stream
from store._nats_wire import Late, Refused, Wire, address_of
from store.jetstream import MOST, JetStreamLog
from tests import shared_log
from tests.shared_log import Synchronous
from tests.tools import imported
from tests.unit.store.shared_suite import Joined, SharedSuite, all_of, all_of_after, entries


class TestJetStreamLog(LogSuite):
    durable = True
    address = ""

    @pytest.fixture(autouse=True)
    def _server(self, nats: NatsServers) -> None:
        type(self).address = nats.address

    def make(self, path: Path) -> EventLog:
        return Synchronous(JetStreamLog(self.address, str(path), insecure_single=True), MOST)


class TestSharedJetStream(SharedSuite):
    """By the fixture `joined` below."""


@pytest.fixture
async def joined(nats: NatsServers, tmp_path: Path) -> AsyncIterator[Joined]:
    """Opens replicas of this test's log."""
    logs: list[JetStreamLog] = []

    async def joining(name: str, key: str = "key", log: str = "") -> JetStreamLog:
        opened = JetStreamLog(nats.address, f"{tmp_path}{log}", insecure_single=True)
        logs.append(opened)
        await opened.connect()
        await opened.join(name, key)
        return opened

    yield joining
    for log in logs:
        await log.close()


async def test_a_server_alone_is_refused_unless_it_is_said_to_be_enough(
    nats: NatsServers, tmp_path: Path
) -> None:
    log = JetStreamLog(nats.address, str(tmp_path))
    with pytest.raises(Unfit, match=r"3 copies.*log\.insecure_single = true"):
        await log.connect()
    single = await opened(nats, tmp_path)
    await single.close()
    with pytest.raises(Unfit, match="it has 1 copy, 3 are needed"):  # it is there by now
        await log.connect()


@pytest.mark.parametrize(
    ("weaker", "why"),
    [
        ({"storage": "memory"}, "its storage is memory, file is needed"),
        ({"max_age": 3_600_000_000_000}, "max_age is 3600000000000 ns: nothing may be deleted"),
        ({"max_msgs": 10}, "max_msgs is 10: nothing may be deleted"),
        ({"max_bytes": 10_000}, "max_bytes is 10000: nothing may be deleted"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject is 1: nothing may be deleted"),
        ({"max_msg_size": 1000}, "max_msg_size is 1000: nothing may be deleted or refused"),
        ({"retention": "interest"}, "its retention is interest, limits is needed"),
        ({"allow_atomic": False}, "it takes no atomic batches"),
        ({"subjects": ["bandit.weak.d.>"]}, "its subjects are"),
        ({"no_ack": True, "allow_atomic": False}, "it has no_ack"),
        ({"metadata": {}}, "its metadata does not say that it is the log 'weak'"),
    ],
)
async def test_a_stream_that_keeps_less_than_is_promised_is_refused(
    nats: NatsServers, weaker: dict[str, Any], why: str
) -> None:
    right = {
        "name": "bandit_weak",
        "subjects": ["bandit.weak.>"],
        "storage": "file",
        "num_replicas": 1,
        "allow_atomic": True,
        "metadata": {"bandit_log": "weak"},
    }
    async with wired(nats) as wire:
        await wire.ask("STREAM.CREATE.bandit_weak", **(right | weaker))
        try:
            with pytest.raises(Unfit, match=why):
                await JetStreamLog(nats.address, "weak", insecure_single=True).connect()
        finally:
            await wire.ask("STREAM.DELETE.bandit_weak")


async def test_what_cannot_be_reached_or_entered_is_told(nats: NatsServers) -> None:
    with pytest.raises(Unsure, match=r"127.0.0.1:9: no NATS server answers"):
        await JetStreamLog("nats://bandit:topsecret@127.0.0.1:9").connect()
    with pytest.raises(Unfit, match="rejects the credentials") as refused:
        await JetStreamLog(nats.address.replace("bandit:", "bandit:not")).connect()
    assert nats.address.partition("@")[0].rpartition(":")[2] not in str(refused.value)
    for odd in ("nats://bandit:topsecret/x@127.0.0.1", "postgresql://topsecret@h", "topsecret"):
        with pytest.raises(Unfit, match="cannot be read") as unread:
            JetStreamLog(odd)
        assert "topsecret" not in str(unread.value)
    with pytest.raises(Unfit, match="files of TLS in the address cannot be read"):
        await JetStreamLog("tls://127.0.0.1?tls_ca=/no/such/file").connect()


def test_an_address_names_servers_and_how_to_be_let_in() -> None:
    found = address_of("nats://u%40:p%2F@a:1,b,[::1]:3?creds=/run/c&tls_ca=/run/ca")
    assert found.servers == ("a:1", "b:4222", "[::1]:3")
    assert (found.user, found.password, found.tls) == ("u@", "p/", True)
    assert found.files == {"creds": "/run/c", "tls_ca": "/run/ca"}
    assert address_of("nats://[::1]").servers == ("[::1]:4222",)
    for hosts in ("[::1]:1,[fe80::2%25eth0]:2", "a:1,[::1]:2,b:3", "[::1]:1,a:2"):  # any Python
        assert address_of(f"TLS://t@{hosts}/").servers == tuple(hosts.split(","))
    for odd in ("nats://a:1,[::1:2", "nats://::1]:1", "nats://[::1]x:1", "nats://", "nats:a:1"):
        with pytest.raises(Unfit, match="cannot be read"):
            address_of(odd)


@asynccontextmanager
async def speaking(says: bytes) -> AsyncIterator[str]:
    """A server that says this, and answers every PING."""

    async def serve(reads: asyncio.StreamReader, writes: asyncio.StreamWriter) -> None:
        writes.write(says)
        while line := await reads.readline():
            if line.startswith(b"PING"):
                writes.write(b"PONG\r\n")
        writes.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield "{}:{}".format(*server.sockets[0].getsockname())


@pytest.mark.parametrize(
    ("says", "error", "why"),
    [
        (
            b'INFO {"server_id":"x","version":"2.9.10","headers":true,"max_payload":1048576,'
            b'"jetstream":true}\r\n',
            Unfit,
            r"is 2\.9\.10; 2\.12\.1 or newer is needed",
        ),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Unsure, "no NATS server answers"),
        (b"", Unsure, "did not answer within"),
    ],
    ids=["old", "wrong", "silent"],
)
async def test_a_server_that_is_too_old_or_none_is_told(
    says: bytes, error: type[Exception], why: str
) -> None:
    async with speaking(says) as server:
        with pytest.raises(error, match=why):
            await JetStreamLog(f"nats://{server}", timeout_s=1.0).connect()


_DENIED = 'publish: { deny: ["$JS.API.STREAM.>"] }'
# as docs/scale.md says
_ENOUGH = 'publish: ["bandit.>", "$KV.>", "$O.>", "$JS.API.>", "$JS.FC.>"], subscribe: ["_INBOX.>"]'
_ACCOUNT = (
    "accounts {{ A: {{ {} users: [{{ user: bandit, password: x, permissions: {{ {} }} }}] }} }}"
)


@contextmanager
def server(path: Path, *lines: str) -> Iterator[NatsServers]:
    """One of its own that lets people in as these lines say."""
    shared_log.nats_wanted()
    one = Nats(path / "n", "x", "\n".join(lines), authorized=False)
    try:
        one.start()
        one.ready()
        yield NatsServers([one], "x")
    finally:
        one.kill()


@pytest.mark.parametrize(
    ("account", "why"),
    [
        (_ACCOUNT.format("", ""), "JetStream is not enabled"),
        (_ACCOUNT.format("jetstream: enabled,", _DENIED), "refuses it: .*permissions violation"),
    ],
    ids=["no jetstream", "no rights"],
)
async def test_a_server_without_jetstream_or_rights_is_told(
    tmp_path: Path, account: str, why: str
) -> None:
    with server(tmp_path, account) as servers:
        log = JetStreamLog(servers.address, insecure_single=True, timeout_s=1.0)
        with pytest.raises(Unfit, match=f"(?i){why}"):
            await log.connect()


async def use(log: JetStreamLog) -> None:
    """All that a replica does."""
    await log.connect()
    await log.join("one", "key")
    lease = await log.lead("keeper", None, 60.0)
    await log.append(entries(1, 700), 0.0)
    await log.append(entries(701, 702), 0.0, lease)
    assert len(await all_of(log)) == 702
    assert await log.find(["e7"]) == {"e7": 7}
    await log.beat(1.0, 702)
    await log.save_snapshot("key", Offset(702), b"a state", 1)
    assert await log.newest_snapshot("key", Offset(0), Offset(702)) == (702, b"a state")
    await log.leave()
    await log.close()


async def test_the_rights_that_the_documents_name_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_jetstream_reading, "_ENOUGH", 50)
    with server(tmp_path, _ACCOUNT.format("jetstream: enabled,", _ENOUGH)) as servers:
        await use(JetStreamLog(servers.address, insecure_single=True))


async def test_a_server_is_reached_by_tls_and_only_one_that_is_known(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    ca, cert, key = (str(tmp_path / each) for each in ("ca", "cert", "key"))
    authority.cert_pem.write_to_path(ca)
    certificate.cert_chain_pems[0].write_to_path(cert)
    certificate.private_key_pem.write_to_path(key)
    told = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{ca}", verify: true }}'
    with server(tmp_path, "authorization { token: x }", told) as servers:
        host = servers.address.rpartition("@")[2]
        address = f"tls://x@{host}?tls_ca={ca}"
        await use(JetStreamLog(f"{address}&tls_cert={cert}&tls_key={key}", insecure_single=True))
        with pytest.raises(Unsure, match=r"no NATS server answers: .*certificate"):
            await JetStreamLog(f"tls://x@{host}", timeout_s=2.0).connect()
        with pytest.raises(Unsure):  # it asks for ours, too
            await JetStreamLog(address, timeout_s=2.0).connect()


def _claim(issuer: Any, subject: str, name: str, nats: dict[str, Any]) -> str:
    """A JSON web token as NATS signs it."""

    def part(value: Any) -> bytes:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=")

    claims = {"jti": name, "iat": 1, "iss": issuer.public_key.decode(), "name": name}
    claims |= {"sub": subject, "nats": nats | {"version": 2}}
    text = part({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + part(claims)
    return (text + b"." + part(issuer.sign(text))).decode()


async def test_a_file_of_credentials_lets_in(tmp_path: Path) -> None:
    nkeys = imported("nkeys")
    kinds = (nkeys.PREFIX_BYTE_OPERATOR, *[nkeys.PREFIX_BYTE_ACCOUNT] * 2, nkeys.PREFIX_BYTE_USER)
    operator, account, system, user = (
        nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind)) for kind in kinds
    )
    unlimited = dict.fromkeys(("subs", "data", "payload"), -1)
    storage = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    others = dict.fromkeys(("conn", "leaf", "imports", "exports"), -1)
    limits, of = unlimited | others, [each.public_key.decode() for each in (account, system)]
    own = _claim(operator, operator.public_key.decode(), "o", {"type": "operator"})
    accounts = [
        _claim(operator, of[0], "a", {"type": "account", "limits": limits | storage}),
        _claim(operator, of[1], "s", {"type": "account", "limits": limits}),
    ]
    token = _claim(account, user.public_key.decode(), "u", {"type": "user"} | unlimited)
    file = tmp_path / "creds"
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    known = ", ".join(f"{name}: {each}" for name, each in zip(of, accounts, strict=True))
    lines = [f"operator: {own}", f"system_account: {of[1]}", "resolver: MEMORY"]
    with server(tmp_path, *lines, f"resolver_preload: {{ {known} }}") as servers:
        host = servers.address.rpartition("@")[2]
        await use(JetStreamLog(f"nats://{host}?creds={file}", insecure_single=True))
        with pytest.raises(Unfit, match="rejects the credentials"):
            await JetStreamLog(f"nats://{host}").connect()
        with pytest.raises(Unfit, match="file of credentials in the address cannot be read"):
            await JetStreamLog(f"nats://{host}?creds=/no/such/file").connect()


@asynccontextmanager
async def wired(nats: NatsServers) -> AsyncIterator[Wire]:
    wire = Wire(5.0)
    address = address_of(nats.address)
    await wire.open(address, address.servers[0], 5.0)
    try:
        yield wire
    finally:
        await wire.close()


async def opened(nats: NatsServers, path: Path, name: str = "one") -> JetStreamLog:
    log = JetStreamLog(nats.address, str(path), insecure_single=True)
    await log.connect()
    await log.join(name, "key")
    return log


@pytest.mark.parametrize("late", ["STREAM.INFO.KV_", "STREAM.MSG.GET.KV_", "CONSUMER.CREATE."])
async def test_a_stream_that_another_creates_meanwhile_is_asked_for_until_it_is_there(
    nats: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    """As in a cluster whose leaders are elected while several replicas start."""
    whole, created, behind = Wire._ask, list[str](), 2

    async def racing(
        wire: Wire, what: str, given: dict[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        nonlocal behind
        if created and behind and what.startswith(late):
            behind -= 1
            raise Refused(10059, "stream not found")
        found = await whole(wire, what, given, timeout_s)
        if what.startswith("STREAM.CREATE.KV_"):
            created.append(what)
            raise Refused(10058, "stream name already in use")
        return found

    monkeypatch.setattr(_nats_wire, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(Wire, "_ask", racing)
    log = await opened(nats, tmp_path)
    await log.append(entries(1, 2), 0.0)
    assert len(await all_of(log)) == 2
    assert (len(created), behind) == (1, 0)
    await log.close()


async def test_a_stream_that_another_creates_and_that_never_comes_is_told(
    nats: NatsServers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counter[str]()

    async def without(wire: Wire, what: str, *given: Any) -> dict[str, Any]:
        kind = what.split(".")[1]
        asked[kind] += 1
        if kind == "CREATE":
            raise Refused(10058, "stream name already in use")
        raise Refused(10059, "stream not found")

    monkeypatch.setattr(_nats_wire, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(Wire, "_ask", without)
    log = JetStreamLog(nats.address, str(tmp_path), insecure_single=True, timeout_s=0.1)
    with pytest.raises(Unsure, match=r"cannot describe the stream bandit_.*not found \(10059\)"):
        await log.connect()
    assert asked["CREATE"] == 1
    assert asked["INFO"] > 2  # the first one, which says that it is to be created, is not repeated


@pytest.mark.parametrize("done", [True, False])
async def test_what_an_append_without_an_answer_wrote_is_found_after_joining_again(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    await log.append(entries(1, 2), 0.0)
    put, some = Wire.put, [*entries(3, 4), *entries(5, 6, "decision", 2)]

    async def unanswered(wire: Wire, subject: str, *given: Any) -> dict[str, Any]:
        if subject.startswith("bandit."):
            if done:
                await put(wire, subject, *given)
            raise Unsure("no answer")
        return await put(wire, subject, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Wire, "put", unanswered)
        with pytest.raises(Unsure):
            await log.append(some, 0.0)
    await log.connect()
    await log.join("one", "key")
    wanted = [each.record.eid for each in some]
    assert await log.find(wanted) == (dict(zip(wanted, range(3, 7), strict=True)) if done else {})
    if done:
        with pytest.raises(Duplicate):
            await log.append(some[:2], 0.0)
    else:
        assert await log.append(some, 0.0) == 6
    assert [each.record.eid for each in await all_of(log)] == [f"e{i}" for i in range(1, 7)]


@pytest.mark.parametrize("subject", ["", "decision"])
async def test_an_append_that_comes_late_is_refused_or_looked_at(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    """It was under way on an old connection, and its ids are not remembered by the server."""
    for each in (jetstream, _jetstream_reading):
        monkeypatch.setattr(each, "MESSAGE_ID", "X-Forgotten")
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    late: list[Any] = []
    put = Wire.put

    async def held(wire: Wire, at: str, *given: Any) -> dict[str, Any]:
        if at.startswith("bandit."):
            late.append((at, *given))
            raise Unsure("no answer")
        return await put(wire, at, *given)

    with monkeypatch.context() as patched:
        patched.setattr(Wire, "put", held)
        with pytest.raises(Unsure):
            await log.append(entries(1, 1, subject), 0.0)
    await log.connect()
    await log.join("one", "key")
    assert await log.find(["e1"]) == {}
    if subject:
        await log._shards.learn({shard_of(subject.encode()): 0})
    assert "error" not in str(await put(log._wire, *late[0]))  # it lands after it was looked for
    with pytest.raises(Duplicate):
        await log.append(entries(1, 1, subject), 0.0)
    # and the other way round
    with monkeypatch.context() as patched:
        patched.setattr(Wire, "put", held)
        with pytest.raises(Unsure):
            await log.append(entries(2, 2, subject, 1), 0.0)
    await log.connect()
    await log.join("one", "key")
    assert await log.append(entries(2, 2, subject, 1), 0.0) == 2
    with pytest.raises(Refused, match="wrong last sequence"):
        await put(log._wire, *late[1])


async def test_who_led_and_stood_still_between_its_look_and_its_append_is_fenced(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await joined("one"), await joined("other")
    held = await one.lead("keeper", None, 0.1)
    assert held is not None
    await one.append(entries(1, 1), 0.0, held)
    put, standing, goes_on = Wire.put, asyncio.Event(), asyncio.Event()

    async def still(wire: Wire, subject: str, *given: Any) -> dict[str, Any]:
        if wire is one._wire and ".led." in subject:  # type: ignore[attr-defined]
            standing.set()
            await goes_on.wait()
        return await put(wire, subject, *given)

    monkeypatch.setattr(Wire, "put", still)
    zombie = asyncio.create_task(one.append(entries(2, 3), 0.0, held))
    await standing.wait()
    while (taken := await other.lead("keeper", None, 60.0)) is None:
        await asyncio.sleep(0.01)
    assert await other.append(entries(4, 4), 0.0, taken) == 2
    goes_on.set()
    with pytest.raises(Fenced):
        await zombie
    assert [each.record.eid for each in await all_of(other)] == ["e1", "e4"]


async def test_what_is_under_way_is_not_told_to_be_settled(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another replica would say 404 to what it waits for."""
    log = await joined("one")
    put, standing, goes_on = Wire.put, asyncio.Event(), asyncio.Event()

    async def still(wire: Wire, subject: str, *given: Any) -> dict[str, Any]:
        if subject.startswith("bandit."):
            standing.set()
            await goes_on.wait()
        return await put(wire, subject, *given)

    monkeypatch.setattr(Wire, "put", still)
    under_way = asyncio.create_task(log.append(entries(1, 2), 100.0))
    await standing.wait()
    await log.beat(50.0, 0)
    assert (await log.state()).settled == 50.0
    goes_on.set()
    await under_way
    await log.beat(50.0, 0)
    assert (await log.state()).settled == 100.0


async def test_another_decision_of_a_shard_is_no_conflict(joined: Joined) -> None:
    one, other = await joined("one"), await joined("other")
    subject = next(
        f"d{i}" for i in range(100_000) if shard_of(f"d{i}".encode()) == shard_of(b"decision")
    )
    assert await one.append(entries(1, 1, "decision"), 0.0) == 1
    assert await other.append(entries(2, 2, subject), 0.0) == 2
    assert await one.append(entries(3, 3, "decision", 1), 0.0) == 3
    assert await other.append(entries(4, 4, subject, 2), 0.0) == 4
    with pytest.raises(Outdated) as refused:
        await other.append([*entries(5, 5, subject, 4), *entries(6, 6, "decision", 1)], 0.0)
    assert refused.value.newer == {1: 3}


async def test_shards_know_what_was_written_also_where_most_is_forgotten(
    joined: Joined,
) -> None:
    log, other = await joined("one"), await joined("other")
    assert isinstance(log, JetStreamLog)
    log._shards._most = 8
    await log._shards.learn({shard_of(f"d{i}".encode()): 0 for i in range(1, 41)})
    for i in range(1, 41):
        await other.append(entries(i, i, f"d{i}", 99), 0.0)
        await all_of(log) if i % 7 == 0 else None
    assert len(log._shards._newest) <= 8
    for i in (1, 20, 40):
        with pytest.raises(Outdated) as refused:
            await log.append(entries(100 + i, 100 + i, f"d{i}", 0), 0.0)
        assert refused.value.newer == {0: i}
        assert await log.append(entries(200 + i, 200 + i, f"d{i}", i), 0.0) > 40


@pytest.mark.parametrize("name", ["one", "renamed"])
async def test_what_an_earlier_process_appended_is_found(joined: Joined, name: str) -> None:
    """Its spool has decisions of which it does not know whether they are in the log."""
    ids = clock.Ids()
    made = [ids.new(clock.now()) for _ in range(3)]
    first = await joined("one")
    some = [Entry(Record(eid, "decided", 1.0, b"x")) for eid in made[:2]]
    await first.append([*some, *entries(1, 1, "decision")], 0.0)
    again = await joined(name)
    assert await again.find(made) == {made[0]: 1, made[1]: 2}


async def test_a_hole_and_a_message_that_is_no_record_are_told(
    nats: NatsServers, joined: Joined, tmp_path: Path
) -> None:
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    await log.append(entries(1, 2), 0.0)
    async with wired(nats) as wire:
        subject = log._names.subjects.of_replica("one")
        body = pack(record(3), b"")
        await wire.put(subject, body[:-1] + bytes([body[-1] ^ 1]), {"Nats-Msg-Id": "e3"})
        with pytest.raises(Corrupt, match="at offset 3: its checksum in the stream"):
            await all_of(log)
        await wire.put(subject, b"not ours", {"Nats-Msg-Id": "e4"})
        with pytest.raises(Corrupt, match="at offset 4: the message in the stream"):
            await log.tail(Offset(3))
        await wire.ask(f"STREAM.MSG.DELETE.{log._names.stream}", seq=1)
        with pytest.raises(Corrupt, match="at offset 1: it is missing in the stream"):
            await log.tail(Offset(0))


async def test_a_reader_that_is_slow_is_not_given_more_than_it_takes(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_jetstream_reading, "_ENOUGH", 50)
    log = await joined("one")
    for first in range(1, 2001, 500):
        await log.append(entries(first, first + 499), 0.0)
    assert [each.offset for each in await all_of(log)] == list(range(1, 2001))


@pytest.mark.parametrize("lost", ["request", "answer"])
async def test_a_reader_whose_beginning_was_lost_begins_again(
    nats: NatsServers, joined: Joined, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """A stream without a leader forgets what it is asked."""
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    await log.append(entries(1, 5), 0.0)
    whole, asked = Wire._ask, list[str]()

    async def losing(wire: Wire, what: str, given: Any, timeout_s: float) -> Any:
        if not what.startswith("CONSUMER.CREATE"):
            return await whole(wire, what, given, timeout_s)
        asked.append(what)
        if len(asked) == 1 and lost == "request":
            raise Late("planted")
        found = await whole(wire, what, given, timeout_s)
        if len(asked) == 1:
            raise Late("planted")
        return found

    monkeypatch.setattr(Wire, "_ask", losing)
    async with wired(nats) as wire:
        found = _jetstream_reading.ids_of(wire, log._names.stream, [log._names.subjects.all])
        assert [offset async for _, offset in found] == [1, 2, 3, 4, 5]
    assert len(asked) == 2
    assert len(set(asked)) == 1


async def test_a_record_that_is_larger_than_a_message_may_be_is_kept_beside(
    joined: Joined,
) -> None:
    log, other = await joined("one"), await joined("other")
    bodies = [bytes([i]) * ((3 << 20) + i) for i in range(2)]
    big = [Record(f"big{i}", "decision", 1.0, body) for i, body in enumerate(bodies)]
    await log.append([*entries(1, 1), *[Entry(each, b"d") for each in big]], 0.0)
    assert [each.record for each in await all_of(other)] == [record(1), *big]
    assert await log.chain_at(Offset(3)) == (await all_of(other))[-1].chain != b""
    with pytest.raises(Outdated):
        await other.append(entries(2, 2, "d"), 0.0)
    await log.save_snapshot("key", Offset(3), b"a state", 1)  # and are none of the snapshots
    assert await log.newest_snapshot("key", Offset(0), Offset(3)) == (3, b"a state")
    assert await log.find(["big1"]) == {"big1": 3}
    with pytest.raises(ValueError, match="at most 1000 in one append, got 1001"):
        await log.append(entries(1, 1001), 0.0)


def _bytes_of(nats: NatsServers, marker: bytes) -> list[Path]:
    """The files of the servers that have it."""
    data = [one._directory / "data" for one in nats.servers]
    files = [path for one in data for path in one.rglob("*") if path.is_file()]
    return [path for path in files if marker in path.read_bytes()]


async def test_an_erasure_that_was_cut_off_is_continued_and_leaves_no_byte(
    nats: NatsServers, joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, other, erase, left = await joined("one"), await joined("other"), Stream.erase, [2]
    marker = f"marked {clock.now()}".encode()
    records = [
        Record(f"e{i}", "decided", 1.0, marker + bytes(1 + i), "ann" if i % 3 else "bob")
        for i in range(6)
    ]
    records.append(Record("big", "decided", 1.0, marker * 100_000, "ann"))  # is kept beside
    for each in records:
        await log.append([Entry(each), Entry(record(100 + len(each.body)))], 0.0)
    before = await all_of(other)
    assert len(_bytes_of(nats, marker)) >= 2

    async def stops(stream: Stream, seq: int) -> None:
        if not left[0]:
            raise Unsure("no answer: planted")
        left[0] -= 1
        await erase(stream, seq)

    assert isinstance(log, JetStreamLog)
    with monkeypatch.context() as patched:
        patched.setattr(Stream, "erase", stops)
        with pytest.raises(Unsure, match="planted"):
            await log.forget(["ann", "bob"], Offset(12))
    third = await joined("third")
    assert can_erase_shared(third)
    assert [bool(each.record.body) for each in await all_of(third)] == [False, True] * 2 + [
        True
    ] * 10
    assert await third.forget(["ann", "bob"], Offset(12)) == 4
    assert await third.forget(["ann"], Offset(14)) == 1
    found = await all_of(await joined("fourth"))
    assert [(each.record.eid, each.chain) for each in found] == [
        (each.record.eid, each.chain) for each in before
    ]
    assert [bool(each.record.body) for each in found] == [False, True] * 7
    files = _bytes_of(nats, marker)
    assert not [path for path in files if log.name[-20:] in str(path) or "OBJ_" not in str(path)]


async def test_what_trimmed_records_had_beside_the_stream_is_deleted(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    for i in range(3):
        await log.append([Entry(Record(f"big{i}", "d", 1.0, bytes([i + 1]) * (3 << 20)))], 0.0)
    await log.append([Entry(owned(i, "ann")) for i in range(4, 7)], 0.0)
    await log.forget(["ann"], Offset(4))
    await log.forget(["ann"], Offset(5))
    await log.append(entries(7, 7), 0.0)
    assert await _beside(log) == {"body": 3, "erased": 2}
    await log.trim(Offset(2))
    assert await _beside(log) == {"body": 3, "erased": 2}  # so young that their records may come
    monkeypatch.setattr(jetstream, "_EARLIER_S", -3600.0)
    await log.trim(Offset(4))
    assert await _beside(log) == {"erased": 1}
    assert [int(each.offset) for each in await all_of_after(log, 4)] == [5, 6, 7]


async def _beside(log: JetStreamLog) -> Counter[str]:
    async with shared_snapshots._store(log._apart, log._names, made=True) as (_, bucket):
        infos = await bucket.list(ignore_deletes=True)
    return Counter(info.name.partition(".")[0] for info in infos)


async def test_a_stream_that_denies_deletions_says_what_to_do(
    nats: NatsServers, tmp_path: Path
) -> None:
    log = JetStreamLog(nats.address, str(tmp_path), insecure_single=True)
    config = {
        "name": log._names.stream,
        "subjects": [log._names.subjects.all],
        "storage": "file",
        "allow_direct": True,
        "allow_atomic": True,
        "metadata": {"bandit_log": log.name},
    }
    async with wired(nats) as wire:
        await wire.ask(f"STREAM.CREATE.{log._names.stream}", **config, deny_delete=True)
        with pytest.raises(Refused, match="can not cancel deny message deletes"):  # so no setting
            await wire.ask(f"STREAM.UPDATE.{log._names.stream}", **config, deny_delete=False)
    await log.connect()
    await log.join("one", "key")
    assert await log.append(entries(1, 1), 0.0) == 1
    assert "which had it deny deletions; migrate the log to another log.name" in log.cannot_erase
    await log.close()


async def test_two_that_fold_otherwise_and_join_at_once_are_not_both_let_in(
    nats: NatsServers, tmp_path: Path
) -> None:
    logs = [JetStreamLog(nats.address, str(tmp_path), insecure_single=True) for _ in range(4)]
    await asyncio.gather(*(log.connect() for log in logs))
    for i, log in enumerate(logs):  # each has a slot, so that no two want the same one below
        await log.join(f"r{i}", "before")
    for log in logs:
        await log.leave()
    came = await asyncio.gather(
        *(log.join(f"r{i}", f"key{i % 2}") for i, log in enumerate(logs)), return_exceptions=True
    )
    in_by = {i % 2 for i, each in enumerate(came) if not isinstance(each, OtherKey)}
    assert len(in_by) <= 1
    assert {each.key for each in await logs[0].replicas() if not each.closed} <= {
        f"key{i}" for i in in_by
    }
    for log in logs:
        await log.close()


async def test_a_damaged_snapshot_is_told(nats: NatsServers, joined: Joined) -> None:
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    await log.save_snapshot("key", Offset(7), b"a state" * 100_000, 3)
    async with wired(nats) as wire:
        stream = Stream(wire, f"OBJ_{log._names.snapshots}")
        (chunk,) = [
            each
            for each, count in (await stream.state(">")).subjects.items()
            if ".C." in each and count == 6
        ]
        first = await stream.next(chunk, 0)
        assert first is not None
        await wire.ask(f"STREAM.MSG.DELETE.{stream.name}", seq=first.seq, no_erase=True)
    with pytest.raises(Corrupt, match="not as it was put there"):
        await log.newest_snapshot("key", Offset(0), Offset(7))


async def test_a_row_that_a_newer_release_wrote_is_read(nats: NatsServers, joined: Joined) -> None:
    log = await joined("one")
    assert isinstance(log, JetStreamLog)
    async with wired(nats) as wire:
        key = f"$KV.{log._names.bucket}.replica"
        told = {"name": "newer", "epoch": 3, "key": "key", "reads": 9, "more": [1]}
        await wire.put(f"{key}.2", json.dumps(told).encode())
    assert [(each.name, each.epoch, each.reads) for each in await log.replicas()] == [
        ("one", 1, 1),
        ("newer", 3, 9),
    ]

"""The streams of a log: created if they are missing, and refused if they keep too little."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from store._jetstream_record import BATCH, COMMIT, Message, Subjects, token, unpack
from store._nats_wire import NO_STREAM, Refused, Wire
from store._shared import Unfit, Unsure

_COPIES = 3
_WINDOW_NS = 120 * 10**9
_NO_MESSAGE = (10037, 10043, 10057)
_ALONE = (10074, 10005)
_IN_USE = 10058


@dataclass(frozen=True, slots=True)
class Names:
    """The names of a log's parts. bucket: of its replicas and leases, as `nats kv` shows it.
    snapshots: as `nats object` shows them.
    """

    log: str
    single: bool

    @property
    def stream(self) -> str:
        """Of its records."""
        return f"bandit_{token(self.log)}"

    @property
    def subjects(self) -> Subjects:
        """Of its records."""
        return Subjects(token(self.log))

    @property
    def bucket(self) -> str:
        """A key-value bucket."""
        return f"bandit_{token(self.log)}"

    @property
    def snapshots(self) -> str:
        """An object store."""
        return f"bandit_{token(self.log)}"

    @property
    def copies(self) -> int:
        """The number of servers that must have a copy."""
        return 1 if self.single else _COPIES


async def prepare(wire: Wire, names: Names) -> bool:
    """Create both streams if they are missing, and check that they keep acknowledged messages;
    whether single records can be erased, which no setting changes after a stream was created.

    Raises Unfit if one does not.
    """
    log = {
        "name": names.stream,
        "subjects": [names.subjects.all],
        "duplicate_window": _WINDOW_NS,
        "allow_atomic": True,
        "metadata": {"bandit_log": names.log},
    }
    members = {
        "name": f"KV_{names.bucket}",
        "subjects": [f"$KV.{names.bucket}.>"],
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_rollup_hdrs": True,
        "deny_delete": True,
    }
    found = []
    for wanted in (log, members):
        common = {"storage": "file", "num_replicas": names.copies, "allow_direct": True}
        found.append(await _there(wire, wanted | common))
        _check(found[-1], wanted, names)
    return not found[0].get("deny_delete")


async def _there(wire: Wire, wanted: dict[str, Any]) -> dict[str, Any]:
    name = wanted["name"]
    try:
        return await _described(wire, name, made=False)
    except Refused as error:
        if error.code != NO_STREAM:
            raise _undescribed(name, error) from None
    try:
        return dict((await wire.ask_again(f"STREAM.CREATE.{name}", **wanted))["config"])
    except Refused as error:
        if error.code in _ALONE:
            raise Unfit(
                f"the stream {name} is to have {_COPIES} copies, and there are not so many "
                f"servers ({error.why}); run a cluster of {_COPIES}, or set "
                "log.insecure_single = true where the log may be lost with its server"
            ) from None
        if error.code != _IN_USE:  # another replica that starts has created it
            raise Unsure(f"JetStream cannot make the stream {name}: {error}") from None
    try:
        return await _described(wire, name, made=True)
    except Refused as error:
        raise _undescribed(name, error) from None


async def _described(wire: Wire, name: str, *, made: bool) -> dict[str, Any]:
    return dict((await wire.ask_again(f"STREAM.INFO.{name}", made=made))["config"])


def _undescribed(name: str, error: Refused) -> Unsure:
    return Unsure(f"JetStream cannot describe the stream {name}: {error}")


def _check(found: dict[str, Any], wanted: dict[str, Any], names: Names) -> None:
    name, is_log = found["name"], "allow_atomic" in wanted
    wrong = []
    if found.get("num_replicas", 1) < names.copies:
        wrong.append(
            f"it has {found.get('num_replicas', 1)} copy, {_COPIES} are needed (or "
            "log.insecure_single = true, where the log may be lost with its server)"
        )
    if found.get("storage") != "file":
        wrong.append(f"its storage is {found.get('storage')}, file is needed")
    if found.get("retention", "limits") != "limits":
        wrong.append(f"its retention is {found['retention']}, limits is needed")
    if sorted(found.get("subjects") or ()) != wanted["subjects"]:
        wrong.append(f"its subjects are {found.get('subjects')}, {wanted['subjects']} are needed")
    wrong += [
        f"{key} is {found[key]}: nothing may be deleted or refused, -1 is needed"
        for key in ("max_msgs", "max_bytes", "max_msg_size")
        if found.get(key, -1) > 0
    ]
    if found.get("max_age", 0):
        wrong.append(f"max_age is {found['max_age']} ns: nothing may be deleted, 0 is needed")
    wrong += [
        f"it has {key}, which it must not have"
        for key in ("mirror", "sources", "republish", "subject_transform", "sealed", "no_ack")
        if found.get(key)
    ]
    if found.get("persist_mode", "default") not in ("", "default"):
        wrong.append(f"its persist_mode is {found['persist_mode']}, default is needed")
    each = found.get("max_msgs_per_subject", -1)
    if is_log and each > 0:
        wrong.append(f"max_msgs_per_subject is {each}: nothing may be deleted, -1 is needed")
    if is_log and not found.get("allow_atomic"):
        wrong.append("it takes no atomic batches (allow_atomic), which need NATS 2.12 everywhere")
    if is_log and (found.get("metadata") or {}).get("bandit_log") != names.log:
        wrong.append(f"its metadata does not say that it is the log {names.log!r}")
    if wrong:
        raise Unfit(f"the stream {name} in JetStream cannot hold the log: {'; '.join(wrong)}")


@dataclass(frozen=True, slots=True)
class StreamState:
    """The state of a stream by its leader.

    now: the server's clock, UTC seconds. subjects: the requested ones.
    """

    last: int
    now: float
    subjects: dict[str, int]


class Stream:
    """Requests to a stream's leader. No other server's answer is used, since it may be behind."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire, self.name = wire, name

    async def state(self, subjects: str = "") -> StreamState:
        """subjects: a filter of the subjects to count."""
        given = {"subjects_filter": subjects} if subjects else {}
        found = await self._ask(f"STREAM.INFO.{self.name}", **given)
        state = found["state"]
        return StreamState(
            int(state["last_seq"]), seconds_of(found["ts"]), state.get("subjects") or {}
        )

    async def purge(self, upto: int) -> None:
        """Delete the messages up to this one."""
        await self._ask(f"STREAM.PURGE.{self.name}", seq=upto + 1)

    async def erase(self, seq: int) -> None:
        """Overwrite a message and delete it, if it is there."""
        try:
            await self._ask(f"STREAM.MSG.DELETE.{self.name}", seq=seq, no_erase=False)
        except _NoMessage:
            return

    async def newest(self, subject: str) -> Found | None:
        """The last message of a subject."""
        return await self._message(last_by_subj=subject)

    async def last_of(self, subject: str) -> int:
        """The number of that one, 0 if there is none: messages may have been deleted."""
        found = await self.newest(subject)
        return 0 if found is None else found.seq

    async def next(self, subject: str, after: int) -> Found | None:
        """The first message of a subject that is after this one."""
        return await self._message(next_by_subj=subject, seq=after + 1)

    async def at(self, seq: int) -> Found | None:
        """The message with this number."""
        return await self._message(seq=seq)

    async def following(self, subject: str, after: int) -> list[Found]:
        """All messages of a subject after this one; for a few of them."""
        found: list[Found] = []
        while (one := await self.next(subject, found[-1].seq if found else after)) is not None:
            found.append(one)
        return found

    async def _message(self, **given: Any) -> Found | None:
        try:
            found = (await self._ask(f"STREAM.MSG.GET.{self.name}", **given))["message"]
        except _NoMessage:
            return None
        headers = base64.b64decode(found.get("hdrs", "")).decode(errors="replace")
        return Found(
            int(found["seq"]),
            str(found["subject"]),
            base64.b64decode(found.get("data", "")),
            nanoseconds_of(found["time"]),
            f"{BATCH}:" not in headers or f"{COMMIT}:" in headers,
        )

    async def _ask(self, what: str, **given: Any) -> dict[str, Any]:
        try:
            return await self.wire.ask_again(what, **given)
        except Refused as error:
            if error.code in _NO_MESSAGE:
                raise _NoMessage from None
            raise _undescribed(self.name, error) from None


@dataclass(frozen=True, slots=True)
class Found:
    """A message. ns: when it was stored. ends: an append ended with it."""

    seq: int
    subject: str
    payload: bytes
    ns: int
    ends: bool

    def message(self) -> Message:
        """The message with its record."""
        return unpack(self.seq, self.payload, self.ns, self.ends)


class _NoMessage(Exception):
    """There is none."""


def nanoseconds_of(text: str) -> int:
    """Of 2026-01-02T03:04:05.123456789Z, since 1970."""
    whole, _, rest = text.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 10**9 + int(
        rest.ljust(9, "0") or 0
    )


def seconds_of(text: str) -> float:
    """The same in seconds."""
    return nanoseconds_of(text) / 1e9


async def in_parallel(*asked: Any) -> list[Any]:
    """All answers, or the first error, after all have come."""
    answers = await asyncio.gather(*asked, return_exceptions=True)
    for each in answers:
        if isinstance(each, BaseException):
            raise each
    return list(answers)

"""JetStream's object store: the keeper stores its snapshots there, and a new replica begins from
one. It also holds the bodies of records that are too large for a message. `nats object ls` shows
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

from store._jetstream_record import Message, told_again
from store._jetstream_stream import Names, Stream
from store._nats_wire import Wire
from store._protocols import Offset
from store._shared import Unsure
from store.errors import Corrupt, StoreError

Apart = Callable[[], Awaitable[Wire]]
_DAY_S = 86_400.0
_MAX_S = 120.0
_BODY, _ERASED = "body.", "erased."


@contextlib.asynccontextmanager
async def _store(apart: Apart, names: Names, *, made: bool) -> AsyncIterator[tuple[Wire, Any]]:
    """The bucket; None if there is none and it must not be created."""
    wire = await apart()
    try:
        async with asyncio.timeout(_MAX_S):
            yield wire, await _bucket(wire, names, made=made)
    except StoreError:
        raise
    except TimeoutError:
        raise Unsure(f"the object store did not answer within {_MAX_S:g} s") from None
    except Exception as error:  # noqa: BLE001 - a driver raises many kinds
        raise Unsure(f"the object store failed: {type(error).__name__}: {error}") from None
    finally:
        await wire.close()


async def _bucket(wire: Wire, names: Names, *, made: bool) -> Any:
    from nats.js import api, errors

    context = wire.raw.jetstream(timeout=wire.timeout_s)
    try:
        return await context.object_store(names.snapshots)
    except errors.NotFoundError:
        if not made:
            return None
    config = api.ObjectStoreConfig(replicas=names.copies, storage=api.StorageType.FILE)
    return await context.create_object_store(names.snapshots, config=config)


async def _objects(bucket: Any) -> list[Any]:
    """What is in the bucket; nothing where there is none."""
    from nats.js import errors

    try:
        return [] if bucket is None else list(await bucket.list(ignore_deletes=True))
    except errors.NotFoundError:
        return []


async def _listed(bucket: Any) -> list[tuple[str, str, int, float]]:
    """Name, key, offset and time of every snapshot."""
    found = []
    for info in await _objects(bucket):
        offset, _, made = info.name.partition(".")
        if info.description and offset.isdigit():
            found.append((info.name, info.description, int(offset), float(made.split("-")[0])))
    return found


async def save(apart: Apart, names: Names, key: str, at: Offset, state: bytes, keep: int) -> None:
    """The older ones but `keep` are deleted, and those of other keys that are older than a day. It
    may be older than those that are there: a keeper that stood still did not know of them.
    """
    from nats.js import api

    async with _store(apart, names, made=True) as (wire, bucket):
        now = int((await Stream(wire, names.stream).state()).now)
        name = f"{int(at)}.{now}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        await bucket.put(name, state, api.ObjectMeta(name=name, description=key))
        others = [each for each in await _listed(bucket) if each[0] != name]
        own = [each for each in others if each[1] == key]
        gone = {each[0] for each in own if each[2] == at}
        gone |= {each[0] for each in others if each[1] != key and each[3] < now - _DAY_S}
        offsets = sorted({int(at), *(each[2] for each in own)})[:-keep]
        gone |= {each[0] for each in own if each[2] in offsets}
        if int(at) in offsets:
            gone.add(name)
        for each in gone:
            await bucket.delete(each)


async def all_of(apart: Apart, names: Names) -> list[tuple[str, Offset]]:
    """Key and offset of every snapshot, the newest first."""
    async with _store(apart, names, made=False) as (_, bucket):
        listed = await _listed(bucket)
    listed.sort(key=lambda each: (each[2], each[3]), reverse=True)
    return [(each[1], Offset(each[2])) for each in listed]


async def newest(
    apart: Apart, names: Names, key: str, after: Offset, upto: Offset
) -> tuple[Offset, bytes] | None:
    """The newest of a key between two offsets. Raises Corrupt if it is damaged."""
    from nats.js import errors

    async with _store(apart, names, made=False) as (_, bucket):
        listed = await _listed(bucket)
        fit = [each for each in listed if each[1] == key and after < each[2] <= upto]
        if not fit:
            return None
        name, _, at, _ = max(fit, key=lambda each: (each[2], each[3]))
        try:
            state = bytes((await bucket.get(name)).data)
        except errors.Error as error:
            raise Corrupt(
                at, f"the snapshot in the object store is not as it was put there ({error})"
            ) from None
        return Offset(at), state


async def hold(apart: Apart, names: Names, body: bytes) -> bytes:
    """Store a body; returns its key."""
    digest = hashlib.sha256(body).digest()
    async with _store(apart, names, made=True) as (_, bucket):
        await bucket.put(_body(digest), body)
    return digest


async def note_erased(apart: Apart, names: Names, messages: Sequence[Message]) -> None:
    """Store what stays of messages that are erased next."""
    told = json.dumps([each.told() for each in messages]).encode()
    digest = hashlib.sha256(told).hexdigest()[:32]
    async with _store(apart, names, made=True) as (_, bucket):
        await bucket.put(f"{_ERASED}{max(int(each.offset) for each in messages)}.{digest}", told)


async def erased(apart: Apart, names: Names) -> dict[int, Message]:
    """What stays of all that were erased, by offset."""
    from nats.js import errors

    found = dict[int, Message]()
    async with _store(apart, names, made=False) as (_, bucket):
        for info in await _objects(bucket):
            if info.name.startswith(_ERASED):
                try:
                    for told in json.loads((await bucket.get(info.name)).data):
                        message = told_again(told)
                        found[int(message.offset)] = message
                except errors.NotFoundError:
                    continue  # its records were trimmed meanwhile
    return found


async def drop_body(apart: Apart, names: Names, digest: bytes) -> None:
    """Delete a stored body."""
    from nats.js import errors

    async with _store(apart, names, made=True) as (_, bucket):
        with contextlib.suppress(errors.NotFoundError):
            await bucket.delete(_body(digest))


async def forget(apart: Apart, names: Names, before: Offset) -> None:
    """Delete the snapshots of less than this offset, of whatever key."""
    async with _store(apart, names, made=False) as (_, bucket):
        for name, _, at, _ in await _listed(bucket):
            if at < before:
                await bucket.delete(name)


async def let_go(apart: Apart, names: Names, before: float, base: int) -> None:
    """Delete the bodies that were stored before this moment, and what stays of erased messages up
    to an offset. A body that is stored again is newer.
    """
    async with _store(apart, names, made=False) as (_, bucket):
        for info in await _objects(bucket):
            name = info.name
            if name.startswith(_BODY) and _stored_at(info.mtime) < before:
                await bucket.delete(name)
            if name.startswith(_ERASED) and int(name.split(".")[1]) <= base:
                await bucket.delete(name)


async def held(apart: Apart, names: Names, digest: bytes) -> bytes:
    """A stored body; empty if it is missing or damaged."""
    from nats.js import errors

    async with _store(apart, names, made=True) as (_, bucket):
        try:
            return bytes((await bucket.get(_body(digest))).data)
        except (errors.NotFoundError, errors.DigestMismatchError):
            return b""


def _body(digest: bytes) -> str:
    return f"{_BODY}{digest.hex()}"


def _stored_at(told: str) -> float:
    return datetime.fromisoformat(told).timestamp()

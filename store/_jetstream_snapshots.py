"""JetStream's object store: the keeper stores its snapshots there, and a new replica begins from
one. It also holds the bodies of records that are too large for a message. `nats object ls` shows
them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from store._jetstream_stream import Names, Stream
from store._nats_wire import Wire
from store._protocols import Offset
from store._shared import Unsure
from store.errors import Corrupt, StoreError

Apart = Callable[[], Awaitable[Wire]]
_DAY_S = 86_400.0
_MOST_S = 120.0


@contextlib.asynccontextmanager
async def _store(apart: Apart, names: Names, *, made: bool) -> AsyncIterator[tuple[Wire, Any]]:
    """The bucket; None if there is none and it must not be created."""
    wire = await apart()
    try:
        async with asyncio.timeout(_MOST_S):
            yield wire, await _bucket(wire, names, made=made)
    except StoreError:
        raise
    except TimeoutError:
        raise Unsure(f"the object store did not answer within {_MOST_S:g} s") from None
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


async def _listed(bucket: Any) -> list[tuple[str, str, int, float]]:
    """Name, key, offset and time of every snapshot."""
    from nats.js import errors

    try:
        infos = await bucket.list(ignore_deletes=True)
    except errors.NotFoundError:
        return []
    found = []
    for info in infos:
        offset, _, made = info.name.partition(".")
        if info.description and offset.isdigit():
            found.append((info.name, info.description, int(offset), float(made.split("-")[0])))
    return found


async def save(apart: Apart, names: Names, key: str, at: Offset, state: bytes, keep: int) -> None:
    """The older ones but `keep` are deleted, and those of other keys that are older than a day."""
    from nats.js import api

    async with _store(apart, names, made=True) as (wire, bucket):
        now = int((await Stream(wire, names.stream).state()).now)
        name = f"{int(at)}.{now}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        before = await _listed(bucket)
        await bucket.put(name, state, api.ObjectMeta(name=name, description=key))
        own = sorted((each for each in before if each[1] == key), key=lambda each: each[2])
        same = [each for each in own if each[2] == at]
        older = [each for each in own if each[2] != at]
        gone = same + older[: max(0, len(older) - keep + 1)]
        gone += [each for each in before if each[1] != key and each[3] < now - _DAY_S]
        for each in gone:
            if each[0] != name:
                await bucket.delete(each[0])


async def newest(
    apart: Apart, names: Names, key: str, after: Offset, upto: Offset
) -> tuple[Offset, bytes] | None:
    """The newest of a key between two offsets. Raises Corrupt if it is damaged."""
    from nats.js import errors

    async with _store(apart, names, made=False) as (_, bucket):
        listed = [] if bucket is None else await _listed(bucket)
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


async def held(apart: Apart, names: Names, digest: bytes) -> bytes:
    """A stored body; empty if it is missing or damaged."""
    from nats.js import errors

    async with _store(apart, names, made=True) as (_, bucket):
        try:
            return bytes((await bucket.get(_body(digest))).data)
        except (errors.NotFoundError, errors.DigestMismatchError):
            return b""


def _body(digest: bytes) -> str:
    return f"body.{digest.hex()}"

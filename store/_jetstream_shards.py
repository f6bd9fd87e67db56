"""Cache of the shards: their last messages, and the newest message of each subject.

The server refuses a message whose writer did not know its shard's last one. This cache knows which
of a shard's subjects was written, so only real conflicts are reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from store._jetstream_record import Message, Subjects, shard_of
from store._jetstream_stream import Stream, in_parallel

_MOST = 200_000


@dataclass(slots=True)
class _Shard:
    """All messages after `since` and up to `last` are known."""

    since: int
    last: int


class Shards:
    """most: the number of subjects whose newest message is kept; for others the server is asked."""

    def __init__(self, stream: Stream, subjects: Subjects, most: int = _MOST) -> None:
        self._stream, self._subjects, self._most = stream, subjects, most
        self._shards: dict[int, _Shard] = {}
        self._newest: dict[bytes, int] = {}
        self._floor = 0
        self._read_from = self._read_to = 0

    def last(self, shard: int) -> int:
        """The last known message of a shard."""
        return self._shards[shard].last

    def newer(self, subject: bytes, seen: int) -> int:
        """The newest message of a subject if it is after `seen`, otherwise 0;

        the shard must be known.
        """
        found = self._newest.get(subject, 0)
        return found if found > seen else 0

    async def learn(self, wanted: dict[int, int]) -> None:
        """By shard: all messages after this offset are known from now on."""
        await in_parallel(*(self._learn(shard, seen) for shard, seen in wanted.items()))

    async def _learn(self, shard: int, seen: int) -> None:
        known = self._shards.get(shard)
        if known is not None and max(known.since, self._floor) <= seen:
            return
        subject = self._subjects.of_shard(shard)
        last = await self._stream.newest(subject)
        if last is None or last.seq <= seen:
            self._shards[shard] = _Shard(seen, 0 if last is None else last.seq)
            return
        found = await self._stream.following(subject, seen)
        for each in found:
            self._note(each.message())
        self._shards[shard] = _Shard(seen, found[-1].seq if found else last.seq)

    async def look_again(self, shards: Iterable[int]) -> list[Message]:
        """The messages in these shards since they were last read."""
        each = await in_parallel(*(self._more(shard) for shard in shards))
        return [message for some in each for message in some]

    async def _more(self, shard: int) -> list[Message]:
        known = self._shards[shard]
        found = await self._stream.following(self._subjects.of_shard(shard), known.last)
        if not found:
            known.last = min(known.last, await self._stream.last_of(self._subjects.of_shard(shard)))
        messages = [each.message() for each in found]
        for message in messages:
            self._note(message)
            known.last = max(known.last, int(message.offset))
        return messages

    def appended(self, subject: bytes, offset: int) -> None:
        """A message of this process was stored, directly after the last one."""
        self._newest[subject] = max(offset, self._newest.get(subject, 0))
        known = self._shards[shard_of(subject)]
        known.last = max(offset, known.last)

    def read(self, after: int, message: Message) -> None:
        """A message was read, as all from `after` on were."""
        offset = int(message.offset)
        if after != self._read_to:
            self._read_from = after
        self._read_to = offset
        if not message.subject:
            return
        shard = shard_of(message.subject)
        known = self._shards.get(shard)
        if known is not None and self._read_from <= known.last < offset:
            known.last = offset  # otherwise the messages in between were not read
        self._note(message)

    def _note(self, message: Message) -> None:
        subject, offset = message.subject, int(message.offset)
        if self._newest.get(subject, 0) < offset:
            self._newest[subject] = offset
        if len(self._newest) > self._most:
            self._forget()

    def _forget(self) -> None:
        """Drop the older half."""
        offsets = sorted(self._newest.values())
        self._floor = offsets[len(offsets) // 2]
        self._newest = {
            subject: offset for subject, offset in self._newest.items() if offset > self._floor
        }

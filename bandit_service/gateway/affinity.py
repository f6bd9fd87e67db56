"""Which arm a conversation was answered by, so that it can stay where its prompt is cached. Pure.

It is a cache: losing it costs a provider's prompt cache once, and no truth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

from policies import ArmId


@dataclass
class Affinity:
    """Conversation → arm and when it was last used.

    margin: how much better another arm must score for a switch; None: nothing is remembered.
    ttl_s: how long a provider is taken to keep a prompt cached.
    """

    margin: float | None = None
    ttl_s: float = 300.0
    max_conversations: int = 100_000
    _arms: OrderedDict[bytes, tuple[ArmId, float]] = field(default_factory=OrderedDict)

    def arm(self, key: bytes, now: float) -> ArmId | None:
        """The arm to stay with, if any."""
        used = self._arms.get(key)
        if self.margin is None or used is None or now - used[1] > self.ttl_s:
            return None
        return used[0]

    def used(self, key: bytes, arm: ArmId, now: float) -> None:
        """The conversation was answered by this arm."""
        if self.margin is None or not key:
            return
        self._arms[key] = arm, now
        self._arms.move_to_end(key)
        while len(self._arms) > self.max_conversations:
            self._arms.popitem(last=False)


def conversation(body: Mapping[str, Any], tenant: str, unit: str) -> bytes:
    """What keeps a conversation together: its unit, else a hash of how it began.

    Its beginning is every message up to the first one of the user: what is added later is what a
    provider does not have cached yet.

    >>> first = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    >>> later = [*first, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    >>> conversation({"messages": first}, "", "") == conversation({"messages": later}, "", "")
    True
    """
    if unit:
        return blake2b(msgspec.msgpack.encode(["unit", tenant, unit]), digest_size=16).digest()
    messages = body.get("messages")
    start: object = body.get("prompt")
    if isinstance(messages, list):
        roles = [each.get("role") if isinstance(each, dict) else None for each in messages]
        start = messages[: roles.index("user") + 1 if "user" in roles else 1]
    return blake2b(msgspec.json.encode(["start", tenant, start]), digest_size=16).digest()

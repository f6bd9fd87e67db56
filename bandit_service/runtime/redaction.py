"""Takes personal data and secrets out of texts before they are kept, in a separate process.

The operator's patterns run on clients' texts, so that one can keep a matcher busy without bound.
`python -m bandit_service.runtime.redaction` is the child (`runtime.bounded_child`): the service
sends `Wanted`, the child answers `Redacted`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from bandit_service.runtime.bounded_child import BoundedChild, serve
from bandit_service.settings.texts import RULES

MAX_CHARS = 200_000
"""More of a text is not looked at, and not kept."""
OTHER = "redacted"
"""What stands in the place of what a pattern of the operator matches."""


class Wanted(msgspec.Struct, frozen=True):
    """Texts to redact, by rules with these names and by these patterns."""

    texts: tuple[str, ...]
    rules: tuple[str, ...]
    patterns: tuple[str, ...]


class Redacted(msgspec.Struct, frozen=True):
    """The texts without what the rules match, and how many places that were."""

    texts: tuple[str, ...]
    places: int


class Redaction:
    """Asks the child. cpu_s: CPU seconds that the texts of one decision may take."""

    def __init__(self, rules: Sequence[str], patterns: Sequence[str], cpu_s: float) -> None:
        self._rules = tuple(name for name in RULES if name in rules)
        self._patterns = tuple(patterns)
        self._child = BoundedChild("bandit_service.runtime.redaction", cpu_s)

    async def of(self, *texts: str) -> Redacted:
        """The redacted texts. Raises `bounded_child.NoAnswer`, and ValueError for half a
        character.
        """
        cut = tuple(text[:MAX_CHARS] for text in texts)
        wanted = msgspec.msgpack.encode(Wanted(cut, self._rules, self._patterns))
        return msgspec.msgpack.decode(await self._child.ask(wanted), type=Redacted)

    async def begin(self) -> None:
        """Have the child ready."""
        await self._child.begin()

    async def close(self) -> None:
        """End the child."""
        await self._child.close()


def redacted(text: str, rules: Sequence[str], patterns: Sequence[str]) -> tuple[str, int]:
    """The text without what these match, and how many places that were.

    >>> redacted("write to a.b@example.org", ["email"], [])
    ('write to [email]', 1)
    """
    places = 0
    for name, pattern in [*((OTHER, each) for each in patterns), *((n, RULES[n]) for n in rules)]:
        text, found = _compiled(pattern).subn(f"[{name}]", text)
        places += found
    return text, places


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _answer(body: bytes) -> bytes:
    wanted = msgspec.msgpack.decode(body, type=Wanted)
    done = [redacted(text, wanted.rules, wanted.patterns) for text in wanted.texts]
    told = Redacted(tuple(text for text, _ in done), sum(places for _, places in done))
    return msgspec.msgpack.encode(told)


if __name__ == "__main__":
    serve(_answer)

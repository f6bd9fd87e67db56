"""Tags of a decision: a client's labels, to find decisions and to group them.

They do not affect the choice. Their alphabet and number are limited, since every record has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bandit_service.core.errors import Refused

MAX_TAGS, LONGEST_TAG = 16, 64
PATTERN = r"^[A-Za-z0-9_.:/=-]+$"
_TAG = re.compile(PATTERN)
_ALPHABET = "A-Z, a-z, 0-9 and _ - . : / ="


def tags_of(given: Iterable[str], param: str = "tags") -> tuple[str, ...]:
    """The tags, each once and sorted; Refused names the field and the limits.

    >>> tags_of(["beta", "team:search", "beta"])
    ('beta', 'team:search')
    """
    found = set(given)
    if not found:
        return ()
    if len(found) > MAX_TAGS:
        raise Refused(f"{param}: at most {MAX_TAGS} tags, got {len(found)}", param=param)
    for tag in sorted(found):
        if not 0 < len(tag) <= LONGEST_TAG or not _TAG.match(tag) or tag.endswith("\n"):
            raise Refused(
                f"{param}: a tag must be 1 to {LONGEST_TAG} characters of {_ALPHABET}, got "
                f"{tag[: LONGEST_TAG + 1]!r}",
                param=param,
            )
    return tuple(sorted(found))


def listed(text: str) -> list[str]:
    """The tags of one text, between commas."""
    return [each.strip() for each in text.split(",") if each.strip()]

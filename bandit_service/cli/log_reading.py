"""A log that a command reads from its beginning to its end, with a bar on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from tqdm import tqdm

from bandit_service.core import events as ev
from bandit_service.data.log_source import Source


def events_of(source: Source, after: int, doing: str) -> Iterator[ev.AnyEvent | None]:
    """The events after an offset, None for an erased one. doing: what the bar says."""
    total = max(0, source.last - after)
    with tqdm(
        total=total, desc=doing, unit=" events", disable=None, leave=False, file=sys.stderr
    ) as bar:
        for _, event in source.events(after):
            yield event
            bar.update()

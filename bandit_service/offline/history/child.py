"""A process that reads the log beside the service and adds it up.

`python -m bandit_service.offline.history.child` speaks as `bandit_service.runtime.folding` does:
Job in, Begin out, events in, Done out.
"""

from __future__ import annotations

import os
import sys
from typing import IO

import msgspec

from bandit_service.offline.history.fold import Asked, History, HistoryFold
from bandit_service.runtime.folding import Begin, event_of, events_from, framed, read_frame


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; first: offset at which the log begins."""

    asked: Asked
    first: int


class Done(msgspec.Struct, frozen=True):
    """The figures."""

    history: History


def add_up(source: IO[bytes], sink: IO[bytes]) -> None:
    """Serve one job from `source`, answering to `sink`."""
    job = read_frame(source, Job)
    sink.write(framed(Begin(job.first - 1)))
    sink.flush()
    fold = HistoryFold(job.asked)
    for at, body in events_from(source):
        fold.take(event_of(at, body) if body else None)
    sink.write(framed(Done(fold.history())))
    sink.flush()


if __name__ == "__main__":
    os.nice(10)  # the service that decides goes first
    try:
        add_up(sys.stdin.buffer, sys.stdout.buffer)
    except BrokenPipeError:
        os._exit(1)  # the service has ended: nobody is left to be told

"""A process that reads the log beside the service and adds it up.

`python -m bandit_service.offline.history.child` speaks as `bandit_service.runtime.folding` does:
Job in, Begin out, events in, Done out.
"""

from __future__ import annotations

from typing import IO

import msgspec

from bandit_service.offline.history.fold import Asked, History, HistoryFold
from bandit_service.runtime.folding import beside_the_service, framed, read_frame, read_log


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; first: offset of the first event that may count."""

    asked: Asked
    first: int = 1


class Done(msgspec.Struct, frozen=True):
    """The figures."""

    history: History


def add_up(source: IO[bytes], sink: IO[bytes]) -> None:
    """Serve one job from `source`, answering to `sink`."""
    job = read_frame(source, Job)
    fold = HistoryFold(job.asked)
    read_log(source, sink, job.first - 1, fold.take)
    sink.write(framed(Done(fold.history())))
    sink.flush()


if __name__ == "__main__":
    beside_the_service(add_up)

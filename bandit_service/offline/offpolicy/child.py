"""A child process of the service that runs candidates along the log, and estimates.

`python -m bandit_service.offline.offpolicy.child` speaks as `bandit_service.runtime.folding`
does: Job in, Begin out, events in, Done out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO

import msgspec

import policies
from bandit_service.offline.offpolicy.fold import Asked, LogEvaluation
from bandit_service.offline.offpolicy.report import How, report
from bandit_service.offline.offpolicy.sources import beginning
from bandit_service.runtime.folding import beside_the_service, framed, read_frame, read_log
from store import StoreError


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked; first: offset at which the log begins; directory: of the snapshots."""

    asked: Asked
    how: How
    first: int
    directory: str


class Done(msgspec.Struct, frozen=True):
    """The report, as JSON."""

    report: bytes


def evaluate(source: IO[bytes], sink: IO[bytes]) -> None:
    """Serve one job from `source`, answering to `sink`."""
    job = read_frame(source, Job)
    after, world = beginning(job.first, job.asked, Path(job.directory))
    along = LogEvaluation(job.asked, world)
    read_log(source, sink, after, along.take)
    sink.write(framed(Done(msgspec.json.encode(report(along, job.how)))))
    sink.flush()


if __name__ == "__main__":
    for directory in sys.argv[1:]:
        policies.add_directory(directory)
    try:
        beside_the_service(evaluate)
    except StoreError as error:
        sys.exit(f"bandit-service whatif: {error}")

"""A service, demo traffic and a Prometheus with the alert rules, until Ctrl-C.

python -m loadtest.monitor [--seconds N] [--rate N]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import aiohttp

from bandit_service.data.recordings import (
    PARETOBANDIT,
    BadRecording,
    Recorded,
    open_recording,
)
from loadtest.client import StreamError
from loadtest.demo.serve import DemoFailed, own_data, serving
from loadtest.demo_gateway import recorded_upstream
from loadtest.monitor_traffic import config, traffic
from loadtest.prometheus import PrometheusFailed, prometheus

_SPEED = 8.0
_REDIRECTS = ("--redirect-rate", "0.05")
FAILED = (DemoFailed, PrometheusFailed, StreamError, aiohttp.ClientError, ConnectionError)


@contextmanager
def watched(
    recorded: Recorded, data: str, data_dir: Path, scratch: Path
) -> Iterator[tuple[str, str]]:
    """URLs of a service in front of the recorded upstream, and of a Prometheus that scrapes it."""
    written = scratch / "monitor.toml"
    with recorded_upstream(data, _SPEED, scratch, *_REDIRECTS) as upstream:
        text = config(recorded, upstream, own_data(scratch, data_dir))
        written.write_text(text, encoding="utf-8")
        with serving(written) as url, prometheus(url, scratch / "prometheus") as watching:
            yield url, watching


def _watch(recorded: Recorded, args: argparse.Namespace, scratch: Path) -> None:
    with watched(recorded, args.data, args.data_dir, scratch) as (url, watching):
        print(f"page        {url}/")
        print(f"service     {url}/metrics")
        print(f"prometheus  {watching}/graph  alerts: {watching}/alerts")
        print("Ctrl-C ends all and removes their data", flush=True)
        asyncio.run(traffic(url, recorded, args.rate, args.seconds))


class Ended(KeyboardInterrupt):
    """Ctrl-C or SIGTERM.

    It is a kind of its own, since `python -m` ends by SIGINT once exactly a KeyboardInterrupt has
    left code that was made of a text, as dataclasses and named tuples are, even if it was caught.
    """


def end(_: int, __: FrameType | None) -> None:
    """Raised at once: asyncio would only cancel the traffic, once, and a request can lose that."""
    raise Ended


def main() -> int:
    """Run until Ctrl-C, SIGTERM or for --seconds; 0 ended cleanly, 1 something did not start."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.monitor", description=__doc__)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--rate", type=float, default=20.0, help="queries per second")
    parser.add_argument("--data", default=PARETOBANDIT, help="a recording")
    parser.add_argument("--data-dir", type=Path, default=Path("var"), help="where models/ is")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    try:
        recorded = open_recording(args.data)
        with tempfile.TemporaryDirectory() as scratch, suppress(Ended):
            _watch(recorded, args, Path(scratch))
    except BadRecording as error:
        print(f"monitor: {error}", file=sys.stderr)
        return 2
    except FAILED as error:
        print(f"monitor: {error}", file=sys.stderr)
        return 1
    print("ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())

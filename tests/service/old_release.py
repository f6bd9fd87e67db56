"""The service as a release before, which does not know the newest kinds of events.

python -m tests.service.old_release serve ...
"""

from __future__ import annotations

import sys
import typing

import msgspec

from bandit_service import cli
from bandit_service.core import events as ev


def main() -> int:
    """What the command does, but for these kinds."""
    kinds = [each for each in typing.get_args(ev.AnyEvent) if each not in ev._FORMATS]
    ev._decoder = msgspec.msgpack.Decoder(typing.Union[tuple(kinds)])  # noqa: UP007 - made here
    ev.READS = 1
    return cli.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())

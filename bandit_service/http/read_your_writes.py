"""Read your writes, if several processes share the log: docs/scale.md.

Every answer has the offset up to which its replica had applied the log. Any replica answers a
request that repeats it only once it has applied the log up to there.
"""

from __future__ import annotations

from aiohttp import web

from bandit_service.core.errors import Refused
from bandit_service.runtime.writer import Writer

OFFSET, AFTER = "x-bandit-offset", "x-bandit-after"
_MOST = 2**63 - 1


async def reached(request: web.Request, writer: Writer, patience_s: float | None) -> None:
    """Wait until this replica has learned up to the required offset.

    Raises Behind if that takes too long. patience_s: how long the client waits at most; None
    without a limit.
    """
    given = request.headers.get(AFTER, "")
    digits = given.isascii() and given.isdigit() and len(given) <= 19
    if not digits or int(given) > _MOST:
        raise Refused(
            f"{AFTER}: must be an offset of the log, as {OFFSET} of an answer says it: a whole "
            f"number from 0 to {_MOST}",
            param=AFTER,
        )
    await writer.reached(int(given), patience_s)


def name_offset(response: web.StreamResponse, writer: Writer) -> None:
    """Set the header with the applied offset; a single process does not need it."""
    if writer.shared:
        response.headers[OFFSET] = str(writer.seen)

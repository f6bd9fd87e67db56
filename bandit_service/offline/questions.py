"""Questions about the log of a running service: a child process answers, one at a time."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from bandit_service.core.errors import Busy, OutOfTime, Unavailable
from bandit_service.offline.log_times import first_since
from bandit_service.runtime.folding import FoldFailed, Stalled, elsewhere
from bandit_service.runtime.writer import Writer
from store import StoreError, Trimmed, first_of

D = TypeVar("D", bound=msgspec.Struct)


class Questions:
    """Questions that one module answers, as `runtime.folding` says.

    what: of a question, in errors. within: the setting with the most seconds that one may take.
    offline: how the same is asked without a bound. stalled_s: after so long without a step the
    child is given up.
    """

    def __init__(
        self, writer: Writer, module: str, what: str, within: str, offline: str, stalled_s: float
    ) -> None:
        self._writer, self._module, self._stalled_s = writer, module, stalled_s
        self._what, self._within, self._offline = what, within, offline
        self._busy = False

    async def ask(
        self, job: msgspec.Struct, kind: type[D], seconds: float, since: float | None = None
    ) -> D:
        """What the child answers, on all that is in the log, or on what may be of `since` or later;
        the job's `first` is then where that begins.

        Raises Busy while another question is answered, OutOfTime, and Unavailable where the log
        cannot be read.
        """
        if self._busy:
            raise Busy(f"another {self._what} is running; retry when it is done")
        self._busy = True
        try:
            async with asyncio.timeout(seconds):
                upto = await self._writer.synced()
                log = self._writer.log
                if since is not None:
                    first = await first_since(log, int(first_of(log)), int(upto), since)
                    job = msgspec.structs.replace(job, first=first)
                return await elsewhere(self._module, job, log, upto, kind, within_s=self._stalled_s)
        except TimeoutError:
            raise OutOfTime(
                f"{self._what}: not done within {self._within}, {seconds:g} s; use "
                f"{self._offline} for as long as it takes"
            ) from None
        except Trimmed:
            raise Unavailable("the log was shortened meanwhile; ask again") from None
        except (FoldFailed, StoreError) as error:
            if isinstance(error, Stalled):
                self._writer.child_ended()
            raise Unavailable(f"the log could not be evaluated: {error}") from None
        finally:
            self._busy = False

"""What a client opened: its connections, its queue of rewards, and their end."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bandit_client._address import Address
from bandit_client._http import Transport
from bandit_client._outbox import Batching, Outbox
from bandit_client._retry import Retries
from bandit_client._thread import LoopThread, before_exit, not_before_exit, shared
from bandit_client.errors import Lost, Undelivered

_log = logging.getLogger("bandit_client")


@dataclass(frozen=True, slots=True)
class Options:
    """How a client behaves, whichever service it calls."""

    timeout_s: float
    retries: Retries
    batching: Batching
    on_undelivered: Callable[[Sequence[Lost]], None] | None
    tls: ssl.SSLContext | None
    read_your_writes: bool

    def transport(self, address: Address) -> Transport:
        """Connections for one event loop."""
        return Transport(
            address, self.retries, self.timeout_s, self.tls, read_your_writes=self.read_your_writes
        )


class Live:
    """A transport on the loop that all clients of the process share, and the queue that uses it."""

    def __init__(self, address: Address, options: Options) -> None:
        self.thread: LoopThread = shared()
        self.transport = options.transport(address)
        self.outbox = Outbox(self.thread, self.transport, options.batching, options.on_undelivered)
        self._exit_s = options.batching.exit_s
        before_exit(self, self._at_exit)

    @property
    def pid(self) -> int:
        """The process in which it lives; a forked one has no part in it."""
        return self.thread.pid

    def close(self, timeout_s: float) -> None:
        """Send what is queued, and close the connections."""
        not_before_exit(self)
        try:
            self.outbox.close(timeout_s)
        finally:
            self.thread.run(self.transport.close())

    def _at_exit(self) -> None:
        try:
            self.close(self._exit_s)
        except Undelivered as error:
            _log.error("at the end of the process: %s", error)

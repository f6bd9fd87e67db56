"""Descriptors for connections to providers: some are kept for the service itself.

Without one the service could make no snapshot and start no child process, for as long as calls are
under way and connections are kept open. A call that finds none failed by no fault of its provider.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable
from typing import Any

_KEPT_BACK, _MAX_KEPT_BACK = 0.125, 512
"""Half of what clients' connections leave."""


def socket_factory() -> Callable[[tuple[Any, ...]], socket.socket]:
    """Makes the socket of a connection; OSError where it would be one too many."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    bounded = limit != resource.RLIM_INFINITY
    most = int(limit - min(_KEPT_BACK * limit, _MAX_KEPT_BACK))

    def made(address: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, *_ = address
        one = socket.socket(family, kind, protocol)
        if bounded and one.fileno() >= most:  # the least number that is free
            one.close()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return one

    return made


def is_lacking(error: BaseException) -> bool:
    """Whether a connection could not be made since there was no descriptor for it."""
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)

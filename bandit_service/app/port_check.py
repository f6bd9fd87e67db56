"""Whether the service can listen at its address, told before anything is opened or written."""

from __future__ import annotations

import errno
import socket


class CannotListen(OSError):
    """Nothing can listen at this address; the message says why, and what to do."""


def check_address(host: str, port: int) -> None:
    """Raise CannotListen where another program listens there, or the machine has no such address.

    It binds as the service does later, and lets go: a port that is free now may be taken then.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise cannot_listen(error, host, port) from None
    absent: list[OSError] = []
    for family, kind, protocol, _, address in found:
        try:
            trial = socket.socket(family, kind, protocol)
        except OSError:
            continue  # the machine is without this family, as without IPv6; the rest may do
        with trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                trial.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise cannot_listen(error, host, port) from None
                absent.append(error)  # as ::1 of localhost; the name's other addresses may do
    if absent and len(absent) == len(found):
        raise cannot_listen(absent[0], host, port)


def cannot_listen(error: OSError | UnicodeError, host: str, port: int) -> CannotListen:
    """What to say of an address at which listening failed."""
    match error:
        case OSError(errno=errno.EADDRINUSE):
            return CannotListen(
                f"port: another program listens on {host}:{port}; stop it, or choose another port, "
                f"as with --port {port + 1 if port < 65_535 else port - 1}"
            )
        case OSError(errno=errno.EACCES):
            return CannotListen(
                f"port: {port} needs rights that this user does not have; choose one above 1023"
            )
        case OSError(errno=errno.EADDRNOTAVAIL) | socket.gaierror() | UnicodeError():
            return CannotListen(
                f"host: this machine has no address {host!r}; 127.0.0.1 is for this machine alone, "
                "0.0.0.0 for all that reach it"
            )
        case _:
            return CannotListen(f"cannot listen on {host}:{port}: {error}")

"""The names that the service accepts, and the origins whose pages may call it. Pure.

A browser lets the page of any site send requests to addresses that only its machine reaches, and
names the page's site in `Origin`. And the owner of a name can make it resolve to such an address
(DNS rebinding): then the page's own origin is the service, and only `Host` reveals it. Programs
send no `Origin`, and the `Host` of the address that they were given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from bandit_service.core.errors import Forbidden
from bandit_service.parsing.hosts import (
    DEFAULT_PORTS,
    authority_of,
    canonical,
    is_any,
    is_loopback,
    origin_of,
)

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_ELSEWHERE = ("cross-site", "same-site")
"""The values of `Sec-Fetch-Site` for a page that did not come from this address."""
_OURS = "localhost, loopback addresses and the names in the setting server.allowed_hosts"


class Headers(msgspec.Struct, frozen=True):
    """The headers that show where a request was sent and by which page: every value of each."""

    host: Sequence[str] = ()
    origin: Sequence[str] = ()
    site: str = ""


@dataclass(slots=True)
class Borders:
    """Every request is looked at here before anything else of it is. keys: it asks for API keys."""

    names: frozenset[str] = frozenset()
    networks: tuple[_Network, ...] = ()
    origins: frozenset[str] = frozenset()
    secure: bool = False
    keys: bool = False

    @staticmethod
    def of(
        hosts: Sequence[str], origins: Sequence[str], listening: str, secure: bool, keys: bool
    ) -> Borders:
        """The borders by these settings.

        The listening address is a name of the service. secure: the service itself speaks TLS. keys:
        it requires API keys.
        """
        names, networks = set(), []
        for one in hosts:
            if "/" in one:
                networks.append(ipaddress.ip_network(one))
            else:
                names.add(canonical(one))
        if not is_any(listening):
            names.add(canonical(listening))
        mine = frozenset(origin_of(one) or one for one in origins)
        return Borders(frozenset(names), tuple(networks), mine, secure, keys)

    def cross(self, headers: Headers, scope: str) -> None:
        """Raise Forbidden unless the request may come in, to a route that needs `scope`; "open"
        needs no key. If a key is needed, the host name is not checked: a page that reaches the
        service by its own name has no key, since browsers store data by origin, and cookies are
        never read.
        """
        host = self._host(headers)
        if not self.keys or scope == "open":
            self._known(host)
        if headers.origin and self._of_ours(headers.origin, host):
            return
        if headers.site in _ELSEWHERE and scope not in ("", "open"):
            raise Forbidden(
                "Sec-Fetch-Site: pages of other origins may not call this; allowed are the "
                "service's own page, and programs",
                param="Sec-Fetch-Site",
                reason="origin",
            )

    def _host(self, headers: Headers) -> tuple[str, int | None] | None:
        """The name and the port that the request was sent to; None if it does not say."""
        return authority_of(headers.host[0]) if len(headers.host) == 1 else None

    def _known(self, host: tuple[str, int | None] | None) -> None:
        if host is None:
            raise Forbidden(
                f"Host: must be sent exactly once, as name or name:port; allowed are {_OURS}",
                param="Host",
                reason="host",
            )
        if not self._is_ours(host[0]):
            raise Forbidden(
                f"Host: {host[0]!r} is not a name of this service; allowed are {_OURS}",
                param="Host",
                reason="host",
            )

    def _is_ours(self, name: str) -> bool:
        if name in self.names or is_loopback(name):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return any(address in network for network in self.networks)

    def _speaks(self, scheme: str, name: str) -> bool:
        """Whether this scheme can lead here: TLS may end before the service, not on loopback."""
        return scheme == "https" if self.secure else scheme == "http" or not is_loopback(name)

    def _of_ours(self, given: Sequence[str], host: tuple[str, int | None] | None) -> bool:
        """Whether it is a configured origin.

        Raises Forbidden if it is not the request's own either.
        """
        origin = origin_of(given[0]) if len(given) == 1 else None
        if origin is not None and origin in self.origins:
            return True
        scheme, _, authority = (origin or "").partition("://")
        asked = authority_of(authority) if scheme in DEFAULT_PORTS else None
        if asked is not None and host is not None and asked[0] == host[0]:
            port = DEFAULT_PORTS[scheme]
            if self._speaks(scheme, host[0]) and (asked[1] or port) == (host[1] or port):
                return False
        shown = "null" if list(given) == ["null"] else origin
        what = repr(shown) if shown else "what was sent"
        raise Forbidden(
            f"Origin: {what} is not where this request was sent to; allowed are pages of the same "
            "scheme, name and port, and the origins in the setting server.allowed_origins",
            param="Origin",
            reason="origin",
        )

"""An address with several hosts, in its parts.

`urllib.parse` refuses some of them: whether an IPv6 address may stand in a list of hosts depends on
the version of Python.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?")


class Address(NamedTuple):
    """scheme://user@hosts path ?query. user: as it is written, with the password; its end, the @,
    is not part of it. A fragment is left out.
    """

    scheme: str
    user: str
    hosts: tuple[str, ...]
    path: str
    query: str

    def of_host(self, host: str) -> str:
        """The address of one host alone."""
        user = f"{self.user}@" if self.user else ""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{user}{host}{self.path}{query}"


def parts_of(text: str) -> Address | None:
    """The parts; None if it is no such address."""
    found = _PARTS.fullmatch(text.strip())
    if found is None:
        return None
    scheme, authority, path, query = found.groups(default="")
    user, _, hosts = authority.rpartition("@")
    named = tuple(host for host in hosts.split(",") if host)
    if "[" in user or "]" in user:  # the driver would show it in its error
        return None
    if any(("[" in host or "]" in host) and not _BRACKETED.fullmatch(host) for host in named):
        return None
    return Address(scheme.lower(), user, named, path, query)


_BRACKETED = re.compile(r"\[[0-9A-Fa-f:.%A-Za-z_-]+\](?::[0-9]*)?")

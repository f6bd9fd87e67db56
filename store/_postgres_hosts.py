"""The hosts of one address, each with its own address.

With all of them, the driver would have one timeout for all, and stop at some errors of the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from store._address import parts_of


@dataclass(frozen=True, slots=True)
class Host:
    """name: what may be shown of it."""

    name: str
    dsn: str


def hosts_of(dsn: str) -> list[Host]:
    """The hosts, in order. One without a name, if the address has only one or cannot be read."""
    parts = parts_of(dsn)
    if parts is None:  # the driver reports the error
        return [Host("", dsn)]
    if parts.hosts:
        each = [Host(name, parts.of_host(name)) for name in parts.hosts]
    else:
        each = _of_query(dsn, parse_qsl(parts.query, keep_blank_values=True))
    return each if len(each) > 1 else [Host("", dsn)]


def _of_query(dsn: str, query: list[tuple[str, str]]) -> list[Host]:
    given = dict(query)
    names, ports = given.get("host", "").split(","), given.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        return []
    before, found = dsn.partition("?")[0], []
    rest = [each for each in query if each[0] not in ("host", "port")]
    for name, port in zip(names, ports, strict=True):
        own = [("host", name), *([("port", port)] if port else []), *rest]
        found.append(Host(name, f"{before}?{urlencode(own)}"))
    return found

"""Secrets that stand in the configuration of an upstream, and what to write in their place."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bandit_service.settings.upstreams import UpstreamSpec

NAMED = frozenset(("headers", "query"))
"""The fields of an upstream that name values, which may be secrets."""
_SECRET = re.compile(
    r"(?:auth|authorization|cookie|key|token|secret|password|sig|signature|credentials?)$", re.I
)
"""How names of headers and parameters end that usually hold a credential."""
_USER = re.compile(r"(\w+://)[^/]*@")
_TABLE = re.compile(r"\s*\[\[?\s*([\w.]+)")


def is_secret(name: str, auth_header: str) -> bool:
    """Whether a header or parameter of this name usually holds a credential."""
    return name.lower() == auth_header.lower() or _SECRET.search(name) is not None


def without_user(url: str, instead: str) -> str:
    """The address with a text in the place of its user and password."""
    return _USER.sub(rf"\1{instead}@", url)


def literal_secrets(upstreams: Iterable[UpstreamSpec], file: Path | None = None) -> list[str]:
    """A sentence for each secret that stands in an entry: where it is and what to write instead.

    file: the one that has these entries, which are in force; None for entries that are asked for.
    """
    found = []
    for spec in upstreams:
        if _USER.match(spec.base_url):
            found.append(_told(spec, "base_url", "base_url", file))
        found += [
            _told(spec, f"{field}.{name}", name, file)
            for field in sorted(NAMED)
            for name in getattr(spec, field)
            if is_secret(name, spec.auth_header)
        ]
    return found


def _told(spec: UpstreamSpec, place: str, name: str, file: Path | None) -> str:
    line = None if file is None else _line_of(file, spec.id, name)
    where = "" if file is None else f" ({file}{f', line {line}' if line else ''})"
    then = "" if file is None else ", and restart the service"
    variable = re.sub(r"\W", "_", spec.id).upper() + "_KEY"
    if place == "base_url":
        how = "take user and password out of the address"
    elif place.startswith("query."):
        how = "remove the parameter, and have the provider take its key by a header (auth_header)"
    else:
        how = f'put its value into a variable, and write key_env = "{variable}"'
        how += "" if name.lower() == "authorization" else f' and auth_header = "{name}"'
        how += " in its place"
    if name.lower() == "authorization":
        how += ' (the variable has the key without "Bearer")'
    return (
        f"upstreams.{spec.id}.{place}{where}: a secret may not stand in the configuration, since a "
        f"change at run time writes it into the log; {how}{then}"
    )


def _line_of(file: Path, id: str, name: str) -> int | None:
    """The line of the file on which an upstream sets this name; None where it is not found."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    of_id = re.compile(rf"""\s*id\s*=\s*["']{re.escape(id)}["']""")
    of_name = re.compile(rf"""(?:^|[\s{{,."'])["']?{re.escape(name)}["']?\s*=""")
    begin, ours, found = 0, False, None
    for number, line in enumerate([*lines, "[end]"], 1):
        table = _TABLE.match(line)
        if table is not None and not table[1].startswith("upstreams."):
            if ours and found is not None:
                return found
            begin, ours, found = number if table[1] == "upstreams" else 0, False, None
        if begin:
            ours = ours or of_id.match(line) is not None
            if found is None and of_name.search(line):
                found = number
    return None

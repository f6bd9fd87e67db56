"""What a log of several processes needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from bandit_service.settings.secret_sources import of_file, of_variable
from store import parts_of


@dataclass(frozen=True, slots=True)
class _Address:
    """How the address of an engine begins, and how it is written."""

    schemes: tuple[str, ...]
    form: str


_ENGINES = {
    "postgres": _Address(
        ("postgresql", "postgres"), "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
    ),
    "jetstream": _Address(("nats", "tls"), "nats://USER:PASSWORD@HOST:PORT,HOST:PORT"),
}
ENGINES = tuple(_ENGINES)
"""Those that several processes share."""
_MAX_OF_JETSTREAM = 1000
_HAS_PORT = re.compile(r":\d+$")


def dsn_of(
    values: Mapping[str, Any], environ: Mapping[str, str], beside: Path | None, mistakes: list[str]
) -> str:
    """The address of the database, from where the configuration says; "" where none is wanted."""
    name, file, engine = values["log.dsn_env"], values["log.dsn_file"], values["log.engine"]
    if engine not in _ENGINES:
        if name or file:
            key = "dsn_env" if name else "dsn_file"
            mistakes.append(f"log.{key}: is only for log.engine = {_either()}")
        return ""
    if bool(name) == bool(file):
        mistakes.append(f'log.dsn_env: log.engine = "{engine}" needs this or log.dsn_file')
        return ""
    key = "log.dsn_env" if name else "log.dsn_file"
    try:
        found = of_variable(key, name, environ) if name else of_file(key, file, beside)
    except ValueError as error:
        mistakes.append(str(error))
        return ""
    address = _ENGINES[engine]
    if _scheme(found) not in address.schemes:
        mistakes.append(f"{key}: must be {address.form} (what it is, is not shown)")
    return found


def is_one_place(engine: str, one: str, other: str) -> bool:
    """Whether two addresses surely lead to one database: as the same user to a server that both
    name. Others may, too: what they lead to says so once it is opened.

    >>> one = "postgresql://bandit:secret@db,standby:5432/bandit"
    >>> is_one_place("postgres", one, "postgres://bandit@DB:5432/bandit?sslmode=require")
    True
    >>> is_one_place("postgres", one, "postgresql://bandit:secret@db/other")
    False
    """
    first, second = _place(engine, one), _place(engine, other)
    if first is None or second is None:
        return one == other
    return first[0] == second[0] and bool(first[1] & second[1])


def _place(engine: str, address: str) -> tuple[tuple[str, ...], frozenset[str]] | None:
    """What two addresses have in common that lead to one database, and its servers."""
    parts = parts_of(address)
    if parts is None:
        return None
    query = dict(parse_qsl(parts.query))
    user = parts.user.partition(":")[0]
    alike: tuple[str, ...]
    if engine == "jetstream":
        alike, port = (user, query.get("creds", "")), "4222"
    else:
        user, name = user or query.get("user", ""), parts.path.strip("/") or query.get("dbname", "")
        alike, port = (user, name or user, query.get("options", "")), "5432"
    named = parts.hosts or tuple(query.get("host", "").split(","))
    hosts = (each.lower() for each in named if each)
    return alike, frozenset(each if _HAS_PORT.search(each) else f"{each}:{port}" for each in hosts)


def of_jetstream(values: Mapping[str, Any]) -> list[str]:
    """What only JetStream has, or has less of."""
    if values["log.engine"] != "jetstream":
        if values["log.insecure_single"]:
            return ['log.insecure_single: is only for log.engine = "jetstream"']
        return []
    if values["log.max_batch"] > _MAX_OF_JETSTREAM:
        return [
            f'log.max_batch: must be at most {_MAX_OF_JETSTREAM} with log.engine = "jetstream", '
            f"got {values['log.max_batch']}"
        ]
    return []


def _either() -> str:
    return " or ".join(f'"{each}"' for each in _ENGINES)


def _scheme(address: str) -> str:
    parts = parts_of(address)
    return "" if parts is None else parts.scheme


def of_retention(values: Mapping[str, Any]) -> list[str]:
    """What deleting old records of a shared log needs."""
    engine = values["log.engine"]
    if engine not in _ENGINES or values["log.share_snapshots"]:
        return []
    return [
        f'{key}: needs log.share_snapshots with log.engine = "{engine}", since a replica that '
        "joins begins from a shared snapshot; use 0 or share snapshots"
        for key in ("retention.max_age_s", "retention.max_bytes")
        if values[key]
    ]

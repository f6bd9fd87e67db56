"""What a log of several processes needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

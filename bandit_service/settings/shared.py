"""What a log of several processes needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bandit_service.parsing.inputs import text_of


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
_MOST_OF_JETSTREAM = 1000


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
    if name:
        key, found = "dsn_env", environ.get(name, "")
        if not found:
            mistakes.append(f"log.dsn_env: there is no {name} in the environment")
            return ""
    else:
        key, path = "dsn_file", Path(file) if beside is None else beside.parent / file
        try:
            found = text_of(path)
        except (OSError, ValueError):
            mistakes.append(f"log.dsn_file: {path} cannot be read")
            return ""
    found, address = found.strip(), _ENGINES[engine]
    if _scheme(found) not in address.schemes:
        mistakes.append(f"log.{key}: must be {address.form} (what it is, is not shown)")
    return found


def of_jetstream(values: Mapping[str, Any]) -> list[str]:
    """What only JetStream has, or has less of."""
    if values["log.engine"] != "jetstream":
        if values["log.insecure_single"]:
            return ['log.insecure_single: is only for log.engine = "jetstream"']
        return []
    if values["log.max_batch"] > _MOST_OF_JETSTREAM:
        return [
            f'log.max_batch: must be at most {_MOST_OF_JETSTREAM} with log.engine = "jetstream", '
            f"got {values['log.max_batch']}"
        ]
    return []


def _either() -> str:
    return " or ".join(f'"{each}"' for each in _ENGINES)


def _scheme(address: str) -> str:
    try:
        return urlsplit(address).scheme
    except ValueError:  # whose message has parts of it
        return ""


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

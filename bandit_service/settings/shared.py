"""What a log of several processes needs, and what does not work on it yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bandit_service.parsing.inputs import text_of
from store import ENGINES


def dsn_of(
    values: Mapping[str, Any], environ: Mapping[str, str], beside: Path | None, mistakes: list[str]
) -> str:
    """The address of the database, from where the configuration says; "" where none is wanted."""
    name, file = values["log.dsn_env"], values["log.dsn_file"]
    if values["log.engine"] in ENGINES:
        if name or file:
            key = "dsn_env" if name else "dsn_file"
            mistakes.append(f'log.{key}: is only for log.engine = "postgres"')
        return ""
    if bool(name) == bool(file):
        mistakes.append('log.dsn_env: log.engine = "postgres" needs this or log.dsn_file')
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
    found = found.strip()
    if not _is_address(found):
        mistakes.append(
            f"log.{key}: must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE (what it is, is not "
            "shown)"
        )
    return found


def _is_address(dsn: str) -> bool:
    try:
        return urlsplit(dsn).scheme in ("postgresql", "postgres")
    except ValueError:  # whose message has parts of it
        return False


def not_yet(values: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The settings that one process has and several on one log have not."""
    if values["log.engine"] in ENGINES:
        return []
    wrong = {
        "policies": bool(found["policies"]),
        "routes": bool(found["routes"]),
        "experiments": bool(found["experiments"]),
        "budgets": bool(found["budgets"]),
        "experiment_rules.holdout_share": bool(values["experiment_rules.holdout_share"]),
        "retention.max_age_s": bool(values["retention.max_age_s"]),
        "retention.max_bytes": bool(values["retention.max_bytes"]),
    }
    return [
        f'{key}: does not work with log.engine = "postgres" yet (docs/scale.md); leave it out'
        for key, given in wrong.items()
        if given
    ]

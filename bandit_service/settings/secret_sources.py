"""A secret that the configuration names by where it is: a variable of the environment, or a file.

No message has any part of a secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bandit_service.parsing.inputs import text_of


def of_variable(field: str, variable: str, environ: Mapping[str, str]) -> str:
    """The value of a variable. ValueError "field: what was wrong" if it is missing or blank."""
    if variable not in environ:
        raise ValueError(f"{field}: there is no {variable} in the environment")
    if not environ[variable].strip():
        raise ValueError(f"{field}: {variable} is empty in the environment")
    return environ[variable].strip()


def of_file(field: str, name: str, beside: Path | None) -> str:
    """The text of a file. ValueError "field: what was wrong" if it cannot be read or is blank.

    beside: the configuration's file, to whose directory the name is relative.
    """
    path = Path(name) if beside is None else beside.parent / name
    try:
        text = text_of(path)
    except (OSError, ValueError):
        raise ValueError(f"{field}: {path} cannot be read") from None
    if not text.strip():
        raise ValueError(f"{field}: {path} is empty")
    return text.strip()

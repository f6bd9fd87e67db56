"""Which files with secrets other users of the machine can read."""

from __future__ import annotations

import contextlib
import tomllib
from pathlib import Path

from bandit_service.parsing.inputs import text_of
from bandit_service.settings import Settings

_OTHERS = 0o004


def open_to_others(settings: Settings, config: Path | None) -> list[Path]:
    """The TLS key, the file of keys, and a configuration that has keys in it."""
    files = [Path(settings.server.tls_key)] if settings.server.tls_key else []
    if settings.security.keys_file:
        beside = Path() if config is None else config.parent
        file = beside / settings.security.keys_file
        with contextlib.suppress(OSError):  # it was there when the settings were read
            files += [file] if tomllib.loads(text_of(file)).get("keys") else []
    if config is not None and settings.keys:
        files.append(config)
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            if file.stat().st_mode & _OTHERS:
                found.append(file)
    return found

"""The command to run if a package is missing. This package is in no index; its dependencies are."""

from __future__ import annotations

import re
import shlex
from importlib import metadata

_OF_EXTRA = re.compile(r"(?P<needed>[^;]+);.*\bextra == ['\"](?P<extra>[\w-]+)['\"].*")


def install(extra: str, *packages: str) -> str:
    """The command that installs what the extra brings, or of that the named packages.

    In a checkout that is not installed it is the one to run there.

    >>> install("otel", "no-such-package").split()
    ['pip', 'install', 'no-such-package']
    """
    needed = _needed(extra)
    names = [name.lower().replace("_", "-") for name in packages] or list(needed)
    wanted = [needed.get(name, name) for name in names] or [f".[{extra}]"]
    return shlex.join(["pip", "install", *wanted])


def _needed(extra: str) -> dict[str, str]:
    """The requirements of an extra by the names of their packages."""
    try:
        declared = metadata.requires("bandit-service") or []
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        declared = []
    found = (_OF_EXTRA.fullmatch(each) for each in declared)
    lines = [one["needed"].strip() for one in found if one is not None and one["extra"] == extra]
    return {re.split(r"[^\w.-]", line, maxsplit=1)[0].lower(): line for line in lines}

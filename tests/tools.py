"""Programs and packages that a test needs: without them it is skipped, but not where CI is set."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from typing import Any, NoReturn

import pytest

from loadtest.prometheus import INSTALL


def tool(name: str, install: str = INSTALL) -> str:
    """The path of a program; without it the test is skipped, or fails where CI is set."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name}: {install}")
    return str(found)


def needed(name: str) -> Any:
    """The module of an extra; without it the tests are skipped, or fail where CI is set."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing(f"{name} is not installed; `make test` installs every extra")


def needed_apart(name: str) -> None:
    """The same for a package that this process does not import."""
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed; `make test` installs every extra")


def missing(why: str) -> NoReturn:
    """Skip, or fail where CI is set: there everything was installed before."""
    if os.environ.get("CI"):  # noqa: TID251 - the tests' own, no setting of the service
        pytest.fail(why)
    pytest.skip(why, allow_module_level=True)

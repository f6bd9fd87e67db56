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


def needed(name: str) -> None:
    """Without this package of an extra the tests are skipped, or fail where CI is set.

    It is not imported: every worker collects every test, and would keep what one of them uses.
    """
    if importlib.util.find_spec(name) is None:
        missing(f"{name} is not installed; `make test` installs every extra")


def imported(name: str) -> Any:
    """The module of an extra, by the same rule."""
    needed(name.partition(".")[0])
    return importlib.import_module(name)


def missing(why: str) -> NoReturn:
    """Skip, or fail where CI is set: there everything was installed before."""
    if os.environ.get("CI"):  # noqa: TID251 - the tests' own, no setting of the service
        pytest.fail(why)
    pytest.skip(why, allow_module_level=True)

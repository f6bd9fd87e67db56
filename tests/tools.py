"""Tools that are no Python packages: without them a test is skipped, but not where they must be."""

from __future__ import annotations

import os
import shutil

import pytest

from loadtest.prometheus import INSTALL


def tool(name: str, install: str = INSTALL) -> str:
    """The path of a program; without it the test is skipped, or fails where CI is set."""
    found = shutil.which(name)
    if found is None:
        missing(f"{name}: {install}")
    return str(found)


def missing(why: str) -> None:
    """Skip, or fail where CI is set: there everything was installed before."""
    if os.environ.get("CI"):  # noqa: TID251 - the tests' own, no setting of the service
        pytest.fail(why)
    pytest.skip(why)

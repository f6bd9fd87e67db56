"""How many threads the service's arithmetic has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.tools import needed

needed("threadpoolctl")
_SAID = """
import bandit_service, threadpoolctl
print([one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"])
"""


@pytest.mark.parametrize(("given", "found"), [(None, "[1]"), ("2", "[2]")])
def test_blas_has_one_thread_unless_the_environment_says_otherwise(
    given: str | None, found: str
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor has one thread in any case")
    environ = [] if given is None else [f"OPENBLAS_NUM_THREADS={given}"]
    asked = ["env", "-u", "OPENBLAS_NUM_THREADS", *environ, sys.executable, "-c", _SAID]
    assert subprocess.check_output(asked, text=True).strip() == found

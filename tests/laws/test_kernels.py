"""The state of every policy is the same bits whatever processor folds the log."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bandit_service.testing.kernels import BACKWARDS, NOT_OURS, TOGETHER, WRONG

CORES = ("Nehalem", "Haswell", "")


def _folded(core: str) -> subprocess.Popen[str]:
    environ = os.environ | {"OPENBLAS_NUM_THREADS": "1"}  # noqa: TID251 - passed on
    if core:
        environ["OPENBLAS_CORETYPE"] = core
        # numpy's own code for wide registers is another one, too
        environ["NPY_DISABLE_CPU_FEATURES"] = "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_ICL"
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "bandit_service.testing.kernels"],
        cwd=Path(__file__).resolve().parents[2],
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
@pytest.mark.skipif(platform.machine() != "x86_64", reason="OpenBLAS takes these cores on x86_64")
def test_the_state_of_every_policy_is_independent_of_the_processors_kernel() -> None:
    """At 5a5a85b forc, hybrid_llm and routellm_mf had other last bits under Haswell or Nehalem.

    A wrong policy, which multiplies by BLAS, shows that the test can fail.
    """
    states = []
    for run in [_folded(core) for core in CORES]:
        said, _ = run.communicate(timeout=300)
        assert run.returncode == 0
        states.append(json.loads(said))
    differ = {name for name in states[0] if len({each[name] for each in states}) > 1}
    assert WRONG in differ
    assert differ - {WRONG} <= NOT_OURS
    assert len(states[0]) > 30
    for name, state in states[0].items():  # nor does the order, or what came together, say anything
        for other in (f"{name} {BACKWARDS}", f"{name} {TOGETHER}"):
            assert states[0].get(other, state) == state, other
    assert {f"metallm {TOGETHER}", f"knn {BACKWARDS}"} <= states[0].keys()

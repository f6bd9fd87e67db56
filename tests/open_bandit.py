"""The Open Bandit Dataset's small sample, as `make obd` fetches it; it is not in this repository.

Saito et al., "Open Bandit Dataset and Pipeline" (arXiv 2008.07146), from the source package of obp.
"""

import csv
import hashlib
import io
import tarfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

ARCHIVE = Path(__file__).resolve().parents[1] / "var" / "obd" / "obp-0.5.7.tar.gz"
SHA256 = "3060d67fedfcfadf1e7a6f2608987f74412b5eb74d2c567edeb147595c68f2a0"


def archive() -> Path:
    """The package, or a skip that says how to get it."""
    if not ARCHIVE.exists():
        pytest.skip("the Open Bandit sample is not here: make obd")
    assert hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() == SHA256
    return ARCHIVE


def member(name: str) -> bytes:
    """One file of the package."""
    with tarfile.open(archive()) as tar:
        file = tar.extractfile(f"obp-0.5.7/{name}")
        assert file is not None
        return file.read()


def table(campaign: str, behaviour: str = "bts") -> bytes:
    """One campaign's CSV: "men", "women" or "all", as it was collected by "bts" or "random"."""
    return member(f"obp/dataset/obd/{behaviour}/{campaign}/{campaign}.csv")


@cache
def clicks(campaign: str) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """(n,) propensities, clicks and items of the Thompson log."""
    rows = list(csv.DictReader(io.StringIO(table(campaign).decode())))
    return (
        np.array([float(row["propensity_score"]) for row in rows]),
        np.array([float(row["click"]) for row in rows]),
        np.array([int(row["item_id"]) for row in rows]),
    )

"""Optimizely's published buckets."""

from __future__ import annotations

from typing import Any

import pytest

from bandit_service.core.experiments.bucketing import optimizely_bucket
from tests.shared_data import rows, vectors


@pytest.mark.parametrize("row", rows("optimizely/bucket.json"))
def test_a_bucket(row: list[Any]) -> None:
    unit, parent, bucket = row
    assert optimizely_bucket(unit, parent) == bucket


def test_the_table_is_whole() -> None:
    assert len(vectors("optimizely/bucket.json")["cases"]) == 5

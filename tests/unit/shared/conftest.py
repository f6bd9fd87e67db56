"""What the tests of replicas in memory begin with."""

from __future__ import annotations

import pytest

from tests.unit.shared.memory import Engine


@pytest.fixture
def engine() -> Engine:
    return Engine()

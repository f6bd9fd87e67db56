"""A process ends well, whatever the index does on another thread."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ENDING = """
import sys
import numpy as np
from store.history import HybridIndex

index = HybridIndex(64, 20_000, 3000)
for id, vector in enumerate(np.random.default_rng(1).normal(size=(3000, 64)).astype(np.float32)):
    index.add(id, vector)
if sys.argv[1] == "close":
    index.close()
    assert len(index) == 3000
"""


@pytest.mark.parametrize("how", ["close", "leave"])
def test_a_process_can_end_while_cells_are_found(how: str) -> None:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _ENDING, how], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")

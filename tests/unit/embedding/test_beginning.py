"""Only what can be embedded of a long text is tokenized."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from bandit_service.embedding.backends import OnnxBackend, export


def test_a_long_text_costs_what_its_beginning_costs_and_has_its_embedding(models: Path) -> None:
    """Seen on 5a5a85b: 190,000 characters took 0.35 to 0.6 s, all of them tokenized."""
    backend = OnnxBackend(export("onnx", "all-MiniLM-L6-v2", models), 1)
    short = "Why do rivers meander? Explain it to a child. " * 40  # all that the model looks at
    long = "   \n" * 5_000 + short + "Write a poem about the sea, in short lines. " * 100_000
    assert np.array_equal(backend.encode([short]), backend.encode([long]))

    def seconds(text: str) -> float:
        begun = time.thread_time()
        backend.encode([text])
        return time.thread_time() - begun

    # tokenizing all of it takes some hundred times as long
    assert min(seconds(long) for _ in range(3)) < 5 * min(seconds(short) for _ in range(3)) + 0.05

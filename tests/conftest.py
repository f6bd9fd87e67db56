"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bandit_service.embedding import export


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the default model, exported and quantised once for all tests."""
    directory = tmp_path_factory.mktemp("models")
    export("onnx", "all-MiniLM-L6-v2", directory)
    return directory

"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings

from bandit_service import logs
from bandit_service.app import assembly, service
from bandit_service.embedding import Backend, export, open_backend
from loadtest import postgres as postgres_server
from tests import shared_log

# The same examples every time, and as long as they take; `make fuzz` has a profile of its own.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def _loggers_as_they_were() -> Iterator[None]:
    """A command that a test runs in its own process leaves no handler with a stream that closes."""
    ours, others = logging.getLogger(logs.OURS), logging.getLogger()
    before = ours.handlers, ours.propagate, ours.level, others.handlers, others.level
    yield
    ours.handlers, ours.propagate, others.handlers = before[0], before[1], before[3]
    ours.setLevel(before[2])
    others.setLevel(before[4])


@pytest.fixture(autouse=True)
def _no_closed_service_is_kept() -> Iterator[None]:
    """aiohttp keeps the last 1,024 handlers that answered, and with each its closed application.

    In a process that opens hundreds of them that was 9 GB; `test_memory.py` counts them.
    """
    yield
    web_app = sys.modules.get("aiohttp.web_app")
    if web_app is not None:
        web_app._cached_build_middleware.cache_clear()


@pytest.fixture(scope="session", autouse=True)
def _what_a_start_costs_is_paid_once() -> Iterator[None]:
    """Hundreds of services are opened in one process: most of a start was to load the model and to
    look at every object of the tests.
    """

    @cache
    def opened(backend: str, model: str, files: Path, threads: int) -> Backend:
        return open_backend(backend, model, files, threads)

    def shared(backend: str, model: str, files: Path, threads: int = 1) -> Backend:
        return opened(backend, model, files.resolve(), threads)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(assembly, "open_backend", shared)
        light = SimpleNamespace(freeze=int, unfreeze=int)
        patched.setattr(service, "gc", light)
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the default model, exported and quantised once for all tests."""
    directory = tmp_path_factory.mktemp("models")
    export("onnx", "all-MiniLM-L6-v2", directory)
    return directory


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """A PostgreSQL that lives as long as the tests; none may stop it."""
    shared_log.wanted()
    with postgres_server.running() as server:
        yield server

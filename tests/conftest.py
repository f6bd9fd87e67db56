"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import ctypes
import gc
import logging
import resource
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings, strategies

from bandit_service import logs
from bandit_service.app import assembly, service
from bandit_service.embedding import Backend, export, open_backend
from loadtest import nats as nats_servers
from loadtest import postgres as postgres_server
from tests import shared_log
from tests.apart import apart
from tests.once import made_once

# The same examples every time, and as long as they take; `make fuzz` has a profile of its own.
settings.register_profile("tests", deadline=None, derandomize=True, database=None)
settings.load_profile("tests")


_MAX_MB = 1_500.0
_peaks: dict[str, float] = {}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long comes first: begun last, it would run alone while the other workers wait."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Hypothesis keeps its table of characters in a file, and makes it if there is none.

    That takes 200 MB for a moment, so it is made before there is much else in memory.
    """
    strategies.text().validate()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """The collector need not look at thousands of tests and their modules, which all stay.

    It looks at everything only once there is a quarter more than what it looked at before: beside
    them, what the tests left lay about for long.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """What a module's tests made is given back before the next one's."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        if not gc.get_freeze_count():  # after the tests of a service's own collector
            gc.freeze()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Each worker tells its peak; the session fails where one is above the bound."""
    config = session.config
    if hasattr(config, "workerinput"):
        config.workeroutput["peak_mb"] = _peak_mb()  # type: ignore[attr-defined]
        return
    _peaks.setdefault("this process", _peak_mb())
    if max(_peaks.values()) > _MAX_MB and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Called by xdist in the process that started the workers."""
    told = getattr(node, "workeroutput", None) or {}
    if "peak_mb" in told:
        _peaks[node.gateway.id] = told["peak_mb"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What each worker needed, beside what is allowed."""
    peaks = ", ".join(f"{name} {mb:.0f}" for name, mb in sorted(_peaks.items()))
    over = max(_peaks.values(), default=0.0) > _MAX_MB
    terminalreporter.write_line(
        f"peak memory in MB, at most {_MAX_MB:.0f}: {peaks}", red=over, bold=over
    )


def _peak_mb() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


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
        light = SimpleNamespace(
            freeze=int,
            unfreeze=int,
            get_threshold=gc.get_threshold,
            set_threshold=gc.set_threshold,
        )
        patched.setattr(service, "gc", light)
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the default model, exported and quantised once for all tests.

    In a process of its own: its peak, 370 MB, would stay with the worker.
    """

    def make(directory: Path) -> None:
        with apart() as run:
            run(export, "onnx", "all-MiniLM-L6-v2", directory)

    return made_once(tmp_path_factory, "models", make)


@pytest.fixture(scope="session")
def postgres() -> Iterator[postgres_server.Postgres]:
    """A PostgreSQL that lives as long as the tests; none may stop it."""
    shared_log.wanted()
    with postgres_server.running() as server:
        yield server


@pytest.fixture(scope="session")
def nats() -> Iterator[nats_servers.NatsServers]:
    """One NATS server that lives as long as the tests; none may stop it."""
    shared_log.nats_wanted()
    with nats_servers.running() as servers:
        yield servers

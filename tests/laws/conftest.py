"""A whole run of the laws runs every law on every policy: what ran is compared, not two lists."""

from __future__ import annotations

import pytest

_NAME = "tests/laws/test_policies.py::test_law["
_ran: set[str] = set()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called where the session is controlled, for what any worker ran."""
    if report.when == "call" and report.nodeid.startswith(_NAME):
        _ran.add(report.nodeid.removeprefix(_NAME).removesuffix("]"))


def missing(expected: set[str]) -> set[str]:
    """Of the cases that a whole run has, those that did not run."""
    return expected - _ran


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the session where a whole run left something out."""
    config = session.config
    worker = hasattr(config, "workerinput")
    part = config.option.keyword or config.option.markexpr or any("::" in a for a in config.args)
    if worker or part or exitstatus != pytest.ExitCode.OK or not _ran:
        return
    from tests.laws.test_policies import every_case

    if left := sorted(missing(every_case())):
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"laws that did not run: {len(left)}, such as {left[0]}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

"""What every policy, event log, index and snapshot store of this project is held to, to run on
your own.

Subclass a suite in a test of yours, and pytest runs it:

    from bandit_service.testing import PolicySuite

    class TestThrifty(PolicySuite):
        policy = Thrifty

Needs the extra `testing`, hypothesis and pytest; docs/install.md says how an extra is installed.
"""

from bandit_service.parsing.extras import install

try:
    import hypothesis  # noqa: F401 - so that what is missing is told at once
    import pytest  # noqa: F401
except ModuleNotFoundError as error:
    needs = f"bandit_service.testing needs {error.name}: {install('testing')}"
    raise ModuleNotFoundError(needs, name=error.name) from None

from bandit_service.testing.indexes import IndexSuite
from bandit_service.testing.laws import NotApplicable, all_laws
from bandit_service.testing.logs import LogSuite
from bandit_service.testing.policy import PolicySuite
from bandit_service.testing.snapshots import SnapshotsSuite

__all__ = [
    "IndexSuite",
    "LogSuite",
    "NotApplicable",
    "PolicySuite",
    "SnapshotsSuite",
    "all_laws",
]

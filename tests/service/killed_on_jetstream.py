"""What is left on a log in NATS JetStream where a process was killed, or is of an older release, by
the tests of the same on PostgreSQL.

Each takes long, so the suite has them on PostgreSQL only. `make chaos-scale ENGINE=jetstream` runs
this file.
"""

from __future__ import annotations

import pytest

from loadtest.nats import NatsServers
from tests.service import test_replicas_budgets, test_replicas_erasure, test_replicas_upgraded

test_a_killed_replica_with_a_slice = (
    test_replicas_budgets.test_a_killed_replica_with_a_slice_makes_nobody_exceed
)
erased_soon = test_replicas_erasure._soon
test_a_killed_keeper = (
    test_replicas_erasure.test_kill_9_of_the_keeper_after_its_order_leaves_one_log_and_one_state
)
test_an_older_release = (
    test_replicas_upgraded.test_what_the_older_release_cannot_read_waits_until_it_has_left
)


@pytest.fixture
def postgres(nats: NatsServers) -> NatsServers:
    """What those tests ask for by this name."""
    return nats

"""What replicas do on a log in PostgreSQL, by some of the same tests on one in NATS JetStream.

Those of processes that are killed take long: `make chaos-scale ENGINE=jetstream` has them.
"""

from __future__ import annotations

import pytest

from loadtest.nats import NatsServers
from tests.service import (
    test_replicas_erasure,
    test_replicas_experiments,
    test_replicas_metrics,
    test_replicas_policy,
)

test_an_experiment = test_replicas_experiments.test_an_experiment_is_one_for_all_replicas
test_a_policy = test_replicas_policy.test_all_replicas_change_their_policy_at_one_offset

erased_soon = test_replicas_erasure._soon
test_units = test_replicas_erasure.test_units_are_erased_at_every_replica_and_in_the_database
test_one_away = (
    test_replicas_erasure.test_a_replica_that_was_away_erases_its_copy_and_has_the_same_state
)
test_metrics = test_replicas_metrics.test_other_weights_of_one_that_starts_are_taught_once_and_alike
test_a_session = test_replicas_metrics.test_a_session_over_three_is_rewarded_once_whoever_is_told


@pytest.fixture
def postgres(nats: NatsServers) -> NatsServers:
    """What those tests ask for by this name."""
    return nats

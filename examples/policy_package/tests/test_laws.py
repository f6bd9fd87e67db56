"""Every law of bandit-service's policies, on UCB1 as it is installed."""

from bandit_ucb1 import UCB1

import policies
from bandit_service.testing import PolicySuite


class TestUCB1(PolicySuite):
    policy = UCB1


def test_the_service_finds_it_by_its_name() -> None:
    assert policies.load("ucb1", c=0.5) == UCB1(c=0.5)

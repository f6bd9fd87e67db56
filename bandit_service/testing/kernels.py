"""Folds the laws' events with every policy and prints the hashes of the states, as JSON.

Those to which order says nothing fold more events, backwards too, and in batches where they can.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

import policies
from bandit_service.core import codec
from bandit_service.testing import events as made
from policies import Floats

EVENTS, DIM = 60, 384  # the length of real embeddings, at which kernels differ
MORE, BATCH = 500, 100  # so that products of full blocks are among them
BACKWARDS, TOGETHER = "backwards", "in batches"
WRONG = "a policy that multiplies by BLAS"
NOT_OURS = {"river:LinUCBDisjoint"}
"""River's own code keeps an inverse in its state; docs/policies/river.md says so."""


@dataclass
class _Sum:
    total: Floats = field(default_factory=lambda: np.zeros(1))


class _Multiplies:
    def init(self) -> _Sum:
        return _Sum()

    def learn(self, state: _Sum, event: made.Event) -> _Sum:
        x = event.context.embedding.astype(np.float64)
        state.total += x @ np.roll(x, 1)
        return state


def main() -> None:
    """Print name → hash."""
    past, more = list(_past(EVENTS)), list(_past(MORE))
    found = {WRONG: _hash(_Multiplies(), past)}
    for name in [*policies.names(), *policies.river_names()]:
        policy: Any = policies.load(name)
        for i, one in enumerate([policy, *getattr(policy, "examples", list)()]):
            called = name if not i else f"{name} {i}"
            found[called] = _hash(one, more if policies.order_free(one) else past)
            if policies.order_free(one):
                found[f"{called} {BACKWARDS}"] = _hash(one, more[::-1])
                if isinstance(one, policies.LearnsMany):
                    found[f"{called} {TOGETHER}"] = _hash(one, more, BATCH)
    sys.stdout.write(json.dumps(found))


def _past(n: int) -> Iterator[made.Event]:
    for i, event in enumerate(made.history(n, seed=5)):
        yield replace(event, context=replace(event.context, embedding=made.vector(i + 1, DIM)))


def _hash(policy: Any, past: list[made.Event], batch: int = 0) -> str:
    state = policy.init()
    if batch:
        for start in range(0, len(past), batch):
            state = policy.learn_many(state, past[start : start + batch])
    for event in past if not batch else ():
        state = policy.learn(state, event)
    return codec.sha256(codec.dump(state))


if __name__ == "__main__":
    main()

"""The features of a query: of a text that the model takes, that is kept, or that takes too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Event

import numpy as np

from bandit_service.core.query import Recalled
from bandit_service.core.world import new_world
from bandit_service.embedding import EmbeddingStage
from bandit_service.embedding.backends import Matrix
from bandit_service.runtime.queries import Queries
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.settings import Settings
from bandit_service.telemetry.telemetry import Telemetry
from bandit_service.wire import DecideRequest
from policies import load


class Model:
    """Answers where it may."""

    name, dim = "model", 2

    def __init__(self) -> None:
        self.may = Event()

    def encode(self, texts: Sequence[str]) -> Matrix:
        assert self.may.wait(60)
        return np.array([[1.0, 0.0]] * len(texts), np.float32)


def _queries(stage: EmbeddingStage, timeout_s: float = 60.0) -> Queries:
    world = new_world({"uniform": load("uniform")}, "uniform", 10)
    rules = replace(RouterRules.of(Settings()), embed_timeout_s=timeout_s)
    telemetry = Telemetry(lambda: 0, lambda: 0)
    return Queries(lambda: world, stage, telemetry, rules, lambda _: Recalled())


async def test_a_text_waits_for_the_model_once_and_is_kept_then() -> None:
    model = Model()
    model.may.set()
    stage = EmbeddingStage(model)
    queries = _queries(stage)
    first, again = [await queries.features(DecideRequest(query="a text")) for _ in range(2)]
    assert (first.awaited, again.awaited) == (True, False)
    for each in first, again:
        assert (each.embedding.tolist(), each.tokens, each.fallback) == ([1.0, 0.0], 2, "")
    await stage.close()


async def test_a_text_that_takes_too_long_is_decided_without_its_embedding() -> None:
    model = Model()
    stage = EmbeddingStage(model)
    late = await _queries(stage, timeout_s=0.01).features(DecideRequest(query="a text"))
    assert (late.fallback, late.tokens) == ("embed: TimeoutError", 2)
    assert not late.embedding.any()
    model.may.set()
    await stage.close()

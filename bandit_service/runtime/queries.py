"""The query of a request: its features, its arms, and what quality is worth to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from bandit_service import wire
from bandit_service.core import events as ev
from bandit_service.core.errors import Busy, Refused, Unavailable, Unknown
from bandit_service.core.query import Query, Recalled
from bandit_service.core.sessions import groups_of
from bandit_service.core.switching_cost import turn_of
from bandit_service.core.tags import tags_of
from bandit_service.core.vector_bytes import rounded
from bandit_service.core.world import World
from bandit_service.embedding import EmbeddingStage, Overloaded, estimate_tokens
from bandit_service.embedding import key_of as key_of_text
from bandit_service.runtime.router_rules import RouterRules
from bandit_service.telemetry import tracing
from bandit_service.telemetry.telemetry import Telemetry
from policies import ArmId, Vector


class Features(msgspec.Struct, frozen=True, gc=False):
    """The features of a query; fallback: why its text could not be embedded. awaited: the model
    ran for it, and so everything that could be decided together with it is there.
    """

    embedding: Vector
    tokens: int = 0
    surface: bytes = b""
    fallback: str = ""
    awaited: bool = False


class Came(msgspec.Struct, gc=False):
    """A request that has its embedding, with who asks."""

    request: wire.DecideRequest
    caller: str


class Queries:
    """Makes queries. recall: the nearest past queries of an embedding."""

    def __init__(
        self,
        world: Callable[[], World],
        embedder: EmbeddingStage,
        telemetry: Telemetry,
        rules: RouterRules,
        recall: Callable[[Vector], Recalled],
    ) -> None:
        self._world, self._rules, self._recall = world, rules, recall
        self._embedder, self._telemetry = embedder, telemetry

    def of_embeddings(self, came: Sequence[Came]) -> list[Query | Exception]:
        """The queries of requests that have their embeddings, or what is wrong with each."""
        if not came:
            return []
        vectors = wire.embeddings_of([one.request for one in came], self._embedder.dim)
        found: list[Query | Exception] = []
        for one, vector in zip(came, vectors, strict=True):
            if isinstance(vector, Exception):
                found.append(vector)
                continue
            try:
                query = self.query(one.request, Features(vector))
            except Exception as error:  # noqa: BLE001 - one request's trouble is not the others'
                found.append(error)
            else:
                query.caller = one.caller
                found.append(query)
        return found

    def query(self, request: wire.DecideRequest, of: Features, talk: str | None = None) -> Query:
        """The query of a request with these features. talk: the client's own name for the
        conversation, if the request has another.
        """
        arms = wire.arm_ids(request.arms)
        if request.route:
            arms = self._of_route(request, arms)
        coding = self._rules.embeddings
        return Query(
            embedding=rounded(of.embedding, coding),
            coding=coding,
            tokens=of.tokens,
            surface=of.surface,
            willingness_to_pay=self.worth_of(request),
            arms=arms,
            max_cost_usd=request.max_cost_usd,
            max_latency_s=request.max_latency_s,
            requires=tuple(request.requires),
            tenant=request.tenant,
            unit=request.unit,
            session=request.session,
            conversation=request.conversation,
            policy=request.policy,
            outside=request.arms is not None and len(request.arms) == 1,
            fallback=of.fallback,
            tags=tags_of(request.tags),
            groups=groups_of(
                request.tenant, request.session, request.conversation if talk is None else talk
            ),
            route=request.route,
            all_of_route=bool(request.route) and request.arms is None,
        )

    def again(self, decided: ev.Decided) -> Query:
        """The query of a decision, with the arms of that time. Its policy decides again if it still
        exists and was not chosen by an experiment. Raises Unknown if the decision's route was
        removed.
        """
        routed = bool(decided.route)
        if routed and decided.route not in self._world().routes.specs:
            raise Unknown(
                f"decision_id: {decided.id!r} was made by the route {decided.route!r}, which is "
                "no longer configured, so it cannot be explained again; "
                f"GET /v1/decisions/{decided.id} has what it was made from",
                param="decision_id",
            )
        named = decided.policy in self._world().deciding() and not (decided.experiment or routed)
        coding = self._rules.embeddings
        return Query(
            embedding=rounded(ev.unpack(decided.embedding), coding),
            coding=coding,
            tokens=decided.tokens,
            willingness_to_pay=decided.willingness_to_pay,
            arms=decided.arms,
            tenant=decided.tenant,
            unit=decided.unit,
            policy=decided.policy if named else "",
            fallback=decided.fallback if not np.any(ev.unpack(decided.embedding)) else "",
            surface=decided.surface,
            prompt=decided.prompt_tokens,
            turn=turn_of(decided),
            route=decided.route,
        )

    def _of_route(
        self, request: wire.DecideRequest, arms: tuple[ArmId, ...] | None
    ) -> tuple[ArmId, ...] | None:
        """The arms that a route allows a query."""
        route, there = self._world().routes.find(request.route), self._world().arms
        if request.policy:
            raise Refused(
                f"policy: the route {route.id!r} has its own; leave it out", param="policy"
            )
        if route.arms and arms is None:
            arms = self._world().routes.arms_of(route.id, there)
        elif route.arms and arms is not None and (other := set(arms) - set(route.arms)):
            raise Refused(
                f"arms: {min(other)!r} is no arm of the route {route.id!r}; expected one of "
                f"{', '.join(route.arms)}",
                param="arms",
            )
        return arms

    def worth_of(self, request: wire.DecideRequest) -> float:
        """USD that one unit of quality is worth to a query: its own value, or its route's, or the
        service's.
        """
        given = request.willingness_to_pay
        if given is None and request.route:
            given = self._world().routes.find(request.route).willingness_to_pay
        return self.worth(given)

    def worth(self, given: float | None) -> float:
        """The willingness to pay that was given, or the service's."""
        return self._rules.reward.willingness_to_pay if given is None else given

    async def features(self, request: wire.Query, bounded: bool = True) -> Features:
        """What its text is embedded as, or its own embedding. bounded: its text is not longer than
        max_query_chars. Raises Busy where too many texts wait.
        """
        most = self._rules.max_query_chars if bounded else None
        text, size = wire.text_and_size(request, most)
        if text is None:
            return Features(wire.embedding_of(request, self._embedder.dim))
        tokens = estimate_tokens(size)
        begun = time.perf_counter()
        try:
            key = key_of_text(text)
            kept = embedded = self._embedder.kept(key)
            if embedded is None:
                embedded = await self._embedder.embed_new(key, text, self._rules.embed_timeout_s)
        except Overloaded as error:
            self._telemetry.shed("queue")
            raise Busy(f"the embedding queue is full: {error}") from None
        except Exception as error:  # noqa: BLE001 - a query gets an answer without its embedding
            nothing = np.zeros(self._embedder.dim, np.float32)
            return Features(nothing, tokens, fallback=f"embed: {type(error).__name__}")
        ended = time.perf_counter()
        self._telemetry.stage("embed", ended - begun)
        if (span := tracing.current()) is not None:
            span.stage("embed", begun, ended)
        return Features(embedded.vector, tokens, embedded.surface, awaited=kept is None)

    async def subject(self, request: wire.RewardRequest | wire.CompareRequest) -> ev.Subject:
        """The query that an outcome without a decision is about. Raises Unavailable if its text
        cannot be embedded.
        """
        worth = request.willingness_to_pay
        wire.check_worth(worth)
        wire.check_names(request.unit, request.tenant)
        of = await self.features(request)
        if of.fallback:
            raise Unavailable(f"the query cannot be embedded now ({of.fallback}); retry")
        recalled = self._recall(of.embedding)
        return ev.Subject(
            embedding=ev.pack(of.embedding),
            tokens=of.tokens,
            surface=of.surface,
            willingness_to_pay=self.worth(worth),
            neighbours=tuple(recalled.ids),
            similarities=tuple(recalled.similarities),
            tenant=request.tenant,
            unit=request.unit,
        )

"""Which configured arms can take a request, and how much each would let its model reason.

An arm's own parameters take precedence over the client's: the policy chose them, and what it learns
about the arm includes them. A client that pins its parameters (`x-pin-parameters: on`) gets only
arms that are called with exactly these. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from bandit_service.core.arm_request import NOTHING
from bandit_service.core.errors import Refused
from bandit_service.core.events import ArmSpec
from bandit_service.gateway import translation
from bandit_service.gateway.providers import Asks, provider_of
from bandit_service.gateway.request import Asked
from bandit_service.settings.upstreams import Upstream
from policies import ArmId

PIN = "x-pin-parameters"
_LONGEST = 60


class ArmFit(msgspec.Struct, frozen=True):
    """unsuited: why arms cannot be asked. effort_asked, efforts: as of `conversations.Sent`."""

    unsuited: Mapping[str, Refused] = {}
    effort_asked: str = ""
    efforts: Mapping[ArmId, str] = {}


_FITS = ArmFit()
"""Every arm."""


def pinned(headers: Mapping[str, str]) -> bool:
    """Whether the client's own parameters must be sent unchanged. Raises Refused."""
    said = headers.get(PIN, "off").strip().lower()
    if said not in ("on", "off"):
        raise Refused(f"{PIN}: must be on or off, got {said[:40]!r}", param=PIN)
    return said == "on"


def plain_kinds(
    specs: Mapping[str, ArmSpec], upstreams: Mapping[str, Upstream]
) -> frozenset[str] | None:
    """The dialects of these arms, where none of them sets anything of a request; None otherwise."""
    if any(spec.request != NOTHING for spec in specs.values()):
        return None
    return frozenset(upstreams[spec.upstream].spec.kind for spec in specs.values())


def fit_of(
    asked: Asked,
    specs: Mapping[str, ArmSpec],
    upstreams: Mapping[str, Upstream],
    pins: bool,
    kinds: Collection[str] | None = None,
) -> ArmFit:
    """Which of these arms a request suits. upstreams: by id; each arm's is among them.

    kinds: as `plain_kinds` says, so that no arm need be looked at.
    """
    fitting = _Fitting(asked, pins)
    if kinds is not None and fitting.asks_nothing and not any(map(asked.unsaid, kinds)):
        return _FITS
    unsuited: dict[str, Refused] = {}
    efforts: dict[ArmId, str] = {}
    for id, spec in specs.items():
        try:
            effort = fitting.effort(spec, upstreams[spec.upstream])
        except Refused as refused:
            unsuited[id] = refused
        else:
            if effort:
                efforts[spec.id] = effort
    return ArmFit(unsuited, fitting.own.effort, efforts)


class _Fitting:
    """own: what the client says. A request is put into each dialect once, if that is needed."""

    def __init__(self, asked: Asked, pins: bool) -> None:
        self._asked = asked
        self._pins = pins
        self._said = asked.own or asked.body
        self.own: Asks = provider_of(asked.kind).asks(self._said)
        self.asks_nothing = not (pins or self.own.effort)
        """The request sets nothing that an arm may set."""
        self._refusals: dict[str, Refused | None] = {}
        self._bodies: dict[str, tuple[str, Mapping[str, Any]]] = {}

    def effort(self, spec: ArmSpec, upstream: Upstream) -> str:
        """How much reasoning the arm's provider would be asked for.

        Raises Refused if it cannot be.
        """
        kind, request = upstream.spec.kind, spec.request
        if kind not in self._refusals:
            self._refusals[kind] = self._asked.unsaid(kind)
        if (refused := self._refusals[kind]) is not None:
            raise refused
        if request == NOTHING and self.asks_nothing:
            return ""
        if kind not in self._bodies:
            self._bodies[kind] = self._body(upstream)
        path, body = self._bodies[kind]
        sent = translation.configured(upstream.spec, path, body, request)
        asks = provider_of(kind).asks(sent)
        if self._pins:
            self._check_pins(spec, kind, sent, asks)
        return asks.effort

    def _body(self, upstream: Upstream) -> tuple[str, Mapping[str, Any]]:
        asked, kind = self._asked, upstream.spec.kind
        passes = asked.passes(kind)
        path, body = (asked.front.OWN_PATH, asked.own) if passes else (asked.path, asked.body)
        return path, translation.request_of(provider_of(kind), upstream, path, body).body

    def _check_pins(self, spec: ArmSpec, kind: str, sent: Mapping[str, Any], asks: Asks) -> None:
        if name := self.own.differs(asks):
            mine, there = getattr(self.own, name), getattr(asks, name)
            raise Refused(
                f"{name}: the client pins {_told(mine)} ({PIN}), and {spec.id!r} is asked with "
                f"{'none' if there is None else _told(there)}",
                param=PIN,
            )
        if self._asked.kind != kind:
            return
        for name in spec.request.extra_body:
            if name in self._said and self._said[name] != sent[name]:
                raise Refused(
                    f"{name}: the client pins it ({PIN}), and {spec.id!r} sets it otherwise",
                    param=PIN,
                )


def _told(value: object) -> str:
    return repr(value)[:_LONGEST]

"""Everything that can happen, as versioned records. The log of these is the truth.

An event carries everything that applying it reads, so applying never embeds, recalls, reads a
clock or draws. Events are appended and never rewritten: new fields have defaults, fields are
never renamed, retyped or reused. `tests/golden/events.json` keeps a sample of every kind.

`event_kinds/` has a file for each subject; a new kind joins `AnyEvent` here, and `_FORMATS` if an
older version cannot read it.
"""

from __future__ import annotations

from functools import cache
from hashlib import blake2b
from typing import TypeAlias

import msgspec

from bandit_service.core.arm_spec import ARM_KINDS as ARM_KINDS
from bandit_service.core.arm_spec import ArmSpec as ArmSpec
from bandit_service.core.arm_spec import Deployment as Deployment
from bandit_service.core.event_kinds.catalogue import ArmAdded as ArmAdded
from bandit_service.core.event_kinds.catalogue import ArmRetired as ArmRetired
from bandit_service.core.event_kinds.catalogue import ArmUpdated as ArmUpdated
from bandit_service.core.event_kinds.catalogue import ConfigurationChanged as ConfigurationChanged
from bandit_service.core.event_kinds.catalogue import PolicyAnnounced as PolicyAnnounced
from bandit_service.core.event_kinds.catalogue import PolicyBuilt as PolicyBuilt
from bandit_service.core.event_kinds.catalogue import PolicyChanged as PolicyChanged
from bandit_service.core.event_kinds.catalogue import PolicyGivenUp as PolicyGivenUp
from bandit_service.core.event_kinds.catalogue import PolicyJoined as PolicyJoined
from bandit_service.core.event_kinds.catalogue import PolicyLeft as PolicyLeft
from bandit_service.core.event_kinds.catalogue import RouteChanged as RouteChanged
from bandit_service.core.event_kinds.catalogue import RouteRemoved as RouteRemoved
from bandit_service.core.event_kinds.decisions import Decided as Decided
from bandit_service.core.event_kinds.decisions import Shadow as Shadow
from bandit_service.core.event_kinds.decisions import Shadowed as Shadowed
from bandit_service.core.event_kinds.erasures import Erased as Erased
from bandit_service.core.event_kinds.erasures import ErasureOrdered as ErasureOrdered
from bandit_service.core.event_kinds.erasures import Forgotten as Forgotten
from bandit_service.core.event_kinds.erasures import TrimOrdered as TrimOrdered
from bandit_service.core.event_kinds.event import Event as Event
from bandit_service.core.event_kinds.experiments import ExperimentChanged as ExperimentChanged
from bandit_service.core.event_kinds.experiments import ExperimentDeleted as ExperimentDeleted
from bandit_service.core.event_kinds.experiments import RulesChanged as RulesChanged
from bandit_service.core.event_kinds.experiments import VariantSeeded as VariantSeeded
from bandit_service.core.event_kinds.lean import DecidedLean as DecidedLean
from bandit_service.core.event_kinds.lean import lean, whole
from bandit_service.core.event_kinds.learning import DriftDetected as DriftDetected
from bandit_service.core.event_kinds.learning import MetricsChanged as MetricsChanged
from bandit_service.core.event_kinds.learning import MetricsWeighed as MetricsWeighed
from bandit_service.core.event_kinds.learning import PriorWeighed as PriorWeighed
from bandit_service.core.event_kinds.outcomes import Compared as Compared
from bandit_service.core.event_kinds.outcomes import DecisionsExpired as DecisionsExpired
from bandit_service.core.event_kinds.outcomes import Judged as Judged
from bandit_service.core.event_kinds.outcomes import Redirected as Redirected
from bandit_service.core.event_kinds.outcomes import Rewarded as Rewarded
from bandit_service.core.event_kinds.outcomes import SessionCredited as SessionCredited
from bandit_service.core.event_kinds.outcomes import SessionRewarded as SessionRewarded
from bandit_service.core.event_kinds.outcomes import Subject as Subject
from bandit_service.core.event_kinds.spending import BudgetLeased as BudgetLeased
from bandit_service.core.event_kinds.spending import BudgetReturned as BudgetReturned
from bandit_service.core.event_kinds.spending import Spent as Spent
from bandit_service.core.route_spec import RouteSpec as RouteSpec
from bandit_service.core.route_spec import is_of_route as is_of_route
from bandit_service.core.route_spec import label_of_route as label_of_route
from bandit_service.core.route_spec import route_label as route_label
from bandit_service.core.route_spec import within_route as within_route
from bandit_service.core.vector_bytes import FLOAT32 as FLOAT32
from bandit_service.core.vector_bytes import pack as pack
from bandit_service.core.vector_bytes import surface_of as surface_of
from bandit_service.core.vector_bytes import unpack as unpack

AnyEvent: TypeAlias = (
    ArmAdded
    | ArmUpdated
    | ArmRetired
    | PolicyChanged
    | PolicyAnnounced
    | PolicyBuilt
    | PolicyGivenUp
    | PolicyJoined
    | PolicyLeft
    | RouteChanged
    | RouteRemoved
    | Decided
    | Shadowed
    | Rewarded
    | SessionRewarded
    | SessionCredited
    | Compared
    | Judged
    | DecisionsExpired
    | Spent
    | BudgetLeased
    | BudgetReturned
    | Redirected
    | ExperimentChanged
    | ExperimentDeleted
    | VariantSeeded
    | RulesChanged
    | DriftDetected
    | PriorWeighed
    | MetricsChanged
    | MetricsWeighed
    | ConfigurationChanged
    | Forgotten
    | Erased
    | ErasureOrdered
    | TrimOrdered
)

READS = 6
"""The newest format that this version reads; 1 is that of all kinds but these."""
LEAN = 6
"""That of `DecidedLean`."""
_OF_ROUTES = 5
"""That of events whose fields about a route an older version would overlook, and go on wrongly."""
_OF_HOLDOUTS = 6
"""The same of a route's hold-out."""
_OF_SETTINGS = 6
"""The same of sections that an older version does not know: it would go on by its own."""
_NEW_SECTIONS = frozenset({"policies", "settings"})
_FORMATS: dict[type[Event], int] = {
    BudgetLeased: 2,
    BudgetReturned: 2,
    PolicyAnnounced: 2,
    PolicyBuilt: 2,
    PolicyGivenUp: 2,
    MetricsChanged: 2,
    MetricsWeighed: 2,
    SessionRewarded: 2,
    SessionCredited: 2,
    Judged: 3,
    ConfigurationChanged: 3,
    ErasureOrdered: 4,
    TrimOrdered: 4,
    PolicyJoined: 4,
}


def format_of(kind: type[Event]) -> int:
    """What a replica must read, at least, to read events of this kind."""
    return _FORMATS.get(kind, 1)


def format_needed(event: AnyEvent) -> int:
    """What a replica must read, at least, to take this event in as it is meant."""
    match event:
        case ExperimentChanged() if event.experiment.route:
            return _OF_ROUTES
        case RouteChanged() if event.route.holdout_share:
            return _OF_HOLDOUTS
        case RouteChanged() if event.route.weights or event.route.latency_weight is not None:
            return _OF_ROUTES
        case ConfigurationChanged() if _NEW_SECTIONS & event.sections.keys():
            return _OF_SETTINGS
        case _:
            return format_of(type(event))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyEvent | DecidedLean)


def encode(event: AnyEvent, coding: str = FLOAT32) -> bytes:
    """The event as MessagePack, a map with its `kind`.

    coding: that of the embeddings of decisions. A decision that was not rounded to it is written
    whole, so that `decode` always returns the same event.
    """
    if coding != FLOAT32 and isinstance(event, Decided):
        return _encoder.encode(lean(event, coding))
    return _encoder.encode(event)


def decode(body: bytes) -> AnyEvent:
    """The event that `encode` made `body` from; msgspec.DecodeError when it is none."""
    try:
        event: AnyEvent = _decoder.decode(body)
        return whole(event) if isinstance(event, DecidedLean) else event
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None
    except UnicodeDecodeError:
        raise msgspec.DecodeError("a text is not UTF-8") from None
    except ValueError as error:
        if isinstance(error, msgspec.DecodeError):
            raise
        raise msgspec.DecodeError(f"a lean decision: {error}") from None


def kind(event: AnyEvent) -> str:
    """The tag under which the event is stored."""
    return tag(type(event))


@cache
def tag(kind: type[Event]) -> str:
    """The tag under which events of this kind are stored."""
    return str(kind.__struct_config__.tag)


def owner_of(tenant: str, unit: str) -> str:
    """Whose data an event is: a hash of tenant and unit, "" where no unit is named.

    >>> owner_of("acme", "")
    ''
    >>> owner_of("acme", "u1") == owner_of("acme", "u1") != owner_of("", "u1")
    True
    """
    if not unit:
        return ""
    return blake2b(f"{len(tenant)}:{tenant}{unit}".encode(), digest_size=16).hexdigest()

"""Dialects. A file without an underscore is one, named as its file; there is no list.

Each is spoken to providers, by upstreams of its `kind`, and by clients at a path of its own.
OpenAI's chat completion is the form between any two. If client and provider speak the same dialect,
their messages are passed through.

`settings.upstreams.KINDS` repeats the names, since settings may not import this package.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import cast

from bandit_service.gateway.providers._asking import Asks
from bandit_service.gateway.providers._base import (
    EventDecoder,
    Front,
    Heard,
    HttpRequest,
    Provider,
    Teller,
    plain_id,
)

__all__ = [
    "Asks", "EventDecoder", "Front", "Heard", "HttpRequest", "Provider", "Teller",
    "front_of", "names", "plain_id", "provider_of",
]  # fmt: skip


def names() -> tuple[str, ...]:
    """Every dialect's name, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


@cache
def provider_of(kind: str) -> Provider:
    """The dialect of an upstream's `kind`."""
    return cast(Provider, importlib.import_module(f"{__name__}.{kind}"))


@cache
def front_of(kind: str) -> Front:
    """The dialect of a client."""
    return cast(Front, importlib.import_module(f"{__name__}.{kind}"))

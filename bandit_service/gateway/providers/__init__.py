"""Providers' dialects. A file without an underscore is one, named as its file; there is no list.

`settings.upstreams.KINDS` repeats the names, since settings may not import this package.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import cast

from bandit_service.gateway.providers._base import EventDecoder, HttpRequest, Provider

__all__ = ["EventDecoder", "HttpRequest", "Provider", "names", "provider_of"]


def names() -> tuple[str, ...]:
    """Every dialect's name, sorted."""
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


@cache
def provider_of(kind: str) -> Provider:
    """The dialect of an upstream's `kind`."""
    return cast(Provider, importlib.import_module(f"{__name__}.{kind}"))

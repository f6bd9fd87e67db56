"""The demo of an empty service."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bandit_service.core.fields import doc


class Demo(msgspec.Struct, kw_only=True, frozen=True):
    """Whether recorded traffic can be sent through this service, or is."""

    available: Annotated[bool, doc("Whether it can begin now.", False)]
    why: Annotated[
        str,
        doc(
            "Why not; empty if it can, or runs.",
            "it runs only on a service for one machine alone, without API keys",
        ),
    ]
    running: Annotated[bool, doc("Whether it runs.", False)]
    decisions: Annotated[int, doc("Decisions that it has made since the start.", 0)]

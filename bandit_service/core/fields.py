"""What a field means, an example of it and its bounds, written beside its type and read by all.

`doc` says what the published schema says of a field. The bounds in the types below are enforced
where a request is decoded; those given to `doc` are told to readers and checked elsewhere, since a
record that stands in the log must be readable whatever the bounds are by then.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

MAX_NAME = 256
MAX_LIMIT = 1e9
MIN_WORTH, MAX_WORTH = 1e-9, 1e6
MAX_COST_USD = 10_000.0
MAX_LATENCY_S = 86_400.0

Name = Annotated[str, Meta(max_length=MAX_NAME)]
"""A name that a client chooses: of a unit, a tenant, a session."""
Limit = Annotated[float, Meta(ge=0.0, le=MAX_LIMIT)]
"""A bound on an expected cost or latency."""
Worth = Annotated[float, Meta(ge=MIN_WORTH, le=MAX_WORTH)]
"""USD that one unit of quality is worth."""
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
"""A part of a whole; also a quality."""
Usd = Annotated[float, Meta(ge=0.0, le=MAX_COST_USD)]
"""What one answer cost."""
Seconds = Annotated[float, Meta(ge=0.0, le=MAX_LATENCY_S)]
"""How long one answer took."""
Reward = Annotated[float, Meta(ge=-1.0, le=1.0)]
"""The scalar that policies learn from."""


def doc(text: str, *examples: Any, **schema: Any) -> Meta:
    """What the schema says of a field: a description, examples, and more of JSON Schema.

    >>> doc("USD per answer", 0.5, minimum=0).extra_json_schema
    {'minimum': 0}
    """
    return Meta(description=text, examples=list(examples) or None, extra_json_schema=schema or None)

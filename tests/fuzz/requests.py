"""Requests that are nearly right: fields that exist, with values that may not be."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.service.running import DIM, a_vector

FIELDS = (
    "query", "messages", "embedding", "unit", "tenant", "arms", "max_cost_usd", "max_latency_s",
    "willingness_to_pay", "requires", "explain", "decision_id", "arm", "quality", "cost_usd",
    "latency_s", "reward", "idempotency_key", "correction", "winner", "loser", "tie", "extra",
)  # fmt: skip
ARMS = ("gemini-2.5-pro", "mistral-large-2512", "llama-3.1-8b-instruct", "gpt-9")
PACKED = np.asarray(a_vector(0), "<f4").tobytes()

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
anything = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.sampled_from(FIELDS), inner, max_size=4)
    ),
    max_leaves=12,
)
_likely: dict[str, st.SearchStrategy[Any]] = {
    "query": st.text(max_size=30),
    "messages": st.lists(
        st.fixed_dictionaries({"role": st.sampled_from(("user", "system")), "content": anything}),
        max_size=3,
    ),
    "embedding": st.sampled_from((PACKED, a_vector(1), PACKED[:-4], bytes(4 * DIM), [1.0] * DIM)),
    "arms": st.lists(st.sampled_from(ARMS), max_size=3),
    "arm": st.sampled_from(ARMS),
    "winner": st.sampled_from(ARMS),
    "loser": st.sampled_from(ARMS),
    "quality": st.floats(0, 1),
    "reward": st.floats(-1, 1),
    "cost_usd": st.floats(0, 10),
    "latency_s": st.floats(0, 10),
    "idempotency_key": st.sampled_from(("a", "b", "")),
    "decision_id": st.sampled_from(("", "x", "ffffffff-ffff-7fff-bfff-ffffffffffff")),
}


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """A map of some fields, of which each is likely or anything."""
    names = draw(st.lists(st.sampled_from(FIELDS), unique=True, max_size=6))
    return {
        name: draw(_likely.get(name, anything) if draw(st.integers(0, 5)) else anything)
        for name in names
    }

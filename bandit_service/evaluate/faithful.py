"""Each paper's own setting of our policies, as far as the paper states one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

FAITHFUL: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "eagle": {"compare_on": "off", "trial": 0},
        "metallm": {"reward": "paper", "bias": False},
        "pickllm_gradient": {"learning_rate": 0.5},
        "pickllm_q": {"initial": 0.0},
    }
)

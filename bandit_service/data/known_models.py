"""The models whose list prices, context and capabilities are shipped, with where these are from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from bandit_service.core.arm_kinds import CHAT
from bandit_service.parsing.suggestions import did_you_mean

_TABLE = Path(__file__).with_name("known_models.toml")
_OWN = (
    "model", "provider", "dearer_above", "reasoning", "no_thinking_budget", "first", "source",
)  # fmt: skip
"""Fields of the table that are none of an arm."""


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where models are asked. key_env: the variable that has the key. source: of address."""

    id: str
    key_env: str
    base_url: str
    kind: str
    source: str


class KnownModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts of one model. dearer_above: tokens of a prompt from which on its prices are higher.

    kind, dimensions: as of an arm. reasoning: it takes a reasoning effort; no_thinking_budget: and
    no budget. first: of a first configuration. source: the page that the facts are from.
    """

    model: str
    provider: str
    usd_per_mtok_in: float
    usd_per_mtok_out: float
    usd_per_mtok_cached_in: float | None = None
    usd_per_mtok_cache_write: float | None = None
    usd_per_mtok_cache_write_1h: float | None = None
    context_window: int
    max_output_tokens: int | None = None
    capabilities: tuple[str, ...] = ()
    kind: str = CHAT
    dimensions: int | None = None
    dearer_above: int | None = None
    reasoning: bool = False
    no_thinking_budget: bool = False
    first: bool = False
    source: str

    def arm_fields(self) -> dict[str, Any]:
        """The facts as fields of an arm."""
        facts = msgspec.structs.asdict(self)
        fields = {name: value for name, value in facts.items() if name not in _OWN}
        return {name: value for name, value in fields.items() if value not in (None, (), CHAT)}


class KnownModels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them. version, date: of the list that they were read from, and when."""

    version: str
    date: str
    providers: tuple[Provider, ...]
    models: tuple[KnownModel, ...]

    def provider(self, id: str) -> Provider:
        """The provider of this id."""
        return next(each for each in self.providers if each.id == id)

    def model(self, name: str) -> KnownModel:
        """The model of this name, MODEL or PROVIDER/MODEL. Raises ValueError for an unknown one."""
        for each in self.models:
            if name in (each.model, f"{each.provider}/{each.model}"):
                return each
        meant = did_you_mean(name, [each.model for each in self.models])
        raise ValueError(f"unknown model {name!r}{meant}; `arms list --known` lists them")


@cache
def known_models() -> KnownModels:
    """The table that is shipped."""
    return msgspec.toml.decode(_TABLE.read_bytes(), type=KnownModels)

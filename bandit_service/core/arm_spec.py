"""What the configuration, or the API, says of an arm. Events of the catalogue have it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from bandit_service.core.arm_request import NOTHING, ArmRequest
from bandit_service.core.fields import Word, doc
from policies import ArmId

ARM_KINDS = ("chat", "embedding", "judge")
"""What an arm is for: only those for chat are chosen by a policy."""


def _own_price(example: float) -> msgspec.Meta:
    return doc("Its own price, as of an arm.", example, minimum=0, maximum=1e5)


class Deployment(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of several upstreams that serve the model of an arm. What is left out is the arm's."""

    id: Annotated[str, doc("Its name; the id of its upstream if empty.", "eu", maxLength=128)] = ""
    upstream: Annotated[str, doc("Id of the upstream.", "azure-eu", maxLength=256)]
    model: Annotated[
        str, doc("The model's name there; the arm's if empty.", "gpt-5-mini-eu", maxLength=256)
    ] = ""
    priority: Annotated[
        int,
        doc(
            "The lowest is called first; the next if none of it answers.",
            0,
            minimum=0,
            maximum=1_000,
        ),
    ] = 0
    weight: Annotated[
        float,
        doc(
            "Its share of the calls among those of one priority.",
            1.0,
            exclusiveMinimum=0,
            maximum=1e6,
        ),
    ] = 1.0
    max_running: Annotated[
        int, doc("Maximum concurrent calls there; 0: no limit.", 0, minimum=0, maximum=10**6)
    ] = 0
    usd_per_mtok_in: Annotated[float | None, _own_price(0.25)] = None
    usd_per_mtok_out: Annotated[float | None, _own_price(2.0)] = None
    usd_per_mtok_cached_in: Annotated[float | None, _own_price(0.025)] = None
    usd_per_mtok_cache_write: Annotated[float | None, _own_price(0.3)] = None
    usd_per_mtok_cache_write_1h: Annotated[float | None, _own_price(0.5)] = None


class ArmSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model that can be chosen, as it is configured.

    The log has it, so its bounds are stated here and checked when an arm is configured.
    """

    id: Annotated[
        ArmId,
        doc(
            "The name of the arm; 1 to 128 printable characters.",
            ArmId("gpt-5-mini"),
            minLength=1,
            maxLength=128,
        ),
    ]
    usd_per_mtok_in: Annotated[
        float, doc("Price of a million prompt tokens, USD.", 0.25, minimum=0, maximum=1e5)
    ]
    usd_per_mtok_out: Annotated[
        float, doc("Price of a million answer tokens, USD.", 2.0, minimum=0, maximum=1e5)
    ]
    context_window: Annotated[
        int, doc("Most tokens of prompt and answer.", 128_000, minimum=1, maximum=10**9)
    ] = 128_000
    expected_output_tokens: Annotated[
        int, doc("Tokens of a usual answer, to estimate its cost.", 300, minimum=0, maximum=10**7)
    ] = 300
    expected_latency_s: Annotated[
        float | None,
        doc("Seconds of a usual answer, until one was measured.", 1.5, minimum=0, maximum=86_400),
    ] = None
    capabilities: Annotated[
        tuple[Word, ...],
        doc("What it can do; a query may require these.", ["json", "vision"], maxItems=64),
    ] = ()
    tags: Annotated[
        tuple[Word, ...], doc("Words for people and policies.", ["cheap"], maxItems=64)
    ] = ()
    upstream: Annotated[str, doc("Id of the upstream that serves it.", "openai", maxLength=256)] = (
        ""
    )
    model: Annotated[
        str,
        doc(
            "Its name at the upstream; the arm's id if empty.",
            "gpt-5-mini-2025-08-07",
            maxLength=256,
        ),
    ] = ""
    usd_per_mtok_cached_in: Annotated[
        float | None,
        doc(
            "Price of prompt tokens read from the provider's cache; null: `usd_per_mtok_in`.",
            0.025,
            minimum=0,
            maximum=1e5,
        ),
    ] = None
    max_running: Annotated[
        int, doc("Maximum concurrent calls; 0: no limit.", 0, minimum=0, maximum=10**6)
    ] = 0
    usd_per_mtok_cache_write: Annotated[
        float | None,
        doc(
            "Price of prompt tokens written to the provider's cache; null: `usd_per_mtok_in`.",
            0.3,
            minimum=0,
            maximum=1e5,
        ),
    ] = None
    usd_per_mtok_cache_write_1h: Annotated[
        float | None,
        doc(
            "The same for tokens kept for an hour; null: twice `usd_per_mtok_in`.",
            0.5,
            minimum=0,
            maximum=1e5,
        ),
    ] = None
    max_output_tokens: Annotated[
        int | None,
        doc(
            "Most tokens of an answer; a budget reserves these where a request sets no limit.",
            4_096,
            minimum=1,
            maximum=10**7,
        ),
    ] = None
    aliases: Annotated[
        tuple[Word, ...],
        doc(
            "Other names that its provider may give the model; `*` for any.",
            ["gpt-5-mini-eu"],
            maxItems=64,
        ),
    ] = ()
    family: Annotated[
        str,
        doc(
            "Arms of one family share what is learned, as a prior; empty: no family.",
            "gpt-5",
            maxLength=128,
        ),
    ] = ""
    request: Annotated[
        ArmRequest,
        doc("Parts of every request to it; they replace the client's.", {"temperature": 0.2}),
    ] = NOTHING
    kind: Annotated[
        str,
        doc(
            "What it is for: chat; embedding, for /v1/embeddings alone; judge, for [[judges]] "
            "alone.",
            "chat",
            enum=ARM_KINDS,
        ),
    ] = "chat"
    routed: Annotated[
        bool, doc("Whether it can be chosen; if not, only a request that names it gets it.", True)
    ] = True
    dimensions: Annotated[
        int | None,
        doc(
            "Of kind embedding: numbers in each of its vectors.",
            1_536,
            minimum=1,
            maximum=10**6,
        ),
    ] = None
    deployments: Annotated[
        tuple[Deployment, ...],
        doc(
            "Upstreams that serve the same model, instead of `upstream`.",
            [{"upstream": "azure-eu"}, {"upstream": "azure-us"}],
            maxItems=16,
        ),
    ] = ()

"""Which names are of the same model, and which arm another one is of."""

from __future__ import annotations

import msgspec
import pytest

from bandit_service.core.deployments import called_at
from bandit_service.core.events import ArmSpec, Deployment
from bandit_service.gateway.answering_model import answered_by_other, arm_of, same_model
from bandit_service.settings.upstreams import UpstreamSpec
from policies import ArmId

SAME = [
    ("gpt-x", "gpt-x-2026-01-01"),
    ("gpt-x-2026-01-01", "gpt-x"),
    ("gpt-4", "openai/GPT-4-0613"),
    ("gpt-4", "gpt-4-1106-preview"),
    ("claude-y@20260101", "claude-y-20260101"),
    ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"),
    ("claude-3-5-sonnet", "us.anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("gemini-2.0-flash", "models/gemini-2.0-flash-001"),
    ("llama3.1", "llama3.1:latest"),
    ("mistral-large", "mistral-large-2411"),
]
OTHERS = [
    ("gpt-x", "gpt-x-mini"),
    ("gpt-4", "gpt-4.1"),
    ("gpt-x-2026-01-01", "gpt-x-2026-06-01"),
    ("o3", "o3-mini"),
    ("llama3.1:8b", "llama3.1:70b"),
    ("claude-opus-4", "claude-opus-4-1"),
    ("mixtral", "mixtral-8192"),
]
SPEC = ArmSpec(
    id=ArmId("a"), usd_per_mtok_in=1.0, usd_per_mtok_out=1.0, model="gpt-x", upstream="p"
)
UPSTREAM = UpstreamSpec(id="p", base_url="https://api.example.com/v1")


@pytest.mark.parametrize(("asked", "said"), SAME)
def test_names_of_one_model(asked: str, said: str) -> None:
    assert same_model(asked, said)
    assert same_model(said, asked)


@pytest.mark.parametrize(("asked", "said"), OTHERS)
def test_names_of_two(asked: str, said: str) -> None:
    assert not same_model(asked, said)
    assert not same_model(said, asked)


@pytest.mark.parametrize("said", [None, "", "  ", 7, "gpt-x", " gpt-x ", "GPT-X-2026-01-01"])
def test_no_name_and_its_own_are_no_other(said: object) -> None:
    assert not answered_by_other(SPEC, UPSTREAM, said)


def test_an_alias_and_names_of_ones_own_are_no_other() -> None:
    assert answered_by_other(SPEC, UPSTREAM, "eu-x")
    named = msgspec.structs.replace(SPEC, aliases=("eu-x",))
    assert not answered_by_other(named, UPSTREAM, "eu-x-2026-01-01")
    assert answered_by_other(named, UPSTREAM, "us-x")
    assert not answered_by_other(msgspec.structs.replace(SPEC, aliases=("*",)), UPSTREAM, "us-x")
    azure = UpstreamSpec(id="p", base_url="https://mine.openai.azure.com/openai/deployments/d")
    assert not answered_by_other(SPEC, azure, "gpt-y"), "a deployment is called as one likes"
    assert not answered_by_other(SPEC, UPSTREAM, "/models/x.Q4.GGUF")


def test_every_name_of_its_deployments_is_the_arms() -> None:
    us = Deployment(upstream="p", model="gpt-x-us", usd_per_mtok_in=2.0)
    eu = Deployment(upstream="q", model="mine")
    arm = msgspec.structs.replace(SPEC, upstream="", deployments=(us, eu))
    at = called_at(arm, us)
    for said in ("gpt-x-us", "gpt-x", "gpt-x-2026-01-01", "publisher/mine"):
        assert not answered_by_other(at, UPSTREAM, said, arm)
    assert answered_by_other(at, UPSTREAM, "gpt-x-mini", arm)


def test_the_arm_of_another_model_is_that_of_the_same_provider_first() -> None:
    there = msgspec.structs.replace(SPEC, id=ArmId("b"), upstream="q")
    here = msgspec.structs.replace(SPEC, id=ArmId("c"))
    alias = msgspec.structs.replace(SPEC, id=ArmId("d"), model="z", aliases=("zed",))
    arms = [there, here, alias]
    assert arm_of("gpt-x-2026-01-01", arms, "p") == here
    assert arm_of("gpt-x", arms, "r") == there
    assert arm_of("zed", arms, "p") == alias
    assert arm_of("nobody", arms, "p") is None

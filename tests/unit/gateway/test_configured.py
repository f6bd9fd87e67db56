"""Addresses of providers that would be called wrongly are refused at the start."""

from __future__ import annotations

import pytest

from bandit_service.settings.upstreams import UpstreamSpec, check_upstream


@pytest.mark.parametrize(
    "address",
    ["http://", "https:///v1", "https://a.example/openai?api-version=1", "http://a.example/v1#x"],
)
def test_an_address_without_a_host_or_with_parameters_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"base_url: must have a host, and no \? or #"):
        check_upstream(UpstreamSpec(id="a", base_url=address))


def test_a_deployment_may_be_part_of_the_address() -> None:
    base_url = "https://r.openai.azure.com/openai/deployments/d"
    check_upstream(UpstreamSpec(id="a", base_url=base_url, query={"api-version": "2024-10-21"}))

"""Which proxy stands on the way to a provider."""

from __future__ import annotations

import pytest

from bandit_service.settings.proxies import Proxy, proxy_of

_P = "http://proxy:3128"


@pytest.mark.parametrize(
    ("no_proxy", "direct"),
    [
        ("", False),
        ("*", True),
        ("api.example.org", True),
        ("example.org", True),
        (".example.org", True),
        ("*.example.org", True),
        ("API.Example.ORG", True),
        ("ample.org", False),
        ("other, api.example.org:8443", True),
        ("api.example.org:443", False),
        ("10.0.0.0/8", False),
        (" , ,", False),
    ],
)
def test_hosts_that_no_proxy_names_are_called_directly(no_proxy: str, direct: bool) -> None:
    environ = {"HTTPS_PROXY": _P, "NO_PROXY": no_proxy}
    found = proxy_of("https://api.example.org:8443/v1", "", True, environ)
    assert found == (None if direct else Proxy(_P))


def test_networks_and_addresses_of_either_kind_may_be_named() -> None:
    environ = {"all_proxy": _P, "no_proxy": "10.0.0.0/8,::1,[fd00::1]"}
    for address, direct in (
        ("http://10.1.2.3/v1", True),
        ("http://11.1.2.3/v1", False),
        ("http://[::1]:8000/v1", True),
        ("http://[fd00::1]/v1", True),
        ("http://[fd00::2]/v1", False),
    ):
        assert (proxy_of(address, "", True, environ) is None) == direct, address


def test_small_letters_go_before_capitals_and_an_empty_one_is_none() -> None:
    environ = {"HTTPS_PROXY": "http://capitals:1", "https_proxy": "small:2"}
    assert proxy_of("https://h/v1", "", True, environ) == Proxy("http://small:2")
    assert proxy_of("https://h/v1", "", True, environ | {"https_proxy": ""}) is None
    assert proxy_of("http://h/v1", "", True, environ) is None
    assert proxy_of("https://h/v1", "", False, environ) is None

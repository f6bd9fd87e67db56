"""Borders: which names and origins are ours, in every form that they can be written in."""

from __future__ import annotations

import pytest

from bandit_service.core.errors import Forbidden
from bandit_service.http.origins import Borders, Headers
from bandit_service.parsing.hosts import check_host, check_origin

LOCAL = Borders.of((), (), "127.0.0.1", secure=False, keys=False)


def _passes(borders: Borders, host: str, origin: str = "", scope: str = "admin") -> bool:
    origins = [origin] if origin else []
    try:
        borders.cross(Headers([host], origins), scope)
    except Forbidden as error:
        refused = error
    else:
        return True
    assert refused.param in ("Host", "Origin")
    assert f"server.allowed_{refused.param.lower()}s" in refused.message
    return False


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:8080", "127.0.0.1:", "127.0.0.2:9", "localhost", "LocalHost:8080",
        "localhost.:8080", "[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]:8080",
        "[::ffff:127.0.0.1]:8080", "[::FFFF:7f00:1]:8080",
    ],
)  # fmt: skip
def test_loopback_is_ours_however_it_is_written(host: str) -> None:
    assert _passes(LOCAL, host)


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "evil.example:8080", "EVIL.example.", "localhost.evil.example",
        "127.0.0.1.evil.example", "x.localhost", "localhost..", "0.0.0.0:8080", "0", "127.1",
        "2130706433", "0x7f000001", "127.0.0.01", "10.1.2.3", "[::]:8080", "[::2]", "[fe80::1%lo]",
        "::1", "[::1", "[localhost]", "localhost:8080:1", "localhost:99999", "localhost:+1",
        "localhost:８０８０", "localhost@evil.example", "evil.example#localhost", "localhost/",
        "localhost, evil.example", "localhost evil.example", " localhost", "localhost\t", ":8080",
        "ⓛocalhost", "[::ffff:10.1.2.3]",
    ],
)  # fmt: skip
def test_everything_else_is_foreign(host: str) -> None:
    assert not _passes(LOCAL, host)


@pytest.mark.parametrize("hosts", [[], ["localhost", "localhost"], ["localhost", "evil.example"]])
def test_a_host_is_there_once(hosts: list[str]) -> None:
    with pytest.raises(Forbidden, match="must be sent exactly once"):
        LOCAL.cross(Headers(hosts), "")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("LOCALHOST:8080", "HTTP://localhost:8080"),
        ("localhost", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("[::1]:8080", "http://[0::1]:8080"),
    ],
)
def test_a_page_of_the_same_address_is_ours(host: str, origin: str) -> None:
    assert _passes(LOCAL, host, origin)


@pytest.mark.parametrize(
    "origin",
    [
        "null", "http://evil.example", "http://127.0.0.1", "http://127.0.0.1:8081",
        "http://localhost:8080", "http://[::1]:8080", "http://0.0.0.0:8080",
        "https://127.0.0.1:8080", "ftp://127.0.0.1:8080", "chrome-extension://abcdefgh",
        "http://127.0.0.1:8080/", "http://127.0.0.1:8080@evil.example", "127.0.0.1:8080", "file://",
        "http://127.0.0.1:8080 http://evil.example", "http://127.0.0.1:8080.evil.example", "*",
    ],
)  # fmt: skip
def test_a_page_of_another_origin_is_foreign(origin: str) -> None:
    assert not _passes(LOCAL, "127.0.0.1:8080", origin)
    for scope in ("", "open", "metrics", "decide", "stream"):
        assert not _passes(LOCAL, "127.0.0.1:8080", origin, scope)


def test_an_origin_is_there_once() -> None:
    own = "http://127.0.0.1:8080"
    with pytest.raises(Forbidden, match="Origin"):
        LOCAL.cross(Headers(["127.0.0.1:8080"], [own, own]), "admin")


def test_what_is_configured_is_ours() -> None:
    hosts = ("Router.example.", "10.0.0.0/8", "fd00::1", "192.168.1.9")
    borders = Borders.of(hosts, ("https://App.example:443",), "0.0.0.0", False, False)
    for host in (
        "router.example",
        "ROUTER.example:1",
        "10.9.8.7:8080",
        "[fd00:0::1]:8080",
        "192.168.1.9",
        "localhost",
    ):
        assert _passes(borders, host), host
    for host in ("a.router.example", "11.0.0.1", "[fd00::2]", "192.168.1.8", "0.0.0.0:8080"):
        assert not _passes(borders, host), host
    assert _passes(borders, "localhost:8080", "https://app.example")
    assert not _passes(borders, "localhost:8080", "http://app.example")
    assert not _passes(borders, "localhost:8080", "https://app.example:444")
    assert _passes(borders, "router.example", "https://router.example")  # TLS ends in front
    assert not _passes(borders, "router.example", "https://router.example:8443")


def test_the_address_that_is_listened_on_is_ours_unless_it_is_any() -> None:
    assert _passes(Borders.of((), (), "192.168.1.9", False, False), "192.168.1.9:8080")
    assert _passes(Borders.of((), (), "Box.lan", False, False), "box.lan:8080")
    for any_address, host in (("0.0.0.0", "0.0.0.0"), ("::", "[::]"), ("", "")):
        assert not _passes(Borders.of((), (), any_address, False, False), host)


def test_a_service_with_tls_takes_no_page_that_had_none() -> None:
    borders = Borders.of((), (), "127.0.0.1", secure=True, keys=False)
    assert _passes(borders, "localhost", "https://localhost")
    assert not _passes(borders, "localhost", "http://localhost")


def test_keys_stand_for_names_but_not_where_no_key_is_asked_for() -> None:
    """And never for origins: a page of another site may not use the key of whoever looks."""
    borders = Borders.of((), (), "0.0.0.0", secure=False, keys=True)
    assert _passes(borders, "anything.example", "http://anything.example", "admin")
    assert _passes(borders, "10.1.2.3:8080", scope="")
    assert not _passes(borders, "anything.example", scope="open")
    assert not _passes(borders, "anything.example", "http://evil.example", "admin")


def test_what_the_browser_says_counts_where_there_is_no_origin() -> None:
    for site, scope, passes in (
        ("cross-site", "read", False),
        ("same-site", "read", False),
        ("same-origin", "read", True),
        ("none", "read", True),
        ("cross-site", "", True),
        ("cross-site", "open", True),
    ):
        headers = Headers(["localhost"], (), site)
        if passes:
            LOCAL.cross(headers, scope)
        else:
            with pytest.raises(Forbidden, match="Sec-Fetch-Site"):
                LOCAL.cross(headers, scope)


@pytest.mark.parametrize(
    "name", ["a b", "http://a", "a:80", "10.0.0.1/8", "[::1", "*", "", "::1::"]
)
def test_a_name_that_is_none_is_told(name: str) -> None:
    assert check_host(name)


@pytest.mark.parametrize("origin", ["app.example", "https://", "https://a/", "*", "null", ""])
def test_an_origin_that_is_none_is_told(origin: str) -> None:
    assert check_origin(origin)


def test_every_form_that_is_compared_can_be_configured() -> None:
    for name in ("a.example", "A.example.", "10.0.0.0/8", "fd00::/8", "::1", "[::1]", "10.0.0.1"):
        assert check_host(name) == "", name
    for origin in ("https://a.example", "http://[::1]:8080", "chrome-extension://abcd"):
        assert check_origin(origin) == "", origin

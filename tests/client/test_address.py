"""Which service is asked, and as whom: arguments, then BANDIT_URL and BANDIT_KEY."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from bandit_client import AsyncClient, Batching, Client, NotReached, Retries
from bandit_service import settings
from bandit_service.cli import main
from tests.client.conftest import Served
from tests.client.unruly import SOON
from tests.service.running import Process, a_vector


@pytest.fixture
def environ(served: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    monkeypatch.setenv("BANDIT_URL", served.url + "/")
    monkeypatch.setenv("BANDIT_KEY", served.key)
    return served


async def test_the_environment_says_which(environ: Served) -> None:
    with Client() as client:
        assert client.url == environ.url
        assert client.arms()
    async with AsyncClient() as on_loop:
        assert await on_loop.arms()


def test_an_argument_is_stronger(environ: Served) -> None:
    assert Client("http://127.0.0.1:9/behind/a/path/", "").url == "http://127.0.0.1:9/behind/a/path"


def test_commands_ask_the_same(environ: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiments", "list"]) == 0
    assert main(["try", "--no-answer", "hello"]) == 0
    assert main(["export", "--url", environ.url]) == 0
    assert '"kind":"arm_' in capsys.readouterr().out.replace(" ", "")
    assert main(["experiments", "--key", "bs_wrong", "list"]) == 1
    settings.read(None)  # they are no settings of a service


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Client("localhost:8080"), "url: must be like http://HOST:PORT"),
        (lambda: Client("http://h:port"), "url: must be like"),
        (lambda: Client("http://h/?key=1"), "url: must be like"),
        (lambda: Client(key="ä"), "key: must be printable ASCII"),
        (lambda: AsyncClient(timeout_s=0), "timeout_s: must be a number of seconds above 0"),
        (lambda: Retries(attempts=0), "attempts: must be 1 or more, got 0"),
        (lambda: Retries(first_s=float("nan")), "first_s: must be"),
        (lambda: Batching(queue=0), "queue: must be 1 or more"),
        (lambda: Batching(wait_s=-1), "wait_s: must be seconds from 0 up"),
        (lambda: Client("http://127.0.0.1:9").decide("q", timeout_s=-1), "timeout_s: must be"),
        (lambda: Client("http://127.0.0.1:9").put_arm(""), "id: must not be empty"),
    ],
)
def test_a_wrong_argument_is_named(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        make()


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANDIT_URL", "nonsense")
    with pytest.raises(ValueError, match=r"^BANDIT_URL: must be like"):
        Client()


def test_the_key_is_not_shown() -> None:
    assert "secret" not in repr(Client("http://127.0.0.1:9", "secret")._address)


def test_https_with_an_authority_of_ones_own(tmp_path: Path, models: Path) -> None:
    authority = trustme.CA()
    made = authority.issue_cert("127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made.cert_chain_pems[0].write_to_path(cert)
    made.private_key_pem.write_to_path(key)
    tls = {"BANDIT_SERVER_TLS_CERT": str(cert), "BANDIT_SERVER_TLS_KEY": str(key)}
    process = Process(tmp_path / "var", models, **tls)
    try:
        url = asyncio.run(process.url())
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        with Client(url, tls=trusting) as client, client.stream() as stream:
            decided = stream.decide(embedding=a_vector(0)).result()
            assert client.reward(decided, quality=1.0).status == "accepted"
        with Client(url, retries=SOON) as other, pytest.raises(NotReached, match="certificate"):
            other.ready()
    finally:
        process.kill()

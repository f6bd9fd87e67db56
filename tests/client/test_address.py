"""Which service is asked, and as whom: arguments, then BANDIT_URL and BANDIT_KEY."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bandit_client import AsyncClient, Batching, Client, Retries
from bandit_service import settings
from bandit_service.cli import main
from tests.client.conftest import Served


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

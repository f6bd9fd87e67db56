"""An address at which nothing can listen is refused in words, before anything is written."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bandit_service.app.port_check import CannotListen, cannot_listen, check_address
from bandit_service.cli.main import main


@pytest.fixture
def taken() -> Iterator[int]:
    """The port of another listener on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield int(other.getsockname()[1])


def test_a_free_port_and_any_port_are_taken() -> None:
    check_address("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    check_address("127.0.0.1", port)
    check_address("localhost", 0)
    check_address("", 0)


def test_a_port_in_use_is_named_with_what_to_do(taken: int) -> None:
    with pytest.raises(CannotListen) as told:
        check_address("127.0.0.1", taken)
    assert str(told.value).startswith(f"port: another program listens on 127.0.0.1:{taken}; ")
    assert "--port" in str(told.value)


@pytest.mark.parametrize("command", [["serve"], ["upstream", "--data", "specialists"]])
def test_a_command_says_it_in_one_line_and_writes_nothing(
    command: list[str],
    taken: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--port", str(taken)]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("bandit-service: port: another")
    assert not list(tmp_path.iterdir())


def test_an_address_that_the_machine_has_not_is_named() -> None:
    for host in ("192.0.2.1", "no such host"):
        with pytest.raises(CannotListen, match=f"host: this machine has no address '{host}'"):
            check_address(host, 0)


def test_a_port_without_rights_says_which_are_free_to_all() -> None:
    said = str(cannot_listen(OSError(errno.EACCES, "denied"), "127.0.0.1", 80))
    assert said == "port: 80 needs rights that this user does not have; choose one above 1023"
    assert "--port 65534" in str(cannot_listen(OSError(errno.EADDRINUSE, ""), "::", 65_535))

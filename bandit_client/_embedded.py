"""The service in this process, on an event loop in a thread of its own.

The only file that imports the service, and only when it is asked to. What runs is the service
itself, with its log and its fold, listening on a free port of 127.0.0.1 and answering nobody who
has not the key that is made here.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bandit_client._address import Address
from bandit_client._thread import LoopThread, before_exit, not_before_exit
from bandit_client.errors import NotInstalled

_PREFIX = "BANDIT_"
_LONGEST_END_S = 60.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to run: where its files are, and how it is configured.

    data_dir: its directory; None for one that is removed at the end. config: its TOML file.
    settings: single settings by name, such as {"policy.name": "eagle"}. arms: the catalogue.
    models: a directory with exported embedding models, to share between data directories.
    """

    data_dir: str | Path | None = None
    config: str | Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    arms: Sequence[Mapping[str, Any]] | None = None
    models: str | Path | None = None


class Embedded:
    """A running service; `address` is where and with which key it answers."""

    def __init__(self, wanted: Wanted) -> None:
        service = _installed()
        self._own: str | None = None
        if wanted.data_dir is None:
            self._own = tempfile.mkdtemp(prefix="bandit-")
        directory = Path(self._own or str(wanted.data_dir))
        try:
            key, environ = _environ(wanted, directory, service)
            try:
                path = None if wanted.config is None else Path(wanted.config)
                chosen = service.settings.read(path, environ)
            except service.settings.BadSettings as error:
                raise ValueError("; ".join(error.mistakes)) from None
            if wanted.models is not None:
                _share(Path(wanted.models), directory)
            self._thread = LoopThread("bandit-service")
            self._ended = asyncio.Event()
            started: concurrent.futures.Future[str] = concurrent.futures.Future()
            self._running = self._thread.start(self._run(service.service, chosen, started))
            try:
                url = started.result()
            except BaseException:
                self._running.cancel()
                self._thread.end()
                raise
        except BaseException:
            self._remove()
            raise
        self.address = Address(url, key)
        self._pid = os.getpid()
        before_exit(self, self.close)

    async def _run(
        self, service: Any, chosen: Any, started: concurrent.futures.Future[str]
    ) -> None:
        try:
            async with service.serving(chosen) as (url, _):
                started.set_result(url)
                await self._ended.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    def close(self) -> None:
        """End the service: what it acknowledged is in its log. Once is enough."""
        if self._ended.is_set() or self._pid != os.getpid():
            return
        not_before_exit(self)
        self._thread.loop.call_soon_threadsafe(self._ended.set)
        try:
            self._running.result(_LONGEST_END_S)
        finally:
            self._thread.end()
            self._remove()

    def _remove(self) -> None:
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _environ(wanted: Wanted, directory: Path, service: _Service) -> tuple[str, dict[str, str]]:
    """A new key, and the environment that configures the service; none of this process' own."""
    key, hashed = service.keys.new_key()
    table = {
        "id": "embedded",
        "hash": hashed,
        "scopes": list(service.keys.SCOPES),
        "self_contained": True,
    }
    # what a configuration refers to, such as the keys of providers, is passed on
    environ = {
        name: value
        for name, value in os.environ.items()  # noqa: TID251 - passed on
        if not name.startswith(_PREFIX)
    }
    known = service.settings.rules()
    for name, value in wanted.settings.items():
        if name not in known:
            near = get_close_matches(name, known, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"settings: there is no {name!r}{meant}")
        text = value if isinstance(value, str) else json.dumps(value)
        environ[_PREFIX + name.replace(".", "_").upper()] = text
    if wanted.arms is not None:
        environ[_PREFIX + "ARMS"] = json.dumps(list(wanted.arms))
    environ |= {
        "BANDIT_DATA_DIR": str(directory),
        "BANDIT_SERVER_HOST": "127.0.0.1",
        "BANDIT_SERVER_PORT": "0",
        "BANDIT_SERVER_TLS_CERT": "",
        "BANDIT_SERVER_TLS_KEY": "",
        "BANDIT_SERVER_TLS_CLIENT_CA": "",
        "BANDIT_KEYS": json.dumps([table]),
    }
    return key, environ


def _share(models: Path, directory: Path) -> None:
    """Let the service find the models that were exported before."""
    if not models.is_dir():
        raise ValueError(f"models: there is no directory {models}")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (directory / "models").symlink_to(models.resolve(), target_is_directory=True)


@dataclass(frozen=True, slots=True)
class _Service:
    """The modules of the service that are used here."""

    service: Any
    settings: Any
    keys: Any


def _installed() -> _Service:
    try:
        from bandit_service import settings
        from bandit_service.app import service
        from bandit_service.settings import keys
    except ImportError as error:
        raise NotInstalled(
            "the embedded mode runs bandit-service in this process, and it cannot be imported "
            f"({error}): install the package bandit-service, or give the url of a running service"
        ) from error
    return _Service(service, settings, keys)

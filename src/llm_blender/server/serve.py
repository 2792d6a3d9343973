"""Run the app with graceful shutdown: on SIGTERM, refuse new requests and drain running ones."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import uvicorn

from llm_blender.config import ServerConfig, is_loopback
from llm_blender.ensemble import Ensemble
from llm_blender.errors import ConfigError, WorkError
from llm_blender.server.app import create_app
from llm_blender.server.auth import Keys

_MOST_HEAD = 65_536  # bytes of a request before its body, as h11 takes them


def serve(
    ensemble: Ensemble,
    config: ServerConfig,
    *,
    folder: Path | None = None,
    started: Callable[[str], None] = lambda url: None,
    logs: bool = False,
) -> None:
    """Serve an ensemble until SIGTERM or SIGINT comes.

    Then `/readyz` fails, new requests are refused, running ones get `ServerConfig.drain` seconds, and those that are
    left are cancelled. A second signal ends the service at once.

    Args:
        ensemble: the ensemble that answers.
        config: address and limits of the service.
        folder: folder that `ServerConfig.keys_file` is relative to; None is the working directory.
        started: called with the base URL when the port is open.
        logs: whether to write a line for each request to standard error.

    Raises:
        ConfigError: an address other than loopback without a key, or a wrong file of keys.
        WorkError: the port is not available.
        KeyboardInterrupt: after the shutdown, if the signal was SIGINT.
    """
    keys = Keys.of(config, os.environ, folder or Path())
    if not keys and not is_loopback(config.host):
        raise ConfigError(
            f"Other machines can reach {config.host}, and there is no key: put one into the environment "
            f"variable {config.keys_env}, name a keys_file, or bind to 127.0.0.1."
        )
    ensemble.load(fuser=ensemble.fuses)  # its errors come before the port is open
    server = _Server(ensemble, config, keys, started, logs)
    server.run()
    if server.failed:
        raise WorkError(f"{config.host}:{config.port} is not available; choose another --port.")
    if server.interrupted:
        raise KeyboardInterrupt


def _protocol() -> type[asyncio.Protocol] | Literal["auto"]:
    """Return uvicorn's protocol for httptools, which reads heads of any length, with a bound; h11 has one."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "auto"

    class Bounded(HttpToolsProtocol):
        _head: int | None = 0  # bytes of the head that is being read

        def data_received(self, data: bytes) -> None:
            if self._head is not None:
                self._head += len(data)
            super().data_received(data)
            if self._head is not None and self._head > _MOST_HEAD and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

        def on_headers_complete(self) -> None:
            self._head = None
            if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > _MOST_HEAD:
                raise ValueError("the head of the request is too long")  # httptools makes a 400 of it
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            super().on_message_complete()
            self._head = 0

    return Bounded


class _Server(uvicorn.Server):
    def __init__(
        self, ensemble: Ensemble, config: ServerConfig, keys: Keys, started: Callable[[str], None], logs: bool
    ) -> None:
        self._app = create_app(ensemble, config, keys)
        self._drain, self._on_start = config.drain, started
        self.interrupted = self.failed = False
        self._ending: asyncio.Task[None] | None = None
        settings = uvicorn.Config(
            self._app,
            config.host,
            config.port,
            http=_protocol(),
            log_level="info" if logs else "warning",
            access_log=logs,
            server_header=False,
            timeout_keep_alive=75,  # longer than proxies keep their connections to the service
            timeout_graceful_shutdown=2,  # only idle connections are left at that point
        )
        super().__init__(settings)

    async def startup(self, sockets: object = None) -> None:
        try:
            await super().startup()
        except SystemExit:  # uvicorn exits if it cannot bind the port
            self.failed = self.should_exit = True
            return
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        port = self.servers[0].sockets[0].getsockname()[1]
        self._on_start(f"http://{host}:{port}/v1")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        if sys.platform == "win32":
            for number in signals:
                signal.signal(number, lambda got, frame: loop.call_soon_threadsafe(self._end, signal.Signals(got)))
            yield
            return
        before = {number: signal.getsignal(number) for number in signals}
        for number in signals:
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _end(self, number: signal.Signals) -> None:
        self.interrupted = self.interrupted or number == signal.SIGINT
        if self._ending is not None:
            self.force_exit = self.should_exit = True
            return
        self._ending = asyncio.get_running_loop().create_task(self._shut_down())

    async def _shut_down(self) -> None:
        await self._app.state.service.admission.drain(self._drain)
        await asyncio.sleep(0)  # lets finished answers go out
        self.should_exit = True

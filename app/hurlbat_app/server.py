"""Run an engine behind an HTTP server, from the socket to the last run that is waited for.

A stop is two steps. First the engine drains while HTTP is still served: readiness is red, nothing is started any more,
and workers may report what they have. Then HTTP ends. A second signal cuts both short.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Generator

import uvicorn

from hurlbat_app.api import create_app
from hurlbat_dispatcher import Engine, Settings

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s after which the usual proxies let go of an idle connection."""
LAST_ANSWERS_SECONDS = 5
"""How long requests may take that are still there when HTTP ends."""
SWITCH_SECONDS = 0.0005
"""How long a thread of the interpreter runs while another waits."""

Beside = Callable[[Engine], Awaitable[None]]
_log = logging.getLogger("hurlbat.server")


class CannotListen(Exception):
    """The address cannot be listened on; the sentence says why."""


class _Http(uvicorn.Server):
    """uvicorn, but for signals, which are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


def listen(settings: Settings) -> tuple[socket.socket, Settings]:
    """Return a listening socket, and the settings with the port that it really has. Raises `CannotListen`."""
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise CannotListen(_why(error, host, port)) from error
    real = listening.getsockname()[1]
    return listening, settings.model_copy(update={"port": real})


def _why(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; set HURLBAT_HOST to one, or to 0.0.0.0 for all"
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; stop what listens there, or set HURLBAT_PORT"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not for this user; set HURLBAT_PORT to 1024 or more"
    return f"{host}:{port} cannot be listened on: {error.strerror or error}"


async def serve(settings: Settings, listening: socket.socket, beside: Beside) -> None:
    """Serve until a signal comes, with `beside` running as long. Raises what the engine's start raises."""
    engine = Engine(settings)
    await engine.start()
    _tune_interpreter()
    http = _Http(
        uvicorn.Config(
            create_app(engine),
            lifespan="off",
            ws="none",
            proxy_headers=False,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
        )
    )
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(http.serve(sockets=[listening]))
            besides = group.create_task(_beside(beside, engine))
            await _until_stopped(engine, serving, settings.drain_seconds)
            besides.cancel()
            http.should_exit = True
    finally:
        await engine.stop(0)


def _tune_interpreter() -> None:
    """Let the collector look rarely, never at what lives as long as the server, and let threads take turns sooner.

    Collecting took a tenth of the time of a busy server. A turn of the database's thread gives the interpreter up at
    every statement, and with the usual 5 ms it waited for a quarter of its time to get it back.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)


async def _beside(beside: Beside, engine: Engine) -> None:
    await beside(engine)


async def _until_stopped(engine: Engine, serving: asyncio.Task[None], grace: float) -> None:
    """Wait for a signal, then drain for so many seconds, or until the next one."""
    signals = _Signals()
    with signals.caught():
        first = asyncio.create_task(signals.next())
        await asyncio.wait({first, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            first.cancel()
            return
        _log.info("%s: draining for up to %g s; once more to stop now", first.result(), grace)
        draining = asyncio.create_task(engine.stop(grace))
        second = asyncio.create_task(signals.next())
        await asyncio.wait({draining, second}, return_when=asyncio.FIRST_COMPLETED)
        second.cancel()
        engine.hurry()
        await draining


class _Signals:
    """SIGINT and SIGTERM, one after the other."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[str] = asyncio.Queue()

    async def next(self) -> str:
        return await self._heard.get()

    @contextlib.contextmanager
    def caught(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        names = (signal.SIGINT, signal.SIGTERM)
        for name in names:
            loop.add_signal_handler(name, self._heard.put_nowait, name.name)
        try:
            yield
        finally:
            for name in names:
                loop.remove_signal_handler(name)

"""Run an engine behind an HTTP server, from the socket to the last run that is waited for.

HTTP comes first: while the database cannot be opened, health says so and everything else is refused with 503.

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
from hurlbat_app.files import make_room
from hurlbat_app.heads import BoundedHttp
from hurlbat_dispatcher import DatabaseTrouble, Engine, Settings

KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s after which the usual proxies let go of an idle connection."""
LAST_ANSWERS_SECONDS = 5
"""How long requests may take that are still there when HTTP ends."""
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 5.0
"""Between two attempts to open a database that is away: it doubles from the first to the longest."""
LONGEST_SILENCE_SECONDS = 30.0
"""Between two log lines that say so; doubles likewise."""
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
        return f"port {port} on {host} is in use; stop what listens there, or take another by --port or HURLBAT_PORT"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} is not for this user; set HURLBAT_PORT to 1024 or more"
    return f"{host}:{port} cannot be listened on: {error.strerror or error}"


async def serve(settings: Settings, listening: socket.socket, beside: Beside) -> None:
    """Serve until a signal comes, with `beside` running from when the engine is at work.

    Raises what the engine's start raises, but for `DatabaseTrouble`: then it is tried again, while health is told and
    everything else is refused.
    """
    make_room(settings.max_connections)
    engine = Engine(settings)
    http = http_of(engine)
    working = asyncio.create_task(_work(engine, beside))
    try:
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(http.serve(sockets=[listening]))
            await _until_stopped(engine, serving, working, settings.drain_seconds)
            http.should_exit = True
    finally:
        working.cancel()
        await asyncio.wait({working})
        await engine.stop(0)
    if not working.cancelled():
        working.result()


def http_of(engine: Engine) -> uvicorn.Server:
    """Return the HTTP server of an engine, which whoever asks serves."""
    config = uvicorn.Config(
        create_app(engine),
        http=BoundedHttp,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
    )
    return _Http(config)


async def _work(engine: Engine, beside: Beside) -> None:
    await _start(engine)
    _tune_interpreter()
    await beside(engine)


async def _start(engine: Engine) -> None:
    """Start the engine, again and again while its database is away; log that at once, and then ever more rarely."""
    clock = asyncio.get_running_loop().time
    wait = silence = FIRST_WAIT_SECONDS
    tell_at = 0.0
    while True:
        try:
            await engine.start()
        except DatabaseTrouble as trouble:
            if clock() >= tell_at:
                _log.error("the database cannot be used yet; it is tried again until it can: %s", trouble)
                silence = min(2 * silence, LONGEST_SILENCE_SECONDS)
                tell_at = clock() + silence
        else:
            if tell_at:
                _log.info("the database works now")
            return
        await asyncio.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _tune_interpreter() -> None:
    """Let the collector look rarely, never at what lives as long as the server, and let threads take turns sooner.

    Collecting took a tenth of the time of a busy server. A turn of the database's thread gives the interpreter up at
    every statement, and with the usual 5 ms it waited for a quarter of its time to get it back.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    sys.setswitchinterval(SWITCH_SECONDS)


async def _until_stopped(
    engine: Engine, serving: asyncio.Task[None], working: asyncio.Task[None], grace: float
) -> None:
    """Wait for a signal, then drain for so many seconds, or until the next one. Or for a start that failed for good."""
    signals = _Signals()
    with signals.caught():
        first = asyncio.create_task(signals.next())
        await asyncio.wait({first, serving, working}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() and working.exception() is None:
            await asyncio.wait({first, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            return
        _log.info("%s: draining for up to %g s; once more to stop now", first.result(), grace)
        working.cancel()
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

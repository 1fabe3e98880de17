"""A virtual world around one app: a server in memory, the app as its worker, and time that goes when it is told to."""

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from hurlbat import outside
from hurlbat.app import Hurlbat
from hurlbat.runs import Run
from hurlbat.testing.threads import Threads
from hurlbat.testing.wiring import (
    SECRET,
    SERVER_HOST,
    SERVER_URL,
    WORKER_HOST,
    VirtualWorld,
    WrongLoop,
    check_loop,
    wired,
)
from hurlbat_app.api import create_app
from hurlbat_dispatcher import DatabaseTrouble
from hurlbat_dispatcher.simulation.clock import BEGIN_MS, RestingClock
from hurlbat_dispatcher.simulation.faults import Faults
from hurlbat_dispatcher.simulation.process import Killed
from hurlbat_dispatcher.simulation.wire import AsgiApp, Message, asgi
from hurlbat_dispatcher.simulation.world import Simulation, server_settings

__all__ = ["World", "WrongLoop"]

T = TypeVar("T")

SERVER: Final = "server"
WORKER: Final = "worker"
LOOK_SECONDS: Final = 0.05
"""Virtual seconds between two looks at what is still to be done."""
RESTART_SECONDS: Final = 1.0
"""How long a server that died is away."""
LONGEST_RUN: Final = timedelta(hours=1)
LONGEST_LIFE: Final = timedelta(days=365)
_ENDED: Final = "('completed', 'failed', 'cancelled', 'skipped')"
_OPEN: Final = f"SELECT count(*) FROM run WHERE state NOT IN {_ENDED}"
# a workflow is as busy as its nodes are
_BUSY: Final = (
    "SELECT count(*) FROM run WHERE (state = 'queued' AND (due_at IS NULL OR due_at <= ?))"
    " OR (state = 'running' AND NOT (kind = 'workflow' AND EXISTS"
    f" (SELECT 1 FROM run AS node WHERE node.parent = run.id AND node.state NOT IN {_ENDED})))"
)


class World:
    """A server and an app in virtual time. Use it as a context; one world at a time.

    `app` is the ASGI application that `hurlbat` is mounted in, at `path`; without it the handler stands alone. `faults`
    say what goes wrong, drawn from `seed`. `begin` is when the world begins. `settings` are those of the server, named
    as in `docs/settings.md` without the prefix and in lower case.
    """

    def __init__(
        self,
        hurlbat: Hurlbat,
        app: AsgiApp | None = None,
        *,
        path: str = "/hurlbat/",
        seed: int = 0,
        faults: Faults | None = None,
        begin: datetime | None = None,
        **settings: Any,
    ) -> None:
        self.hurlbat = hurlbat
        self.seed = seed
        self.client = hurlbat.client
        """The API of the server, once the world has begun."""
        self._path = path
        self._app = app or hurlbat.asgi()
        self._settings = server_settings(external_url=SERVER_URL, **settings)
        begin_ms = BEGIN_MS if begin is None else round(_aware(begin).timestamp() * 1_000)
        self._faults = faults or Faults.none()
        self._simulation = Simulation(seed, shared=False, in_order=True, threads=True, begin_ms=begin_ms)
        self._begin_ms = begin_ms
        self._threads = Threads(self._simulation.loop, hurlbat.settings.threads)
        self._stack = ExitStack()
        self._lifespan: _Lifespan | None = None
        self._serving = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    # -- the world's own life ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self._stack.callback(self._threads.shutdown, wait=False, cancel_futures=True)
        self._stack.callback(self._simulation.close)
        try:
            self._stack.enter_context(outside.using(VirtualWorld(self._simulation, self._threads)))
            self._stack.enter_context(wired(self.hurlbat, self._simulation, self._threads))
            self.client = self.hurlbat.client
            self.run(self._begin())
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._stack:
            if self._lifespan is not None:
                self.calm()
                with suppress(Killed):
                    self.run(self._lifespan.end())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the world, and return its result; the world stands still outside of it."""
        return self._simulation.run(work)

    # -- time ----------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return what time it is in the world."""
        return datetime.fromtimestamp(self._simulation.clock.now_ms() / 1_000, UTC)

    async def advance(self, *, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0) -> None:
        """Let so much time pass; all that is due meanwhile happens, in order and at its time."""
        check_loop(self._simulation)
        await asyncio.sleep(timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds())

    async def settle(self, within: timedelta = LONGEST_RUN) -> None:
        """Return when nothing is under way: every run has ended, or waits for a later time or for an event.

        Raises TimeoutError when that takes longer than `within`.
        """
        await self._until(lambda: self._count(_BUSY, self._simulation.disk.clock.now_ms()) == 0, within, "under way")

    async def drain(self, within: timedelta = LONGEST_LIFE) -> None:
        """Return when every run has ended, however long retries and delays take.

        Raises TimeoutError when that takes longer than `within`.
        """
        await self._until(lambda: self._count(_OPEN) == 0, within, "not at their end")

    # -- trouble -------------------------------------------------------------------------------------------------------

    def calm(self) -> None:
        """Let nothing more go wrong by itself."""
        self._simulation.trouble.calm()

    async def restart_server(self) -> None:
        """Kill the server as `kill -9` does; return when it has been started again on its database."""
        check_loop(self._simulation)
        self._serving.clear()
        self._simulation.kill(SERVER)
        await self._serving.wait()

    def unplug_worker(self) -> None:
        """Let the app refuse connections, as during a deploy."""
        self._simulation.network.hosts[WORKER_HOST].away = True

    def plug_worker(self) -> None:
        """Let the app be reached again."""
        self._simulation.network.hosts[WORKER_HOST].away = False

    # -- look ----------------------------------------------------------------------------------------------------------

    async def runs(self, *, task: str | None = None, state: str | None = None) -> list[Run]:
        """Return all runs with their timelines, the oldest first."""
        found: list[Run] = []
        cursor = None
        while True:
            page = await self.client.list_runs(task=task, state=state, cursor=cursor, limit=1_000)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return [await self.client.get_run(run.id) for run in reversed(found)]

    @property
    def trace(self) -> list[str]:
        """What happened below, a line each: requests, commits, faults. The same for the same seed."""
        return self._simulation.trace

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        network = self._simulation.network
        network.spares_the_world = True
        process = self._simulation.process(WORKER)
        process.fragile = False
        network.serve(WORKER_HOST, asgi(self._app), process)
        self._keeping = asyncio.create_task(self._keep_serving())
        await self._serving.wait()
        self._lifespan = _Lifespan(self._app)
        await process.call(self._lifespan.begin())
        url = f"https://{WORKER_HOST}{self._path}"
        # only now, as the app's lifespan would register it in the background
        settings = self.hurlbat.settings = replace(self.hurlbat.settings, public_url=url)
        worker = await self.client.register_worker(
            settings.worker_name, url, mode="protocol", secret=SECRET, slots=settings.slots
        )
        if worker["state"] != "ready":
            raise RuntimeError(f"the app at {self._path} is no worker: {worker.get('problem')}")
        self._simulation.trouble.faults = self._faults

    async def _keep_serving(self) -> None:
        """Start the server, and again whenever it died, as what supervises it in production does."""
        while True:
            clock = RestingClock(self._simulation.loop, self._simulation.history, begin_ms=self._begin_ms)
            with suppress(Killed, DatabaseTrouble):
                server = await self._simulation.start_server(SERVER, self._settings, clock=clock)
                dead = asyncio.Event()
                server.process.when_killed(dead.set)
                self._simulation.network.serve(SERVER_HOST, asgi(create_app(server.engine)), server.process)
                self._serving.set()
                await dead.wait()
                self._serving.clear()
            await asyncio.sleep(RESTART_SECONDS)

    async def _until(self, done: Any, within: timedelta, what: str) -> None:
        check_loop(self._simulation)
        loop = self._simulation.loop
        end = loop.time() + within.total_seconds()
        pause = LOOK_SECONDS
        while not done():
            if loop.time() >= end:
                left = [f"{run.task} {run.id} ({run.state})" for run in await self.runs() if not run.finished]
                raise TimeoutError(f"after {within} of virtual time runs are still {what}: {', '.join(left[:10])}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.2, 60.0)

    def _count(self, sql: str, *values: int) -> int:
        [[count]] = self._simulation.disk.look(sql, values)
        return int(count)


class _Lifespan:
    """The lifespan of an ASGI application, as a web server runs it; an app that knows none goes without."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._heard: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        self._task = asyncio.create_task(self._run())
        await self._tell("startup")

    async def end(self) -> None:
        if self._task is not None and not self._task.done():
            await self._tell("shutdown")

    async def _tell(self, what: str) -> None:
        self._said.put_nowait({"type": f"lifespan.{what}"})
        told = await self._heard.get()
        if told["type"].endswith(".failed"):
            raise RuntimeError(f"the app's {what} failed: {told.get('message') or 'its log says why'}")

    async def _run(self) -> None:
        try:
            await self._app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self._said.get, self._hear)
        except Exception:  # an app that knows no lifespan raises here
            self._heard.put_nowait({"type": "lifespan.unsupported"})
        else:
            self._heard.put_nowait({"type": "lifespan.over"})

    async def _hear(self, message: Message) -> None:
        self._heard.put_nowait(message)


def _aware(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("begin has no time zone; use datetime(…, tzinfo=UTC) or another aware datetime")
    return moment

"""A simulated world: one loop, one disk, one network, and processes that come and go."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from pydantic import SecretStr

from hurlbat_dispatcher.clock import Chance
from hurlbat_dispatcher.engine import Engine
from hurlbat_dispatcher.outside import Outside
from hurlbat_dispatcher.settings import Settings
from hurlbat_dispatcher.simulation.clock import BEGIN_MS, VirtualClock
from hurlbat_dispatcher.simulation.database import SimulatedDatabase
from hurlbat_dispatcher.simulation.disk import Disk
from hurlbat_dispatcher.simulation.faults import Faults, Trouble
from hurlbat_dispatcher.simulation.loop import VirtualLoop
from hurlbat_dispatcher.simulation.network import SimulatedNetwork
from hurlbat_dispatcher.simulation.process import Process
from hurlbat_dispatcher.simulation.trace import WORLD, Trace

T = TypeVar("T")

TOKEN: Final = "a-token-of-simulated-worlds"
_KEY: Final = SecretStr("c2ltdWxhdGVkIHdvcmxkcyBoYXZlIG5vIHNlY3JldHM=")
_ROUNDS: Final = 100
_LAST_SECONDS: Final = 600.0
_LONGEST_UPTIME: Final = 10_000_000.0


def server_settings(**more: Any) -> Settings:
    """Return the settings of a server in a world; nothing is read from the environment."""
    usual: dict[str, Any] = {
        "database_url": "sqlite:///:memory:",
        "secret_key": (_KEY,),
        "api_token": SecretStr(TOKEN),
        "external_url": "http://hurlbat.test",
        "delivery_retention": 0.0,
    }
    return Settings(**usual | more)


@dataclass(frozen=True, slots=True, eq=False)
class Server:
    """One life of a server: its process, its engine and its host's clock."""

    name: str
    process: Process
    engine: Engine
    clock: VirtualClock

    async def call(self, work: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """Ask the engine, from anywhere. Raises `Killed` when the server dies before it has answered."""
        return await self.process.call(work(self.engine))


class Simulation:
    """A world. Same seed and same program: same trace.

    `shared`: several servers may use the database, as on PostgreSQL; otherwise it is one server's own, as with SQLite.
    `in_order`: what is ready at the same moment runs in the order in which it became so, also across processes.
    """

    def __init__(
        self,
        seed: int = 0,
        faults: Faults | None = None,
        *,
        shared: bool = True,
        in_order: bool = False,
        threads: bool = False,
        begin_ms: int = BEGIN_MS,
    ) -> None:
        self.chance = Chance(seed)
        self.loop = VirtualLoop(None if in_order else self._draw(), threads=threads)
        self.clock = VirtualClock(self.loop, begin_ms=begin_ms)
        self.history = Trace(self.loop)
        self.trouble = Trouble(faults or Faults.none(), self._draw(), self.clock)
        self.disk = Disk(self.loop, VirtualClock(self.loop, begin_ms=begin_ms), self.trouble, self.history)
        self.network = SimulatedNetwork(self.loop, self.clock, self.trouble, self.history)
        self.processes: dict[str, Process] = {}
        """The latest life of each process by its name."""
        self.servers: dict[str, Server] = {}
        """The latest life of each server by its name."""
        self.broken: list[BaseException] = []
        """What was raised where nobody could catch it."""
        self._shared = shared
        self._begin_ms = begin_ms
        self._lives: list[Process] = []
        self.loop.set_exception_handler(self._broke)

    # -- run -----------------------------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, T], *, within: float | None = None) -> T:
        """Run `main` outside of all processes, and everything else beside it, to its end.

        Raises TimeoutError when that takes more than `within` seconds of virtual time, and `Deadlock`.
        """
        collecting = gc.isenabled()
        gc.disable()  # when it runs differs, and it may run what is left of generators
        try:
            found = self.loop.run_until_complete(main if within is None else self._bounded(main, within))
        finally:
            if collecting:
                gc.enable()
        if self.broken:
            raise BaseExceptionGroup("this was raised where nobody could catch it", self.broken)
        return found

    def close(self) -> None:
        """End the world: everything in it, the dead too, is cancelled, and can reach nothing any more."""
        if self.loop.is_closed():
            return
        self.disk.close()
        self.network.close()
        self.loop.set_exception_handler(lambda *_: None)
        for process in self._lives:
            process.haunt()
        for _ in range(_ROUNDS):
            left = self.loop.unfinished()
            if not left:
                break
            for task in left:
                task.cancel()
            with suppress(Exception):
                self.loop.run_until_complete(_wait(left))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- processes -----------------------------------------------------------------------------------------------------

    def process(self, name: str) -> Process:
        """Begin a process: a new life of that name; the one before is killed."""
        self.kill(name)
        made = self.processes[name] = Process(name, self.loop, self.history.note)
        self._lives.append(made)
        return made

    def kill(self, name: str) -> None:
        """Kill a process where it stands, if it lives."""
        if name in self.processes:
            self.processes[name].kill()

    def pause(self, name: str) -> None:
        """Stop a process as SIGSTOP does."""
        self.processes[name].pause()

    def resume(self, name: str) -> None:
        """Let it go on as SIGCONT does."""
        self.processes[name].resume()

    # -- servers -------------------------------------------------------------------------------------------------------

    async def start_server(
        self,
        name: str = "server",
        settings: Settings | None = None,
        *,
        skew: float = 0.0,
        clock: VirtualClock | None = None,
    ) -> Server:
        """Start a server: a new life of that name. Raises what `Engine.start` raises, and `Killed`.

        Its host's clock is off by `skew` seconds, where it is not given.
        """
        process = self.process(name)
        uptime = self.chance.uniform(0, _LONGEST_UPTIME)
        clock = clock or VirtualClock(self.loop, skew=skew, uptime=uptime, begin_ms=self._begin_ms)
        outside = Outside(
            clock=clock,
            chance=self._draw(),
            database=lambda *_: SimulatedDatabase(self.disk, self.trouble, shared=self._shared),
            network=self.network,
        )
        server = self.servers[name] = Server(name, process, Engine(settings or server_settings(), outside), clock)
        try:
            await server.call(lambda engine: engine.start())
        except Exception:
            process.kill("at its failed start")
            raise
        self.note(f"{name} has started")
        return server

    async def stop_server(self, name: str, grace: float = 25.0) -> None:
        """Stop a server in order, as SIGTERM does."""
        server = self.servers[name]
        await server.call(lambda engine: engine.stop(grace))
        server.process.kill("at its own end")

    # -- look ----------------------------------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """Write a line of the history."""
        self.history.note(WORLD, what)

    @property
    def trace(self) -> list[str]:
        """The lines of the history so far."""
        return self.history.lines

    @property
    def digest(self) -> str:
        """What two histories have in common only if they are the same."""
        return self.history.digest

    # -- inside --------------------------------------------------------------------------------------------------------

    def _draw(self) -> Chance:
        """Return a source of its own, so that what one part draws does not change what others do."""
        return Chance(self.chance.bits(64))

    async def _bounded(self, main: Awaitable[T], within: float) -> T:
        async with asyncio.timeout(within):
            return await main

    def _broke(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None:
            self.broken.append(error)


async def _wait(tasks: list[Any]) -> None:
    await asyncio.wait(tasks, timeout=_LAST_SECONDS)

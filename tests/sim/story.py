"""One history: servers, workers and a client in a simulated world, mishaps on the way, and a calm end."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher import Engine, Mode, Problem, WorkerSpec
from hurlbat_dispatcher.simulation.process import Process
from hurlbat_dispatcher.simulation.wire import answering
from hurlbat_dispatcher.simulation.world import Server, Simulation, server_settings
from tests.sim.checker import Checker
from tests.sim.client import Client
from tests.sim.composition_client import CompositionClient
from tests.sim.far_side import SECRET, SimulatedWorker
from tests.sim.history import History, Key
from tests.sim.mishaps import Mishaps
from tests.sim.operators import Operator
from tests.sim.plan import Plan
from tests.sim.rows import Row
from tests.sim.watched import WatchedNetwork, remember_births
from tests.sim.ways_client import WaysClient
from tests.sim.wire import Lost, Wire

T = TypeVar("T")

LIMIT: Final = 240.0
"""Seconds by which the database's clock is off, at most: workers refuse what was signed five minutes ago."""
FAR: Final = 7_200.0
"""Seconds by which the clock of a host is off, at most, where the database has its own."""


class Story:
    """One history, as its plan has it. `run` it once; `history` and `checker` know what came of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.chance = random.Random(f"story {plan.seed}")
        self.simulation = Simulation(plan.seed, plan.faults, shared=plan.shared)
        self.history = History(self.simulation.loop.time, self.simulation.note)
        disk = self.simulation.disk
        self.checker = Checker(plan, self.history, disk.connection, disk.clock.now_ms, alone=not plan.shared)
        disk.on_commit = self.checker.committed
        self.simulation.network = WatchedNetwork(self.simulation, self.checker)
        remember_births(self.simulation.loop)
        self.wire = Wire(plan.seed, self.history)
        self.started: dict[str, Server] = {}
        """Servers that are at work, as far as those outside know."""
        self.policies: dict[str, Mapping[str, Any]] = {task.name: task.policy for task in plan.tasks}
        """The policy of each task as it is now."""
        self.workers = [SimulatedWorker(worker, self, self._process_of(worker.name).spawn) for worker in plan.workers]
        for worker in self.workers:
            self._serve(worker)
        self.client = Client(self, self.simulation.process("client").spawn)
        self.ways = WaysClient(self, self.simulation.processes["client"].spawn)
        self.composition = CompositionClient(self, self.simulation.processes["client"].spawn)
        self.mishaps = Mishaps(self)
        self.operator = Operator(self)
        self._settings = server_settings(lease=plan.lease, heartbeat=plan.heartbeat)
        self._starting = {name: asyncio.Lock() for name in self.names}
        self._skews = dict(zip(self.names, plan.skews, strict=True))

    @property
    def names(self) -> list[str]:
        """The servers' names."""
        return [f"s{number}" for number in range(self.plan.servers)]

    # -- what workers and the client need ------------------------------------------------------------------------------

    @property
    def rows(self) -> Mapping[str, Row]:
        """What is committed now."""
        return self.checker.rows

    def true_time(self) -> float:
        """Return the seconds since the epoch by a clock that is right."""
        return self.simulation.clock.now_ms() / 1000

    async def ask_any(self, work: Callable[[Engine], Awaitable[T]], *, at_once: bool = True) -> T:
        """Ask some server. Raises `Lost`, or the `Problem` that it answered. `at_once`: see `Wire.call`."""
        server = self.started.get(self.chance.choice(self.names))
        if server is None:
            await asyncio.sleep(0.01)
            raise Lost(asked=False)
        return await self.wire.call(server.process, server.engine, work, at_once=at_once)

    async def change(self, work: Callable[[Engine], Awaitable[Any]]) -> None:
        """Change what is in force by some server. Raises `Lost`, or the `Problem` that it answered."""
        server = self.started.get(self.chance.choice(self.names))
        if server is None:
            await asyncio.sleep(0.01)
            raise Lost(asked=False)
        since = self.checker.time()
        await self.wire.call(server.process, server.engine, work, at_once=False)
        self.checker.changed(server.process.name, since)

    async def redeploy(self, task: str, policy: Mapping[str, Any]) -> None:
        """Let the workers of a task declare another policy of it. Raises `Lost` or `Problem`."""
        self.policies[task] = policy
        for worker in self.workers:
            if task in worker.plan.tasks:
                await self.change(partial(_register, self._spec(worker)))

    async def insist(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Ask until some server has done it."""
        while True:
            try:
                return await self.ask_any(work, at_once=False)
            except (Problem, Lost):
                await asyncio.sleep(0.3)

    def executes(self, worker: str, at_work: Sequence[Key]) -> None:
        """Take notice of what a worker has at work now that it begins another attempt."""
        self.checker.executes(worker, at_work)

    def executed(self, key: Key) -> None:
        """Take notice of an attempt that begins."""
        self.checker.executed(key)

    def given(self, run: Mapping[str, Any]) -> None:
        """Take notice of a run as it is delivered."""
        self.checker.composition.given(run)

    def renewed(self, key: Key, since: float) -> None:
        """Take notice of a heartbeat that was answered, asked at `since` (seconds of the loop)."""
        self.checker.renewed(key, since)

    # -- who takes part ------------------------------------------------------------------------------------------------

    async def start(self, name: str) -> None:
        """Start a server, again and again until it has started."""
        async with self._starting[name]:
            while name not in self.started:
                try:
                    server = await self.simulation.start_server(name, self._settings, skew=self._skews[name])
                except Exception as error:
                    self.simulation.note(f"{name} did not start: {type(error).__name__}")
                    self.simulation.kill(name)
                    await asyncio.sleep(self.chance.uniform(0.2, 2.0))
                else:
                    self.started[name] = server
                    parts = server.engine._parts
                    assert parts is not None
                    parts.desk.picture.most_held = self.plan.horizon
                    self.wire.watch(server.process)
                    server.process.when_killed(partial(self._died, name, server))

    def skew(self, name: str, seconds: float) -> None:
        """Set the clock of a server's host; where it is alone its host's clock is the database's."""
        limit = FAR if self.plan.shared else LIMIT
        skew = max(-limit, min(limit, self._skews[name] + seconds))
        if name in self.started:
            self.started[name].clock.jump(skew - self._skews[name])
        if not self.plan.shared:
            self.checker.time()
            self.simulation.disk.clock.jump(skew - self._skews[name])
            self.checker.clock_set_at = self.simulation.loop.time()
            self.history.set_back = self.history.set_back or skew < self._skews[name]
        self._skews[name] = skew

    def revive(self, worker: SimulatedWorker) -> None:
        """Start a worker that died again."""
        worker.live(self._process_of(worker.plan.name).spawn)
        self._serve(worker)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the story, as nobody."""
        self.simulation.processes["client"].spawn(work)

    async def register(self) -> None:
        """Make all workers known, while nothing goes wrong."""
        await self.operator.put_limits()
        for worker in self.workers:
            await self.insist(partial(_register, self._spec(worker)))

    # -- inside --------------------------------------------------------------------------------------------------------

    def _spec(self, worker: SimulatedWorker) -> WorkerSpec:
        plain = worker.plan.plain
        policies = [TaskPolicy(**self.policies[task]) for task in worker.plan.tasks]
        return WorkerSpec(
            worker.plan.name,
            worker.url,
            slots=worker.plan.slots,
            mode=Mode.PLAIN if plain else Mode.PROTOCOL,
            tasks=tuple(policies) if plain else None,
            labels=self.plan.flow.labels.get(worker.plan.name),
            secret=SECRET,
        )

    def _died(self, name: str, server: Server) -> None:
        if self.started.get(name) is server:
            del self.started[name]
            self.mishaps.bring_back(name)

    def _process_of(self, worker: str) -> Process:
        process = self.simulation.process(worker)
        process.fragile = False
        return process

    def _serve(self, worker: SimulatedWorker) -> None:
        host = f"{worker.plan.name}.example.com"
        self.simulation.network.serve(host, answering(worker.receive), self.simulation.processes[worker.plan.name])


async def _register(spec: WorkerSpec, engine: Engine) -> None:
    await engine.register_worker(spec)

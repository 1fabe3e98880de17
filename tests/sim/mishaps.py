"""What befalls servers, workers and hosts while a history goes on, and how each is brought back."""

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Final

from hurlbat_dispatcher import Engine, Problem
from tests.sim.far_side import SimulatedWorker
from tests.sim.plan import Mishap, chosen
from tests.sim.wire import Lost

if TYPE_CHECKING:
    from tests.sim.story import Story

STALL: Final = (10.0, 60.0)
BLINK: Final = (0.05, 5.0)
SOON: Final = 600
"""Steps within which a server dies that is to die at any await."""
JUMPS: Final = (30.0, 240.0, 4_000.0)
"""By how much (seconds) a clock is set, at most."""


class Mishaps:
    """Draws what happens next, until all is to be well."""

    def __init__(self, story: "Story") -> None:
        self._story = story
        self._chance = random.Random(f"mishaps {story.plan.seed}")
        self.calm = False
        self._paused: dict[str, None] = {}

    async def live(self, until: float) -> None:
        """Let things happen until then (seconds of the loop's time)."""
        loop = asyncio.get_running_loop()
        plan = self._story.plan
        while plan.mishaps:
            await asyncio.sleep(self._chance.expovariate(1 / plan.every))
            if loop.time() >= until:
                return
            mishap = chosen(self._chance, plan.mishaps)
            self._story.history.counts[f"mishap {mishap}"] += 1
            self._story.simulation.note(f"mishap {mishap}")
            self._happen(mishap)

    def bring_back(self, name: str) -> None:
        """Start a server again that has died, after a while."""
        self._story.history.counts["deaths"] += 1
        wait = 0.1 if self.calm else self._chance.choice((0.1, 1.0, 5.0, 20.0)) * self._chance.uniform(0.5, 1.5)

        async def again() -> None:
            await asyncio.sleep(wait)
            await self._story.start(name)

        self._story.spawn(again())

    async def make_well(self) -> None:
        """End all that goes wrong, and bring everybody back who is away."""
        story = self._story
        self.calm = story.wire.calm = True
        story.simulation.trouble.calm()
        for name in story.names:
            process = story.simulation.processes[name]
            process.fragile = False
            process.kill_at = None
            process.resume()
        for worker in story.workers:
            worker.calm = True
            if not worker.up:
                story.revive(worker)
            story.simulation.network.hosts[f"{worker.plan.name}.example.com"].away = False
        for name in story.names:
            await story.start(name)
        await story.operator.make_well()
        await self.wake_workers()

    async def wake_workers(self) -> None:
        """Let every worker get runs again that somebody or its own answer has stopped."""
        for worker in self._story.workers:
            await self._story.insist(partial(_resume, worker.plan.name))

    def _happen(self, mishap: Mishap) -> None:
        story, chance = self._story, self._chance
        name = chance.choice(story.names)
        process = story.simulation.processes[name]
        worker = chance.choice(story.workers)
        match mishap:
            case Mishap.KILL:
                process.kill("by a mishap")
            case Mishap.KILL_SOON:
                process.kill_at = process.steps + chance.randint(1, SOON)
            case Mishap.KILL_ALL:
                for each in story.names:
                    story.simulation.kill(each)
            case Mishap.STALL:
                process.stall(chance.uniform(*STALL))
            case Mishap.BLINK:
                process.stall(chance.uniform(*BLINK))
            case Mishap.STOP:
                self._story.spawn(self._stop(name))
            case Mishap.CLOCK:
                story.skew(name, chance.choice((-1, 1)) * chance.uniform(0.0, chance.choice(JUMPS)))
                story.ways.look_after_time()
            case Mishap.WORKER_DIES:
                self._let_die(worker)
            case Mishap.WORKER_AWAY:
                story.spawn(self._go_away(worker))
            case Mishap.WORKER_PAUSED:
                story.spawn(self._pause(worker))

    async def _stop(self, name: str) -> None:
        server = self._story.started.get(name)
        if server is None:
            return
        grace = self._chance.choice((0.0, 2.0, 10.0))

        async def stop() -> None:
            await server.engine.stop(grace)
            server.process.kill("at its own end")

        if server.process.alive:
            server.process.spawn(stop())

    def _let_die(self, worker: SimulatedWorker) -> None:
        if not worker.up:
            return
        worker.die()
        self._story.simulation.kill(worker.plan.name)
        self._story.spawn(self._come_back(worker, self._chance.uniform(0.1, 15.0)))

    async def _come_back(self, worker: SimulatedWorker, after: float) -> None:
        await asyncio.sleep(after)
        if not worker.up:
            self._story.revive(worker)

    async def _go_away(self, worker: SimulatedWorker) -> None:
        hosts = self._story.simulation.network.hosts
        hosts[f"{worker.plan.name}.example.com"].away = True
        await asyncio.sleep(self._chance.uniform(1.0, 30.0))
        hosts[f"{worker.plan.name}.example.com"].away = False

    async def _pause(self, worker: SimulatedWorker) -> None:
        try:
            await self._story.ask_any(lambda engine: engine.pause_worker(worker.plan.name), at_once=False)
            await asyncio.sleep(self._chance.uniform(1.0, 10.0))
            await self._story.ask_any(lambda engine: engine.resume_worker(worker.plan.name), at_once=False)
        except (Problem, Lost):
            return


async def _resume(name: str, engine: Engine) -> None:
    await engine.resume_worker(name)

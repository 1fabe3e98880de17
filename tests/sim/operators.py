"""The operator: puts rate limits, pauses keys and tasks, and lets workers declare other numbers."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hurlbat_dispatcher import Engine, Problem
from tests.sim.flow_plan import KEYS, Doing, redeployed
from tests.sim.plan import chosen
from tests.sim.wire import Lost

if TYPE_CHECKING:
    from tests.sim.story import Story

GENEROUS = 60
"""Units that every limit allows when all is to be well."""


class Operator:
    """Changes what is in force, until all is to be well."""

    def __init__(self, story: "Story") -> None:
        self._story = story
        self._plan = story.plan.flow
        self._chance = random.Random(f"operator {story.plan.seed}")
        self._durations = {limit.key: round(limit.duration * 1000) for limit in self._plan.limits}

    async def put_limits(self) -> None:
        """Put the limits that tasks name, before anything goes wrong."""
        for limit in self._plan.limits:
            await self._insist(_put(limit.key, limit.most, self._durations[limit.key]))

    async def live(self, until: float) -> None:
        """Change things until then (seconds of the loop's time)."""
        loop = asyncio.get_running_loop()
        while self._plan.doings:
            await asyncio.sleep(self._chance.expovariate(1 / self._plan.every))
            if loop.time() >= until:
                return
            doing = chosen(self._chance, self._plan.doings)
            self._story.history.counts[f"operator {doing}"] += 1
            self._story.simulation.note(f"operator {doing}")
            self._story.spawn(self._do(doing))

    async def make_well(self) -> None:
        """Take back everything that holds runs."""
        for limit in self._plan.limits:
            await self._insist(_put(limit.key, GENEROUS, self._durations[limit.key]))
            await self._insist(_resume_key(limit.key, dynamic=False))
        for key in KEYS if self._plan.on else ():
            await self._insist(_resume_key(key, dynamic=True))
        for task in self._story.plan.tasks if self._plan.on else ():
            await self._insist(_resume_task(task.name))

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _do(self, doing: Doing) -> None:
        try:
            await self._change(doing)
        except (Problem, Lost):
            return

    async def _change(self, doing: Doing) -> None:
        chance = self._chance
        task = chance.choice(self._story.plan.tasks).name
        key = self._plan.limits[0].key
        wait = chance.choice((2.0, 8.0, 30.0)) * chance.uniform(0.5, 1.5)
        dynamic = doing is Doing.PAUSE_DYNAMIC_KEY
        match doing:
            case Doing.LIMIT:
                most = chance.choice((0, 1, 2, 5, 20))
                await self._ask(_put(key, most, self._durations[key]))
            case Doing.DURATION:
                self._durations[key] = chance.choice((500, 3_000, 20_000))
                await self._ask(_put(key, chance.choice((2, 6)), self._durations[key]))
            case Doing.REMOVE_LIMIT:
                await self._ask(lambda engine: engine.limits.delete(key))
                await asyncio.sleep(wait / 4)
                await self._insist(_put(key, 5, self._durations[key]))
            case Doing.PAUSE_KEY | Doing.PAUSE_DYNAMIC_KEY:
                name = chance.choice(KEYS) if dynamic else key
                await self._ask(lambda engine: engine.limits.pause(name, dynamic=dynamic))
                await asyncio.sleep(wait)
                await self._ask(_resume_key(name, dynamic=dynamic))
            case Doing.PAUSE_TASK:
                await self._ask(lambda engine: engine.limits.pause_task(task))
                await asyncio.sleep(wait)
                await self._ask(_resume_task(task))
            case Doing.REDEPLOY:
                await self._story.redeploy(task, redeployed(chance, self._story.plan.task(task).policy))

    async def _ask(self, work: Callable[[Engine], Awaitable[Any]]) -> None:
        await self._story.change(work)

    async def _insist(self, work: Callable[[Engine], Awaitable[Any]]) -> None:
        while True:
            try:
                await self._ask(work)
            except (Problem, Lost):
                await asyncio.sleep(0.3)
            else:
                return


def _put(key: str, most: int, duration: int) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.limits.put(key, most, duration)


def _resume_key(key: str, *, dynamic: bool) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.limits.resume(key, dynamic=dynamic)


def _resume_task(task: str) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.limits.resume_task(task)

"""The network that servers are given: as the simulated one, but every delivery is shown to the checker as it leaves."""

import asyncio
import json
from typing import Any

import httpx

from hurlbat_dispatcher.simulation.loop import Task, VirtualLoop
from hurlbat_dispatcher.simulation.network import SimulatedNetwork
from hurlbat_dispatcher.simulation.process import Killed, current
from hurlbat_dispatcher.simulation.world import Simulation
from tests.sim.checker import Checker


class WatchedNetwork(SimulatedNetwork):
    """Shows what servers send, in the moment when they hand it over and before anything can happen to it."""

    def __init__(self, simulation: Simulation, checker: Checker) -> None:
        super().__init__(simulation.loop, simulation.clock, simulation.trouble, simulation.history)
        self._checker = checker

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        message = json.loads(await request.aread())
        process = current()
        if message["type"] == "deliver" and process is not None:
            keys = [(run["run_id"], run["attempt"]) for run in message["data"]["runs"]]
            self._checker.sends(process.name, keys, born())
        try:
            return await super().handle_async_request(request)
        except Killed:  # the far side died while the request was on its way
            raise httpx.ConnectError("connection refused", request=request) from None


def remember_births(loop: VirtualLoop) -> None:
    """Let every task know when it was made.

    A server decides to send when it makes the task that sends. It may stand still between the two, and nobody can help
    that: what counts is whether it could send when it decided.
    """

    def make(loop: asyncio.AbstractEventLoop, work: Any, **more: Any) -> Task:
        task: Any = usual(loop, work, **more)
        task.born = loop.time()
        return task  # type: ignore[no-any-return]  # with more on it than its class knows

    usual: Any = loop.get_task_factory()
    loop.set_task_factory(make)


def born() -> float:
    """Return when the current task was made, in seconds of the loop."""
    task: Any = asyncio.current_task()
    return float(task.born)

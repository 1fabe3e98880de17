"""The clock of a shared database is set: servers that live are not taken for dead, and nothing is executed twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hurlbat.wire import CompletedLine, HeartbeatLine, StartedLine, write_line
from hurlbat_dispatcher import Run, Submission
from hurlbat_dispatcher.simulation.world import Simulation, server_settings
from tests.simulation import story
from tests.simulation.story import Worker, started


class Slow(Worker):
    """Works for 40 seconds, and says every second that it lives."""

    async def _work(self, runs: list[dict[str, Any]]) -> AsyncIterator[bytes]:
        for run in runs:
            self.took.append((run["run_id"], run["attempt"]))
            yield f"{write_line(StartedLine(run['run_id'], run['attempt']))}\n".encode()
        for _ in range(40):
            await asyncio.sleep(1)
            yield f"{write_line(HeartbeatLine())}\n".encode()
        for run in runs:
            yield f"{write_line(CompletedLine(run['run_id'], run['attempt'], '1'))}\n".encode()


@pytest.mark.parametrize("seconds", [-3600, -30, 30, 3600])
def test_a_clock_of_the_database_that_is_set_makes_nobody_dead(seconds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "Worker", Slow)
    ended: list[Run] = []
    with Simulation(3) as world:

        async def main() -> None:
            first, worker = await started(world)
            second = await world.start_server("b", server_settings())
            await asyncio.sleep(6)
            accepted = await second.call(lambda engine: engine.submit(Submission("echo", "1")))
            await asyncio.sleep(3)
            [(sender, owner)] = world.disk.look("select sender, (select owner from shard) from run")
            assert sender != owner
            world.disk.clock.jump(seconds)
            ended.append(await first.call(lambda engine: engine.wait(accepted.run.id, 300)))
            assert worker.took == [(accepted.run.id, 1)]

        world.run(main(), within=4000)
    assert [(run.state, run.attempt, run.tries) for run in ended] == [("completed", 1, 1)]

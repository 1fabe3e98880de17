"""Whole worlds: the real engine on virtual time, the same for the same seed."""

import asyncio
import os
import subprocess
import sys
from dataclasses import fields

import pytest

from hurlbat_dispatcher import DatabaseTrouble, Submission
from hurlbat_dispatcher.simulation.faults import Fault, Faults
from hurlbat_dispatcher.simulation.process import Killed
from hurlbat_dispatcher.simulation.world import Simulation, server_settings
from tests.simulation.story import RUNS, started, tell
from tests.support.imports import ROOT


def digests_of_processes(seed: int, *hash_seeds: str) -> list[str]:
    """Tell the history of a seed in processes that differ in the order of their sets."""
    telling = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.simulation.story", str(seed)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            stdout=subprocess.PIPE,
            text=True,
        )
        for hash_seed in hash_seeds
    ]
    told = [process.communicate(timeout=120)[0].strip() for process in telling]
    assert [process.returncode for process in telling] == [0] * len(telling)
    return told


def test_the_same_seed_gives_the_same_history_whatever_the_hash_seed() -> None:
    first, second = digests_of_processes(11, "1", "2")
    assert first == second != ""


def test_every_seed_gives_a_history_of_its_own_and_all_end_well() -> None:
    digests = set()
    struck: set[Fault] = set()
    for seed in range(4):
        world, runs = tell(seed)
        assert [run.state for run in runs] == ["completed"] * RUNS
        assert [run.output for run in runs] == [run.input for run in runs]
        digests.add(world.digest)
        struck |= world.trouble.struck.keys()
    assert len(digests) == 4
    assert len(struck) > 12


def test_a_server_runs_a_task_from_submit_to_result_in_virtual_time() -> None:
    with Simulation() as world:

        async def main() -> None:
            server, worker = await started(world)
            run = (await server.call(lambda engine: engine.submit(Submission("echo", '"x"', delay=600)))).run
            ended = await server.call(lambda engine: engine.wait(run.id, 900))
            assert (ended.state, ended.output) == ("completed", '"x"')
            assert ended.finished_at is not None
            assert 600_000 < ended.finished_at - run.created_at < 602_000
            assert worker.took == [(run.id, 1)]

        world.run(main())


def test_what_a_killed_server_had_acknowledged_the_next_one_finishes() -> None:
    with Simulation() as world:

        async def main() -> None:
            server, _ = await started(world, lease=3.0, heartbeat=1.0)
            run = (await server.call(lambda engine: engine.submit(Submission("echo", "1")))).run
            world.kill("a")
            with pytest.raises(Killed):
                await server.call(lambda engine: engine.get_run(run.id))
            after = await world.start_server("b", server_settings(lease=3.0, heartbeat=1.0))
            ended = await after.call(lambda engine: engine.wait(run.id, 600))
            assert ended.state == "completed"

        world.run(main())


def test_a_server_that_cannot_start_is_dead() -> None:
    with Simulation() as world:

        async def main() -> None:
            world.disk.go_away(10)
            with pytest.raises(DatabaseTrouble):
                await world.start_server("a")
            assert not world.processes["a"].alive
            await asyncio.sleep(10)
            await world.start_server("a")

        world.run(main())


def test_a_server_that_stops_in_order_leaves_nothing_behind() -> None:
    with Simulation() as world:

        async def main() -> None:
            await started(world)
            await world.stop_server("a")
            assert world.disk.look("SELECT count(*) FROM dispatcher") == [(0,)]

        world.run(main())


def test_a_database_of_one_server_is_rescued_at_once() -> None:
    with Simulation(shared=False) as world:

        async def main() -> float:
            server, _ = await started(world)
            run = (await server.call(lambda engine: engine.submit(Submission("echo", "1")))).run
            world.kill("a")
            after = await world.start_server("a")
            await after.call(lambda engine: engine.wait(run.id, 600))
            return world.loop.time()

        assert world.run(main()) < 10


def test_what_takes_too_long_is_given_up_by_virtual_time() -> None:
    with Simulation() as world, pytest.raises(TimeoutError):
        world.run(asyncio.sleep(100), within=50)


def test_a_mix_of_faults_is_drawn_from_its_seed() -> None:
    assert Faults.from_seed(3) == Faults.from_seed(3) != Faults.from_seed(4)
    drawn = [Faults.from_seed(seed) for seed in range(50)]
    for fault in Fault:
        rates = [getattr(one, fault) for one in drawn]
        assert 0.0 in rates
        assert 0 < max(rates) < 0.1


def test_every_fault_has_its_rate() -> None:
    assert {fault.value for fault in Fault} == {one.name for one in fields(Faults) if not one.name.endswith("_seconds")}


def test_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="refused is how often"):
        Faults(refused=20)

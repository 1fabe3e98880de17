"""Processes of a world: killed or paused at any await."""

import asyncio
from collections.abc import Iterator

import pytest

from hurlbat_dispatcher.simulation.process import Killed, Process, current
from hurlbat_dispatcher.simulation.world import Simulation


@pytest.fixture
def world() -> Iterator[Simulation]:
    with Simulation() as made:
        yield made


async def count(said: list[str]) -> None:
    try:
        for n in range(10):
            said.append(str(n))
            await asyncio.sleep(1)
    finally:
        said.append("finally")


def test_a_killed_process_does_nothing_more_and_runs_no_finally(world: Simulation) -> None:
    said: list[str] = []

    async def main() -> None:
        process = world.process("p")
        process.spawn(count(said))
        await asyncio.sleep(2.5)
        process.kill()
        await asyncio.sleep(100)

    world.run(main())
    assert said == ["0", "1", "2"]


def test_a_world_that_ends_lets_the_dead_come_to_an_end_without_a_warning() -> None:
    said: list[str] = []
    with Simulation() as world:

        async def main() -> None:
            world.process("p").spawn(count(said))
            await asyncio.sleep(0.5)
            world.kill("p")

        world.run(main())
        assert said == ["0"]
    assert said == ["0", "finally"]
    assert world.loop.unfinished() == []


def test_a_process_can_be_killed_before_each_of_its_steps() -> None:
    full = [str(n) for n in range(10)] + ["finally"]
    seen = []
    for step in range(1, 30):
        said: list[str] = []
        with Simulation() as world:
            process = world.process("p")
            process.kill_at = step
            process.spawn(count(said))
            world.run(asyncio.sleep(100))
            assert said == full[: len(said)]
            seen.append(len(said))
    assert seen == sorted(seen)
    assert set(seen) == set(range(12))


def test_a_paused_process_goes_on_later_and_its_timers_fire_then(world: Simulation) -> None:
    at: list[float] = []

    async def sleep() -> None:
        await asyncio.sleep(1)
        at.append(world.loop.time())
        await asyncio.sleep(1)
        at.append(world.loop.time())

    async def main() -> None:
        process = world.process("p")
        process.spawn(sleep())
        await asyncio.sleep(0.5)
        process.pause()
        await asyncio.sleep(60)
        assert at == []
        process.resume()
        await asyncio.sleep(2)

    world.run(main())
    assert at == [60.5, 61.5]


def test_what_was_cancelled_while_paused_never_runs(world: Simulation) -> None:
    said: list[str] = []

    async def main() -> None:
        process = world.process("p")
        timer = process.context.copy().run(world.loop.call_later, 1, said.append, "late")
        process.pause()
        await asyncio.sleep(5)
        timer.cancel()
        process.resume()
        await asyncio.sleep(5)

    world.run(main())
    assert said == []


def test_a_task_belongs_to_the_process_that_began_it(world: Simulation) -> None:
    said: list[str] = []

    async def parent() -> None:
        asyncio.create_task(count(said))  # noqa: RUF006  # the world holds it
        assert current() is world.processes["p"]

    async def main() -> None:
        process = world.process("p")
        await process.call(parent())
        await asyncio.sleep(1.5)
        process.kill()
        await asyncio.sleep(50)
        assert current() is None

    world.run(main())
    assert said == ["0", "1"]


def test_who_asks_a_process_hears_of_its_death(world: Simulation) -> None:
    async def main() -> None:
        process = world.process("p")
        world.loop.call_later(3, process.kill)
        with pytest.raises(Killed):
            await process.call(asyncio.sleep(10))
        assert world.loop.time() == 3
        with pytest.raises(Killed):
            await process.call(asyncio.sleep(10))

    world.run(main())


def test_a_call_gives_back_what_was_returned_or_raised(world: Simulation) -> None:
    async def fail() -> None:
        raise KeyError("no")

    async def main() -> None:
        process = world.process("p")
        assert await process.call(asyncio.sleep(1, "yes")) == "yes"
        with pytest.raises(KeyError):
            await process.call(fail())

    world.run(main())


def test_a_new_life_kills_the_one_before(world: Simulation) -> None:
    first = world.process("p")
    second = world.process("p")
    assert (first.alive, second.alive) == (False, True)
    assert world.trace == ["0.000000 p killed"]


def test_each_life_of_a_process_is_another_process() -> None:
    with Simulation() as world:
        assert isinstance(world.process("p"), Process)
        assert world.process("p") is world.processes["p"]


def test_what_nobody_could_catch_is_raised_in_the_end(world: Simulation) -> None:
    def fail() -> None:
        raise KeyError("in a callback")

    async def main() -> None:
        world.loop.call_soon(fail)
        await asyncio.sleep(1)

    with pytest.raises(BaseExceptionGroup, match="nobody could catch"):
        world.run(main())

"""The simulated database: what is stored, what is not, and who hears of it."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from hurlbat_dispatcher.simulation.database import SimulatedDatabase
from hurlbat_dispatcher.simulation.faults import Faults
from hurlbat_dispatcher.simulation.world import Simulation
from hurlbat_dispatcher.store.database import Clash, DatabaseTrouble
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.tokens import good_tokens, keep_first_token

EmptyFaults = Faults.none()


def connection(world: Simulation, *, shared: bool = True) -> SimulatedDatabase:
    return SimulatedDatabase(world.disk, world.trouble, shared=shared)


async def opened(world: Simulation) -> SimulatedDatabase:
    database = connection(world)
    await database.open()
    return database


def run(main: Callable[[Simulation], Any], faults: Faults = EmptyFaults, seed: int = 0) -> Simulation:
    with Simulation(seed, faults) as world:
        world.run(main(world), within=600)
        return world


def store() -> Script[bool]:
    return keep_first_token("a digest", 1)


def stored(world: Simulation) -> int:
    [[count]] = world.disk.look("SELECT count(*) FROM token")
    return int(count)


def test_what_one_server_commits_all_servers_read() -> None:
    async def main(world: Simulation) -> None:
        first, second = await opened(world), await opened(world)
        assert await first.write(store())
        assert list(await second.read(good_tokens())) == ["a digest"]

    run(main)


def test_the_outcome_of_an_unknown_commit_is_sometimes_stored_and_sometimes_not() -> None:
    found = []

    async def main(world: Simulation) -> None:
        database = await opened(world)
        with pytest.raises(DatabaseTrouble) as trouble:
            await database.write(store())
        assert trouble.value.unknown
        found.append(stored(world))

    for seed in range(20):
        run(main, Faults(unknown=1), seed)
    assert set(found) == {0, 1}


@pytest.mark.parametrize(
    "faults", [Faults(busy=1), Faults(read_only=1), Faults(disk_full=1), Faults(connection_lost=1), Faults(outage=1)]
)
def test_of_a_transaction_that_failed_nothing_is_stored(faults: Faults) -> None:
    async def main(world: Simulation) -> None:
        database = await opened(world)
        with pytest.raises(DatabaseTrouble) as trouble:
            await database.write(store())
        assert (trouble.value.unknown, stored(world)) == (False, 0)
        world.trouble.calm()
        await asyncio.sleep(60)
        assert await database.write(store())

    run(main, faults)


def test_a_transaction_that_breaks_in_the_middle_leaves_no_half() -> None:
    failed = 0

    async def main(world: Simulation) -> None:
        nonlocal failed
        database = await opened(world)
        try:
            await database.write(store())
        except DatabaseTrouble:
            failed += 1
            assert stored(world) == 0
        else:
            assert stored(world) == 1

    for seed in range(20):
        run(main, Faults(broken=1), seed)
    assert 0 < failed < 20


def test_a_database_that_takes_no_writes_can_be_read() -> None:
    async def main(world: Simulation) -> None:
        database = await opened(world)
        world.disk.refuse_writes(10)
        with pytest.raises(DatabaseTrouble):
            await database.write(store())
        assert not await database.read(good_tokens())
        await asyncio.sleep(10)
        assert await database.write(store())

    run(main)


def test_a_database_that_is_away_comes_back() -> None:
    async def main(world: Simulation) -> None:
        database = await opened(world)
        world.disk.go_away(10)
        with pytest.raises(DatabaseTrouble):
            await database.read(good_tokens())
        await asyncio.sleep(10)
        assert not await database.read(good_tokens())

    run(main)


def test_a_broken_constraint_is_a_clash() -> None:
    async def main(world: Simulation) -> None:
        database = await opened(world)

        def script() -> Script[None]:
            world.disk.connection.execute("INSERT INTO token (digest, tenant) VALUES (NULL, NULL)")
            yield from ()

        with pytest.raises(Clash):
            await database.write(script())

    run(main)


def test_a_message_reaches_all_servers_but_the_one_that_sent_it() -> None:
    heard: list[str] = []

    def hear(name: str, said: str) -> None:
        heard.append(name + said)

    async def main(world: Simulation) -> None:
        databases = {}
        for name in "abc":
            process = world.process(name)
            databases[name] = await process.call(opened(world))
            await process.call(databases[name].listen(functools.partial(hear, name)))
        world.kill("c")
        await world.processes["a"].call(databases["a"].notify("!"))
        await asyncio.sleep(1)

    run(main)
    assert heard == ["b!"]


def test_after_the_database_was_away_nothing_is_heard_until_one_listens_again() -> None:
    heard: list[str] = []

    async def main(world: Simulation) -> None:
        listening = world.process("a")
        database = await listening.call(opened(world))
        await listening.call(database.listen(heard.append))
        other = await opened(world)
        world.disk.go_away(1)
        await asyncio.sleep(2)
        await other.notify("lost")
        await asyncio.sleep(1)
        await listening.call(database.listen(heard.append))
        await other.notify("heard")
        await asyncio.sleep(1)

    run(main)
    assert heard == ["heard"]


def test_messages_are_lost_and_overtake_each_other() -> None:
    heard: list[str] = []

    async def main(world: Simulation) -> None:
        listening = world.process("a")
        database = await listening.call(opened(world))
        await listening.call(database.listen(heard.append))
        other = await opened(world)
        for n in range(40):
            await other.notify(f"{n:02d}")
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)

    run(main, Faults(message_lost=0.3, message_late=0.3))
    assert 10 < len(heard) < 40
    assert heard != sorted(heard)


def test_a_database_of_ones_own_has_nobody_to_tell() -> None:
    heard: list[str] = []

    async def main(world: Simulation) -> None:
        database = connection(world, shared=False)
        await database.open()
        await database.listen(heard.append)
        await (await opened(world)).notify("!")
        await asyncio.sleep(1)

    run(main)
    assert heard == []


def test_the_database_has_a_clock_of_its_own() -> None:
    async def main(world: Simulation) -> None:
        database = await opened(world)
        before = await database.read(database_now())
        world.clock.jump(3_600)
        await asyncio.sleep(10)
        assert 10_000 <= await database.read(database_now()) - before < 10_100
        assert world.clock.now_ms() - before > 3_600_000

    run(main)


def test_every_commit_is_told_to_who_checks_it() -> None:
    told: list[tuple[str, int]] = []

    async def main(world: Simulation) -> None:
        world.disk.on_commit = lambda who: told.append((who, stored(world)))
        process = world.process("a")
        database = await process.call(opened(world))
        await process.call(database.write(store()))
        await process.call(database.read(good_tokens()))
        await process.call(database.write(store()))  # changes nothing

    run(main)
    assert told == [("a", 1)]


def test_a_process_killed_in_the_middle_of_a_commit_has_stored_all_or_nothing_and_knows_of_neither() -> None:
    outcomes = set()
    for step in range(1, 12):
        answered: list[bool] = []

        async def write(world: Simulation, answered: list[bool]) -> None:
            database = await opened(world)
            answered.append(await database.write(store()))

        with Simulation() as world:
            process = world.process("a")
            process.kill_at = step
            process.spawn(write(world, answered))
            world.run(asyncio.sleep(10))
            outcomes.add((stored(world), bool(answered)))
    assert outcomes == {(0, False), (1, False), (1, True)}

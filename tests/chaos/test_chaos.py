"""Short chaos runs for every day: everything that can break does so once, and no promise does."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.chaos import client
from tests.chaos.client import Order
from tests.chaos.faults import Fault, Kind, Struck, each_once, menus, strike
from tests.chaos.play import Played, play
from tests.chaos.report import report
from tests.chaos.stage import LEASE, Stage, set_stage
from tests.support.postgres import Cluster, running_cluster
from tests.support.stands import UNHURRIED

pytestmark = pytest.mark.anyio

RATE: Final = 15.0
BOUND: Final = 120.0
"""Seconds in which everything has to end; far more than it takes, as nothing here is to fail for want of a CPU."""
TAKEOVER: Final = LEASE + 90
"""The same for another server to take the lanes."""
POLL: Final = 0.1


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL that only this test uses, to be killed."""
    with running_cluster() as cluster:
        yield cluster


async def test_no_promise_is_broken_when_servers_workers_and_postgresql_fail(
    tmp_path: Path, own_cluster: Cluster
) -> None:
    async with set_stage(tmp_path, own_cluster, "postgres") as stage:
        await nothing_breaks(stage, seed=1, but={Kind.WORKER_VANISHED, Kind.SERVERS_ROLLED})


async def test_no_promise_is_broken_when_the_only_server_and_its_workers_fail(tmp_path: Path) -> None:
    async with set_stage(tmp_path, None, "hurlbat.db") as stage:
        await nothing_breaks(stage, seed=2, but={Kind.WORKER_VANISHED})


async def test_no_run_fails_while_three_servers_under_load_are_replaced_one_after_the_other(
    tmp_path: Path, postgres_cluster: Cluster
) -> None:
    with postgres_cluster.database() as name:
        async with set_stage(tmp_path, postgres_cluster, name, settings=UNHURRIED) as stage:

            async def roll() -> list[Struck]:
                return [await strike(stage, Fault(Kind.SERVERS_ROLLED, 0, 0.0))]

            played = await calmly(stage, roll, seed=3)

            assert {run.state for run in played.history.runs} == {"completed"}
            assert {run.tries for run in played.history.runs} == {1}
            assert len(stage.past) == len(stage.servers)


async def test_others_take_over_from_an_owner_that_is_killed_or_stands_still_and_it_does_no_harm_when_it_wakes(
    tmp_path: Path, postgres_cluster: Cluster
) -> None:
    with postgres_cluster.database() as name:
        async with set_stage(tmp_path, postgres_cluster, name) as stage:

            async def trouble() -> list[Struck]:
                place, began = await owner(stage), time.time()
                stage.servers[place].signal(signal.SIGSTOP)
                await taken_over(stage, place)
                stage.servers[place].signal(signal.SIGCONT)
                stood = Struck(Fault(Kind.SERVER_PAUSED, place, time.time() - began), began, time.time())

                place, began = await owner(stage), time.time()
                await stage.end_server(place)
                await taken_over(stage, place)
                await stage.start_server(place)
                return [stood, Struck(Fault(Kind.SERVER_KILLED, place, time.time() - began), began, time.time())]

            await calmly(stage, trouble, seed=4)


async def nothing_breaks(stage: Stage, seed: int, but: set[Kind]) -> None:
    """Let everything happen that can, but for some kinds."""
    played = await play(stage, lambda: each_once(stage, seed, but), seed=seed, rate=RATE, bound=BOUND)

    found = report(played, "a database of its own", seed)
    print(found)
    assert found.violations == []
    assert found.lost == 0
    assert found.acknowledged > 0
    possible = {kind for menu in menus(stage) for kind in menu}
    assert {one.fault.kind for one in played.struck} == possible - but


async def calmly(stage: Stage, make_trouble: Callable[[], Awaitable[list[Struck]]], seed: int) -> Played:
    """Submit what cannot fail by itself while one thing happens; no promise is broken."""
    played = await play(stage, make_trouble, seed=seed, rate=RATE, bound=BOUND, orders=harmless)

    found = report(played, "PostgreSQL", seed)
    print(found)
    assert found.violations == []
    assert found.acknowledged > 0
    return played


def harmless(seed: int, number: int) -> Order:
    """Return what to ask for where nothing is to stumble, to be cancelled or to be replayed."""
    wanted = client.order(seed, number)
    return Order(number, "work", min(wanted.seconds, 0.5), keyed=wanted.keyed, delay=wanted.delay)


async def owner(stage: Stage) -> int:
    """Return the place of the server that owns the lanes, when one does."""
    found: list[int] = []

    async def known() -> bool:
        place = await stage.owner()
        found.extend(() if place is None else (place,))
        return bool(found)

    await until(known, "owner")
    return found[0]


async def taken_over(stage: Stage, place: int) -> None:
    """Wait until another server owns the lanes, and has started something."""
    began = time.monotonic()

    async def owned_by_another() -> bool:
        return await stage.owner() not in (place, None)

    await until(owned_by_another, "other owner")
    print(f"taken over after {time.monotonic() - began:.1f} s")
    now = time.time()

    async def started_something() -> bool:
        return any(one.begun > now for one in stage.executions())

    await until(started_something, "start by another owner")


async def until(true: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + TAKEOVER
    while not await true():
        assert time.monotonic() < deadline, f"no {what} within {TAKEOVER:g} s"
        await asyncio.sleep(POLL)

"""Room for connections: never more than there may be, nobody keeps the others out, and none gets lost."""

import asyncio
import random
from collections import Counter

import pytest

from hurlbat_dispatcher.push.room import Room

pytestmark = pytest.mark.anyio


async def settled() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_one_has_half_of_it_at_most() -> None:
    room = Room(6)
    greedy = [asyncio.create_task(room.enter("greedy")) for _ in range(6)]
    await settled()
    assert sum(task.done() for task in greedy) == 3
    async with asyncio.timeout(60):
        for _ in range(3):
            await room.enter("other")
    room.leave("greedy")
    await settled()
    assert sum(task.done() for task in greedy) == 4
    for task in greedy:
        task.cancel()


async def test_who_has_fewest_gets_the_next_and_each_waits_in_line() -> None:
    room = Room(4)
    came: list[str] = []

    async def enter(name: str, mark: str) -> None:
        await room.enter(name)
        came.append(mark)

    for name in ("a", "a", "b", "b"):
        await room.enter(name)
    waiting = [asyncio.create_task(enter(mark[0], mark)) for mark in ("b1", "b2", "c1", "d1")]
    await settled()
    assert came == []
    for name in ("b", "b", "a", "a"):
        room.leave(name)
        await settled()
    assert came == ["c1", "b1", "d1", "b2"]
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("seed", range(20))
async def test_whoever_gives_up_leaves_the_room_as_it_was(seed: int) -> None:
    chance = random.Random(seed)
    room = Room(5)
    held: Counter[str] = Counter()
    most = 0

    async def visit(name: str) -> None:
        nonlocal most
        await room.enter(name)
        held[name] += 1
        most = max(most, held.total())
        assert held.total() <= 5
        assert held[name] <= 2
        try:
            await asyncio.sleep(0)
        finally:
            held[name] -= 1
            room.leave(name)

    visits: list[asyncio.Task[None]] = []
    for _ in range(300):
        visits.append(asyncio.create_task(visit(chance.choice("abcd"))))
        if chance.random() < 0.4:
            chance.choice(visits).cancel()
        if chance.random() < 0.4:
            await asyncio.sleep(0)
    async with asyncio.timeout(60):
        await asyncio.gather(*visits, return_exceptions=True)
    assert most == 5
    assert [task.exception() for task in visits if not task.cancelled()] == [None] * sum(
        not task.cancelled() for task in visits
    )
    async with asyncio.timeout(60):
        for name in ("a", "a", "b", "b", "c"):
            await room.enter(name)

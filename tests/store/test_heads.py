"""The heads of many lanes are read at once, each in the order of its start."""

import pytest

from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.heads import Beyond, HeadRow, heads
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import insert, new_run

pytestmark = pytest.mark.anyio


def run_id(n: int) -> str:
    return f"0199a3c0-0000-7000-8000-{n:012x}"


@pytest.fixture
async def lanes(store: Database) -> Database:
    """Lane 1 has five runs that wait, inserted against their order; lane 2 has one; the others are no heads."""
    ranked = [new_run(run_id(n), rank=-(n // 2), started_at=n or None, joined_at=70 + n) for n in range(5)]
    others = [new_run(run_id(10), ready=0), new_run(run_id(11), state="completed"), new_run(run_id(12), lane=3)]
    await store.write(insert(*ranked, new_run(run_id(9), lane=2, rank=4, priority=1), *others))
    return store


def read(places: list[Beyond], most: int) -> Script[list[HeadRow]]:
    rows = yield heads(places, most)
    return [HeadRow._make(row) for row in rows]


def order(rows: list[HeadRow]) -> list[tuple[int, int]]:
    return [(row.place, int(row.id[-4:], 16)) for row in rows]


async def test_of_each_place_the_next_are_read_by_rank_and_id(lanes: Database) -> None:
    rows = await lanes.read(read([Beyond(2), Beyond(4), Beyond(1)], 3))
    assert order(rows) == [(0, 9), (2, 4), (2, 2), (2, 3)]
    assert rows[0][1:] == (4, run_id(9), 1, 1, None)
    assert rows[2] == HeadRow(2, -1, run_id(2), 2, 72, 2)


async def test_what_is_beyond_a_place_is_read_on(lanes: Database) -> None:
    rows = await lanes.read(read([Beyond(1, -1, run_id(2)), Beyond(1, 0, run_id(1))], 10))
    assert order(rows) == [(0, 3), (0, 0), (0, 1)]


async def test_nothing_is_read_where_nothing_is_asked(lanes: Database) -> None:
    assert await lanes.read(read([], 10)) == []

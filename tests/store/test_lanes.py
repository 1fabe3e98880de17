"""Lanes are made once, whoever submits first, and go when no run refers to them."""

import pytest

from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.lanes import FORGET_LANES
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import ask, tell

pytestmark = pytest.mark.anyio

DAY = 86_400_000
NOW = 1_900_000_000_000


def forget(before: int) -> Script[None]:
    yield FORGET_LANES.write([(before,)])


async def lanes(store: Database) -> list[int]:
    return [row[0] for row in await store.read(ask("SELECT id FROM lane ORDER BY id"))]


async def test_a_lane_goes_that_is_older_than_every_run(store: Database) -> None:
    for number, used_at in ((1, NOW - 9 * DAY), (2, NOW - 3 * DAY), (3, NOW - 1000)):
        await store.write(
            tell(
                "INSERT INTO lane (id, tenant, task, draws, digest, used_at) "
                f"VALUES ({number}, 1, 't', '{{}}', 'd{number}', {used_at})"
            )
        )
    await store.write(
        tell(
            "INSERT INTO run (tenant, id, kind, task, task_version, lane, state, ready, attempt, tries, max_attempts, "
            f"priority, rank, created_at, due_at, input, metadata) VALUES (1, '01800000-0000-7000-8000-000000000000', "
            f"'task', 't', 1, 2, 'completed', 1, 0, 0, 1, 2, 0, {NOW - 3 * DAY}, {NOW}, 'null', '{{}}')"
        )
    )
    await store.write(forget(NOW - 2 * DAY))
    assert await lanes(store) == [2, 3]
    await store.write(tell("DELETE FROM run"))
    await store.write(forget(NOW - 2 * DAY))
    assert await lanes(store) == [3]

"""Which runs a filter means is found by indexes, a slice at a time, and is what the filter says."""

from collections.abc import Generator
from dataclasses import replace
from itertools import product

import pytest
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.bulk import RunFilter
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.store import bulk
from hurlbat_dispatcher.store.bulk import ALL, FIRST_ID, Bounds
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.statement import Prepared, Script, Statement
from hurlbat_dispatcher.store.views import LAST_ID
from tests.store.rows import insert, new_run, tell

pytestmark = pytest.mark.anyio

NOW = 1_763_787_600_000
STATES = [RunState.QUEUED, RunState.RUNNING, RunState.FAILED, RunState.COMPLETED]


def id_of(n: int) -> str:
    return f"{NOW + n >> 16:08x}-{NOW + n & 0xFFFF:04x}-7000-8000-{n:012x}"


def rows() -> Generator[tuple[str, str, RunState, int], None, None]:
    """Ids, tasks, states and times of runs, two of them in each millisecond."""
    for n in range(40):
        yield id_of(n), f"t{n % 2}", STATES[n // 2 % 4], NOW + n // 2


async def fill(store: Database) -> None:
    await store.write(
        insert(
            *(
                new_run(run_id, task=task, state=state, created_at=at, worker="w", sender="s", ready=0)
                for run_id, task, state, at in rows()
            )
        )
    )
    await store.write(tell("UPDATE run SET finished_at = created_at + 5 WHERE state IN ('failed', 'completed')"))


async def all_of(store: Database, wanted: RunFilter, bounds: Bounds, most: int) -> list[str]:
    found: list[str] = []
    after: str | None = FIRST_ID
    while after is not None:
        looked = await store.read(bulk.matching(1, wanted, bounds, after, most))
        found += looked.ids
        after = looked.until
    return found


async def test_slices_of_any_size_find_what_the_filter_says_each_once_and_in_order(store: Database) -> None:
    await fill(store)
    named = tuple(id_of(n) for n in (3, 1, 20, 39, 77))
    filters = product((None, "t1"), (STATES, STATES[:2], STATES[2:3]), (None, NOW + 4), (None, NOW + 11), (None, named))
    for n, (task, states, after, before, ids) in enumerate(filters):
        wanted = RunFilter(task, tuple(states), after, before, None if ids is None else tuple(sorted(ids)))
        bounds = (ALL, Bounds(NOW + 12, id_of(25)))[n % 2]
        expected = [
            run_id
            for run_id, its_task, state, at in rows()
            if task in (None, its_task)
            and state in states
            and (after is None or at >= after)
            and (before is None or at < before)
            and (ids is None or run_id in ids)
            and (at, run_id) < bounds
            and (state in STATES[:2] or at + 5 <= bounds.at)
        ]

        assert await all_of(store, wanted, bounds, 1 + n % 7) == expected, wanted


async def test_what_was_created_long_before_or_after_a_window_is_not_looked_at(store: Database) -> None:
    await fill(store)
    day = 86_400_000
    wanted = RunFilter(states=tuple(STATES), created_after=NOW + 2 * day)
    assert await store.read(bulk.matching(1, wanted, ALL, FIRST_ID, 1)) == ([], None)
    wanted = RunFilter(states=tuple(STATES), created_before=NOW - 2 * day)
    assert await store.read(bulk.matching(1, wanted, ALL, FIRST_ID, 1)) == ([], None)


class _Explained(Statement):
    def __init__(self, statement: Statement, words: str) -> None:
        super().__init__(statement.clause, statement.names)
        self._of, self._words = statement, words

    def prepared(self, dialect: Dialect) -> Prepared:
        prepared = self._of.prepared(dialect)
        return replace(prepared, sql=f"{self._words} {prepared.sql}")


def explained(state: RunState, by_task: bool, words: str) -> Script[list[tuple[object, ...]]]:
    """Return how the next slice is read."""
    more = ("echo",) if by_task else ()
    given = (1, FIRST_ID, LAST_ID, 0, 1 << 62, 1 << 62, LAST_ID, 100, *more)
    found = yield _Explained(bulk.slice_of(state, by_task), words).fetch(*given)
    return [tuple(row) for row in found]


async def test_a_slice_is_read_from_an_index_and_nothing_is_sorted(sqlite_url: str) -> None:
    opened = database(sqlite_url, SystemClock())
    await opened.open()
    await opened.migrate()
    plans = {
        (state, by_task): [str(row[3]) for row in await opened.read(explained(state, by_task, "EXPLAIN QUERY PLAN"))]
        for state in RunState
        for by_task in (False, True)
    }
    await opened.close()
    for (state, by_task), plan in plans.items():
        if state is RunState.RUNNING:  # there are never more of these than slots
            assert plan == ["SCAN run USING INDEX run_running", "USE TEMP B-TREE FOR ORDER BY"]
            continue
        own = {RunState.QUEUED: "run_queued", RunState.COMPLETED: "run_task" if by_task else "sqlite_autoindex_run_1"}
        index = own.get(state, "run_unhappy")
        more = "state=? AND " if index == "run_unhappy" else "task=? AND " if index == "run_task" else ""
        assert plan == [f"SEARCH run USING INDEX {index} (tenant=? AND {more}id>? AND id<?)"]


async def test_so_does_postgresql(postgres_url: str) -> None:
    shared = database(postgres_url, SystemClock())
    await shared.open()
    await shared.migrate()
    ended = [new_run(id_of(n), state="completed", ready=0, task=f"t{n % 9}") for n in range(5_000)]
    few = [new_run(id_of(n), state="failed", ready=0) for n in range(5_000, 5_020)]
    await shared.write(insert(*ended, *few))
    await shared.write(tell("ANALYZE run"))
    plans = {
        (state, by_task): "\n".join(str(row[0]) for row in await shared.read(explained(state, by_task, "EXPLAIN")))
        for state in (RunState.QUEUED, RunState.FAILED)
        for by_task in (False, True)
    }
    await shared.close()
    for (state, _), plan in plans.items():
        assert ("run_unhappy" if state is RunState.FAILED else "run_queued") in plan, plan

"""No statement of a turn reads a table from end to end."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store import (
    events,
    gathering,
    graphs,
    heads,
    kin,
    leases,
    publishing,
    retention,
    runs,
    views,
    workflows,
)
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.statement import Prepared, Script, Statement
from tests.store.plans import plan_of
from tests.store.rows import insert, new_run, tell

pytestmark = pytest.mark.anyio

ONES = {
    "LOAD": (runs.LOAD, "sqlite_autoindex_run_1"),
    "PAYLOADS": (runs.PAYLOADS, "run_queued"),
    "HEADS": (heads.HEADS, "run_waiting"),
    "DUE": (runs.DUE, "run_delayed"),
    "LEASE_OVER": (runs.LEASE_OVER, "run_leased"),
    "EXPIRED": (runs.EXPIRED, "run_expiring"),
    "HOLD_OVER": (runs.HOLD_OVER, "run_held"),
    "ORPHANED": (runs.ORPHANED, "run_running"),
    "CONNECTED": (runs.CONNECTED, "run_running"),
    "IN_FLIGHT": (runs.IN_FLIGHT, "run_running"),
    "IN_HOLD": (runs.IN_HOLD, "run_held"),
    "KEYS": (runs.KEYS, "sqlite_autoindex_idempotency_1"),
    "COUNT_ROWS": (runs.COUNT_ROWS, "timeline_run"),
    "ONE": (views.ONE, "sqlite_autoindex_run_1"),
    "ONE_SENT": (views.ONE_SENT, "sqlite_autoindex_run_1"),
    "MANY": (views.MANY, "sqlite_autoindex_run_1"),
    "MARKS": (views.MARKS, "sqlite_autoindex_run_1"),
    "TIMELINES": (views.TIMELINES, "timeline_run"),
    "TIMELINE": (views.TIMELINE, "timeline_run"),
    "FENCE": (leases.FENCE, "PRIMARY KEY"),
    "OLD": (retention.OLD, "sqlite_autoindex_run_1 (tenant=? AND id>? AND id<?"),
    "EDGE": (retention.EDGE, "COVERING INDEX sqlite_autoindex_run_1 (tenant=? AND id>? AND id<?"),
    "STILL_OLD": (retention._STILL_OLD, "sqlite_autoindex_run_1 (tenant=? AND id=?"),
    "START": (runs.START, "sqlite_autoindex_run_1"),
    "END": (runs.END, "sqlite_autoindex_run_1"),
    "PUT_BACK": (runs.PUT_BACK, "sqlite_autoindex_run_1"),
    "REPLAY": (runs.REPLAY, "sqlite_autoindex_run_1"),
    "LEASE": (runs.LEASE, "sqlite_autoindex_run_1"),
    "RELEASE": (runs.RELEASE, "sqlite_autoindex_run_1"),
    "MARK_READY": (runs.MARK_READY, "sqlite_autoindex_run_1"),
    "END_KEY": (runs.END_KEY, "idempotency_run"),
    "DROP_KEY": (runs.DROP_KEY, "sqlite_autoindex_idempotency_1"),
    "OPEN": (gathering.OPEN, "sqlite_autoindex_gathering_1"),
    "GO_ON": (gathering.GO_ON, "sqlite_autoindex_gathering_1"),
    "OVER": (gathering.OVER, "gathering_until"),
    "FORGET": (gathering.FORGET, "sqlite_autoindex_gathering_1"),
    "REPLACE": (gathering.REPLACE, "sqlite_autoindex_run_1"),
    "APPEND": (gathering.APPEND, "sqlite_autoindex_run_1"),
    "TAKE_KEY": (gathering.TAKE_KEY, "sqlite_autoindex_run_1"),
    "KNOWN": (publishing.KNOWN, "sqlite_autoindex_event_1"),
    "EVENTS": (events.EVENTS, "sqlite_autoindex_event_1"),
    "STARTS": (events.STARTS, "sqlite_autoindex_event_start_1"),
    "OLD_EVENTS": (retention.OLD_EVENTS, "event_time"),
    "OVER_KEYS": (retention.OVER_KEYS, "idempotency_until"),
    "NODES_OF": (retention.NODES_OF, "run_parent (tenant=? AND parent=?"),
    "OLD_SHAPES": (retention.OLD_SHAPES, "run_task (tenant=? AND task=?"),
    "DELETE_SHAPE": (retention._DELETE_SHAPE, "sqlite_autoindex_shape_1 (tenant=? AND task=? AND version=?"),
    "KEYS_OF_CHILDREN": (retention.DROP_CHILD_KEYS, "idempotency_child (tenant=? AND run=?"),
    "PARENTS": (kin.PARENTS, "sqlite_autoindex_run_1 (tenant=? AND id=?"),
    "WAITING_NODES": (kin.WAITING_NODES, "run_node (tenant=? AND parent=?"),
    "SHOWN_NODES": (workflows.NODES, "run_node (tenant=? AND parent=?"),
    "COUNTED_CHILDREN": (workflows.CHILDREN, "run_parent (tenant=? AND parent=?"),
    "GRAPH": (workflows.GRAPH, "sqlite_autoindex_run_1"),
    **{
        f"OPEN_{n}": (statement, index)
        for n, (statement, index) in enumerate(
            zip(workflows.OPEN_RUNS[True], ("run_queued", "run_running", "run_unhappy"), strict=True)
        )
    },
    "FILTERS_OF": (events.FILTERS_OF, "sqlite_autoindex_event_filter_1"),
    "NODES": (graphs.NODES, "run_node (tenant=? AND parent=?"),
    "CHILDREN": (graphs.CHILDREN, "run_parent (tenant=? AND parent=?"),
    "OUTPUTS": (graphs.OUTPUTS, "sqlite_autoindex_run_1"),
    "WAITS": (graphs.WAITS, "sqlite_autoindex_wait_1 (tenant=? AND run=?"),
    "AWAITED_ANYWHERE": (graphs.AWAITED_ANYWHERE, "wait_event (tenant=? AND key=? AND scope=?"),
    "AWAITED_IN": (graphs.AWAITED_IN, "wait_event (tenant=? AND key=? AND scope=?"),
    "WAITS_DUE": (graphs.DUE, "wait_due (due_at>? AND due_at<?"),
    "NEXT_WAIT": (graphs.NEXT_DUE, "wait_due"),
    "MEET": (graphs.MEET, "sqlite_autoindex_wait_1 (tenant=? AND run=? AND action=? AND clause=? AND place=?"),
    "FORGET_WAITS": (graphs.FORGET_WAITS, "sqlite_autoindex_wait_1 (tenant=? AND run=?"),
}


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Database]:
    opened = database(sqlite_url, SystemClock())
    await opened.open()
    await opened.migrate()
    await opened.write(insert(*(new_run(f"0199a3c0-0000-7000-8000-{n:012x}") for n in range(300))))
    yield opened
    await opened.close()


@pytest.mark.parametrize("name", ONES)
async def test_a_statement_uses_its_index(store: Database, name: str) -> None:
    statement, index = ONES[name]
    plan = await plan_of(store, statement)
    run_steps = [step for step in plan if step.startswith(("SCAN", "SEARCH")) and "VIRTUAL TABLE" not in step]
    assert any(index in step for step in run_steps), plan
    allowed = (f"SCAN run USING INDEX {index}", f"SCAN run USING COVERING INDEX {index}")
    assert [step for step in run_steps if step.startswith("SCAN") and not step.startswith(allowed)] == []


async def test_a_line_of_ancestors_is_followed_by_the_ids_of_runs(store: Database) -> None:
    plan = await plan_of(store, kin.LINE)
    assert [step for step in plan if " run " in step] == [
        "SEARCH run USING INDEX sqlite_autoindex_run_1 (tenant=? AND id=?)"
    ] * 2
    assert not [step for step in plan if step.startswith("SCAN") and step != "SCAN line"]


async def test_the_next_moment_is_read_from_the_ends_of_four_indexes(store: Database) -> None:
    plan = await plan_of(store, runs.NEXT_MOMENT)
    searches = [step for step in plan if "run" in step and step.startswith(("SEARCH", "SCAN"))]
    assert sorted(step.split("INDEX ")[1].split(" ")[0] for step in searches) == [
        "run_delayed",
        "run_expiring",
        "run_held",
        "run_leased",
    ]


async def test_postgresql_reads_no_more_of_a_lane_than_its_heads(postgres_url: str) -> None:
    shared = database(postgres_url, SystemClock())
    await shared.open()
    await shared.migrate()
    ids = [f"0199a3c0-0000-7000-8000-{n:012x}" for n in range(5_000)]
    await shared.write(insert(*(new_run(run_id, lane=1 + n // 4_999) for n, run_id in enumerate(ids))))
    await shared.write(tell("ANALYZE run"))

    class Explained(Statement):
        def prepared(self, dialect: Dialect) -> Prepared:
            prepared = heads.HEADS.prepared(dialect)
            return replace(prepared, sql=f"EXPLAIN (ANALYZE, TIMING OFF) {prepared.sql}")

    def script() -> Script[str]:
        asked = heads.heads([heads.Beyond(1), heads.Beyond(2)], 8)
        rows = yield Explained(heads.HEADS.clause, heads.HEADS.names).fetch(*asked.values)
        return "\n".join(row[0] for row in rows)

    plan = await shared.read(script())
    await shared.close()
    (step,) = [line for line in plan.splitlines() if " on run" in line]
    assert "Index Scan using run_waiting" in step, plan
    assert "rows=4 loops=2" in step or "rows=5 loops=2" in step, plan  # 8 of one and 1 of the other, on average

"""No statement of a turn, and no page, reads a table from end to end."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.lifecycle import RunState
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
from tests.store.rows import FIRST, insert, new_run, tell

pytestmark = pytest.mark.anyio

VALUES = {
    "ids": [FIRST],
    "parents": [FIRST],
    "runs": [FIRST],
    "tasks": ["echo"],
    "keys": ["k"],
    "id": FIRST,
    "before": views.LAST_ID,
    "run": FIRST,
    "me": FIRST,
    "task": "echo",
    "state": "failed",
    "key": "k",
    "b_id": FIRST,
    "places": heads.heads([heads.Beyond(1)], 1).values[0],
}
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


async def plan_of(store: Database, statement: Statement) -> list[str]:
    explained = _Explained(statement)

    def script() -> Script[list[str]]:
        rows = yield explained.fetch(*(VALUES.get(name, 1) for name in statement.names))
        return [row[3] for row in rows]

    return await store.read(script())


class _Explained(Statement):
    """A statement that is explained instead of executed."""

    def __init__(self, statement: Statement) -> None:
        super().__init__(statement.clause, statement.names)
        self._of = statement

    def prepared(self, dialect: Dialect) -> Prepared:
        prepared = self._of.prepared(dialect)
        return replace(prepared, sql=f"EXPLAIN QUERY PLAN {prepared.sql}")


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


def _wanted(by_task: bool, state: RunState | None = None, **more: Any) -> views.Wanted:
    return views.Wanted("echo" if by_task else None, state, **more)


@pytest.mark.parametrize("state", [None, *RunState])
@pytest.mark.parametrize("by_task", [False, True])
async def test_a_page_walks_an_index_backwards_and_sorts_nothing(
    store: Database, by_task: bool, state: RunState | None
) -> None:
    plan = await plan_of(store, views._page_of(_wanted(by_task, state)))
    if state is RunState.RUNNING:  # there are never more of these than slots
        assert plan == ["SCAN run USING INDEX run_running", "USE TEMP B-TREE FOR ORDER BY"]
    else:
        assert [step.partition(" USING ")[0] for step in plan] == ["SEARCH run"], plan


@pytest.mark.parametrize(("state", "index"), [(RunState.QUEUED, "run_queued"), (RunState.RUNNING, "run_running")])
@pytest.mark.parametrize("by_task", [False, True])
async def test_a_page_of_what_has_not_ended_looks_at_nothing_else(
    store: Database, by_task: bool, state: RunState, index: str
) -> None:
    plan = await plan_of(store, views._page_of(_wanted(by_task, state)))
    assert [step.split(" INDEX ")[1].split(" ")[0] for step in plan if " INDEX " in step] == [index], plan


@pytest.mark.parametrize(
    ("wanted", "indexes"),
    [
        ((False, False), {"event_time"}),
        ((True, False), {"event_key"}),
        ((False, True), {"event_scope"}),
        ((True, True), {"event_key", "event_scope"}),
    ],
)
async def test_a_page_of_events_walks_an_index_backwards_and_sorts_nothing(
    store: Database, wanted: tuple[bool, bool], indexes: set[str]
) -> None:
    [step] = await plan_of(store, events.PAGES[wanted])
    assert step.startswith("SEARCH event USING INDEX"), step
    assert step.split(" INDEX ")[1].split(" ")[0] in indexes, step
    assert "(created_at,id)<(?,?)" in step.replace(" ", ""), step


@pytest.mark.parametrize("since", [None, 1])
@pytest.mark.parametrize("by_task", [False, True])
async def test_a_page_of_what_waits_for_its_time_looks_at_nothing_else(
    store: Database, by_task: bool, since: int | None
) -> None:
    [step] = await plan_of(store, views._page_of(_wanted(by_task, delayed=True, since=since)))
    assert step.startswith("SEARCH run USING INDEX run_later (tenant=? AND id"), step


@pytest.mark.parametrize("state", [None, *RunState])
@pytest.mark.parametrize("by_task", [False, True])
async def test_a_page_of_a_while_looks_only_at_the_ids_of_that_while(
    store: Database, by_task: bool, state: RunState | None
) -> None:
    plan = await plan_of(store, views._page_of(_wanted(by_task, state, since=1)))
    if state is RunState.RUNNING:  # there are never more of these than slots
        assert plan == ["SCAN run USING INDEX run_running", "USE TEMP B-TREE FOR ORDER BY"]
    else:
        [step] = plan
        assert "id>? AND id<?)" in step, step


@pytest.mark.parametrize("state", [None, RunState.RUNNING, RunState.FAILED, RunState.COMPLETED])
@pytest.mark.parametrize("by_task", [False, True])
@pytest.mark.parametrize("kind", [None, "task", "node"])
@pytest.mark.parametrize(("whose", "index"), [("parent", "run_parent"), ("root", "run_root")])
async def test_a_page_of_what_belongs_to_a_run_looks_at_nothing_else(
    store: Database, whose: str, index: str, kind: str | None, by_task: bool, state: RunState | None
) -> None:
    wanted = _wanted(by_task, state, kind=kind, **{whose: FIRST})
    [step] = await plan_of(store, views._page_of(wanted))
    assert step == f"SEARCH run USING INDEX {index} (tenant=? AND {whose}=? AND id<?)"


@pytest.mark.parametrize("kind", ["workflow", "node"])
async def test_a_page_of_workflows_or_nodes_looks_at_no_other_runs(store: Database, kind: str) -> None:
    [step] = await plan_of(store, views._page_of(_wanted(False, kind=kind)))
    assert step == "SEARCH run USING INDEX run_kind (tenant=? AND kind=? AND id<?)"


PAGES_ON_POSTGRESQL = {
    views.Wanted(parent=FIRST): "run_parent",
    views.Wanted("echo", "failed", root=FIRST): "run_root",
    views.Wanted(kind="workflow"): "run_kind",
    views.Wanted(delayed=True): "run_later",
    views.Wanted("echo", delayed=True): "run_later",
    views.Wanted(since=1): "run_pkey",
    views.Wanted("echo", since=1, until=2): "run_task",
    views.Wanted("echo", "completed", since=1): "run_task",
}


def _family(n: int, ids: list[str]) -> dict[str, Any]:
    """Let some runs be nodes of a few workflows, and the rest by themselves."""
    if n % 5:
        return {"kind": "workflow"} if n % 100 == 1 else {}
    whose = ids[n - n % 100 + 1]
    return {"kind": "node", "parent": whose, "root": whose, "node": f"n{n}"}


async def test_pages_are_found_by_an_index_on_postgresql_and_not_sorted(postgres_url: str) -> None:
    shared = database(postgres_url, SystemClock())
    await shared.open()
    await shared.migrate()
    ids = [f"0199a3c0-0000-7000-8000-{n:012x}" for n in range(6_000)]
    tasks = ["echo", *(f"other-{n}" for n in range(49))]
    rows = [
        *(
            new_run(run_id, task=tasks[n % 50], state="completed", **_family(n, ids))
            for n, run_id in enumerate(ids[:4_500])
        ),
        *(new_run(run_id, state="failed") for run_id in ids[4_500:5_000]),
        *(new_run(run_id) for run_id in ids[5_000:5_600]),
        *(new_run(run_id, ready=0, due_at=1 << 50) for run_id in ids[5_600:]),
    ]
    await shared.write(insert(*rows))
    await shared.write(tell("ANALYZE run"))

    def plan_of_page(wanted: views.Wanted) -> Script[str]:
        statement = views._page_of(wanted)
        values = VALUES | {"after": views.id_at(0), "since": 0, "until": 1 << 60, "most": 50, "state": wanted.state}
        values |= {"parent": ids[1], "root": ids[1], "kind": wanted.kind}

        class Explained(Statement):
            def prepared(self, dialect: Dialect) -> Prepared:
                prepared = statement.prepared(dialect)
                return replace(prepared, sql=f"EXPLAIN {prepared.sql}")

        rows = yield Explained(statement.clause, statement.names).fetch(
            *(values.get(name, 1) for name in statement.names)
        )
        return "\n".join(row[0] for row in rows)

    plans = {wanted: await shared.read(plan_of_page(wanted)) for wanted in PAGES_ON_POSTGRESQL}
    await shared.close()
    for wanted, index in PAGES_ON_POSTGRESQL.items():
        assert f"Index Scan Backward using {index}" in plans[wanted], plans[wanted]
        assert "Sort" not in plans[wanted], plans[wanted]


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


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
@pytest.mark.parametrize("by_task", [False, True])
async def test_so_does_postgresql_where_nearly_all_have_ended(
    postgres_url: str, by_task: bool, state: RunState
) -> None:
    shared = database(postgres_url, SystemClock())
    await shared.open()
    await shared.migrate()
    others = [new_run(f"0199a3c0-0000-7000-8000-{n:012x}", state="completed", ready=0) for n in range(5_000)]
    few = [new_run(f"0199a3c0-0000-7000-9000-{n:012x}", state=state, worker="w", sender=FIRST) for n in range(3)]
    await shared.write(insert(*few, *others))
    await shared.write(tell("ANALYZE run"))
    statement = views._page_of(_wanted(by_task, state))
    given = {"tenant": 1, "before": views.LAST_ID, "task": "echo", "most": 50}

    class Explained(Statement):
        def prepared(self, dialect: Dialect) -> Prepared:
            prepared = statement.prepared(dialect)
            return replace(prepared, sql=f"EXPLAIN {prepared.sql}")

    def script() -> Script[str]:
        rows = yield Explained(statement.clause, statement.names).fetch(*(given[name] for name in statement.names))
        return "\n".join(row[0] for row in rows)

    plan = await shared.read(script())
    await shared.close()
    assert f"run_{state}" in plan, plan
    if by_task and state is RunState.QUEUED:  # of the others no row is fetched, only their entries are passed by
        assert "task" in plan.partition("Index Cond:")[2].partition("\n")[0], plan

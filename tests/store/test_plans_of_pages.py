"""A page is found by an index, in its order, and none reads a table from end to end."""

import re
from collections.abc import AsyncIterator, Iterator
from itertools import product
from typing import Any

import pytest

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.store import events, listing, views
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.listing import Wanted, page_of
from tests.store.plans import plan_of, plan_on_postgresql
from tests.store.rows import FIRST, insert, new_run, tell

pytestmark = pytest.mark.anyio

INDEX = re.compile(r" INDEX (\w+)")
SORTED = ["SCAN run USING INDEX run_running", "USE TEMP B-TREE FOR ORDER BY"]
"""How all that run are found, where they are not very many."""


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[Database]:
    opened = database(sqlite_url, SystemClock())
    await opened.open()
    await opened.migrate()
    await opened.write(insert(*(new_run(f"0199a3c0-0000-7000-8000-{n:012x}") for n in range(300))))
    yield opened
    await opened.close()


def _all_wanted() -> Iterator[Wanted]:
    for task, state, kind, parent, root, since in product(
        (None, "echo"), (None, "delayed", *RunState), (None, "task", "node"), (None, FIRST), (None, FIRST), (None, 1)
    ):
        delayed = state == "delayed"
        yield Wanted(task, None if delayed else state, delayed, since, None, parent, root, kind)


def _index_of(wanted: Wanted) -> str:
    """Return the index that leaves the most of the other runs out."""
    if wanted.parent or wanted.root:
        return "run_parent" if wanted.parent else "run_root"
    if wanted.delayed:
        return "run_later"
    if wanted.state in (RunState.QUEUED, RunState.RUNNING):
        return f"run_{wanted.state}"
    if wanted.state not in (None, RunState.COMPLETED):
        return "run_unhappy"
    if wanted.task:
        return "run_task"
    return "run_kind" if wanted.kind == "node" else "sqlite_autoindex_run_1"


def _found_by(plan: list[str]) -> set[str]:
    found = {match[1] for step in plan if (match := INDEX.search(step))}
    assert not [step for step in plan if step.startswith(("SCAN", "USE TEMP"))], plan
    assert [step for step in plan if step.startswith("SEARCH") and "id<?" not in step] == [], plan
    return found


async def test_a_page_and_the_end_of_a_look_walk_the_same_index_backwards_and_sort_nothing(store: Database) -> None:
    for wanted in _all_wanted():
        page, index = page_of(wanted), _index_of(wanted)
        plan = await plan_of(store, page.runs)
        if index == "run_running":  # there are seldom more of these than slots
            assert plan == SORTED, wanted
            continue
        assert _found_by(plan) == {index}, (wanted, plan)
        if page.edge is None:
            assert len(plan) == 1, (wanted, plan)
            continue
        assert "id>? AND id<?)" in plan[0], (wanted, plan)
        [step] = await plan_of(store, page.edge)
        assert _found_by([step]) == {index}, (wanted, step)
        # of these SQLite knows by the index itself that their state is right, and reads no row for it either
        assert "COVERING INDEX" in step or index in ("run_later", "run_queued"), (wanted, step)


async def test_only_what_an_index_does_not_tell_is_looked_for_in_parts() -> None:
    whole = [
        Wanted(),
        Wanted("echo"),
        Wanted(kind="node"),
        Wanted(parent=FIRST),
        Wanted(root=FIRST),
        *(Wanted(state=state) for state in RunState if state is not RunState.COMPLETED),
    ]
    told = [wanted for wanted in _all_wanted() if page_of(wanted).edge is None]
    assert [wanted for wanted in told if wanted.state != RunState.RUNNING or wanted.parent or wanted.root] == [
        wanted for wanted in _all_wanted() if wanted in whole and wanted.state != RunState.RUNNING
    ]


async def test_of_very_many_that_run_a_page_walks_the_ids_of_all_runs(store: Database) -> None:
    page = page_of(Wanted("echo", RunState.RUNNING), many=True)
    assert page.edge is not None
    assert _found_by(await plan_of(store, page.runs)) == {"sqlite_autoindex_run_1"}
    assert _found_by(await plan_of(store, page.edge)) == {"sqlite_autoindex_run_1"}
    counted = await plan_of(store, listing.MANY_RUN)
    assert "SCAN run USING INDEX run_running" in counted, counted


@pytest.mark.parametrize(
    ("wanted", "index"),
    [((False, False), "event_time"), ((True, False), "event_key"), ((False, True), "event_scope")],
)
async def test_a_page_of_events_walks_an_index_backwards_and_sorts_nothing(
    store: Database, wanted: tuple[bool, bool], index: str
) -> None:
    [step] = await plan_of(store, events.PAGES[wanted])
    assert step.startswith(f"SEARCH event USING INDEX {index} "), step
    assert "(created_at,id)<(?,?)" in step.replace(" ", ""), step


@pytest.mark.parametrize("led_by", ["key", "scope"])
async def test_a_page_of_events_of_a_key_and_a_scope_walks_the_index_of_one(store: Database, led_by: str) -> None:
    [step] = await plan_of(store, events.HELD[led_by])
    [edge] = await plan_of(store, events.EDGES[led_by])
    assert step.startswith(f"SEARCH event USING INDEX event_{led_by} (tenant=? AND {led_by}=? AND "), step
    assert "(created_at,id)>(?,?) AND (created_at,id)<(?,?)" in step, step
    assert edge == (
        f"SEARCH event USING COVERING INDEX event_{led_by} (tenant=? AND {led_by}=? AND (created_at,id)<(?,?))"
    )


# -- PostgreSQL --------------------------------------------------------------------------------------------------------

PAGES_ON_POSTGRESQL = {
    Wanted(parent=FIRST): "run_parent",
    Wanted("echo", "failed", root=FIRST): "run_root",
    Wanted(kind="workflow"): "run_kind",
    Wanted(delayed=True): "run_later",
    Wanted("echo", delayed=True): "run_later",
    Wanted(since=1): "run_pkey",
    Wanted(state="completed"): "run_pkey",
    Wanted("echo", since=1, until=2): "run_task",
    Wanted("echo", "completed", since=1): "run_task",
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
    plans: dict[Wanted, tuple[str, str]] = {}
    for wanted in PAGES_ON_POSTGRESQL:
        page = page_of(wanted)
        values: dict[str, Any] = {"since": 0, "until": 1 << 60, "most": 50, "rows": 1_000, "state": wanted.state}
        values |= {"parent": ids[1], "root": ids[1], "kind": wanted.kind}
        edge = "" if page.edge is None else await plan_on_postgresql(shared, page.edge, values)
        plans[wanted] = await plan_on_postgresql(shared, page.runs, values), edge
    await shared.close()
    for wanted, index in PAGES_ON_POSTGRESQL.items():
        runs, end = plans[wanted]
        assert f"Index Scan Backward using {index}" in runs, runs
        assert f"Scan Backward using {index}" in end or not end, end
        assert "Sort" not in runs + end, runs + end


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
@pytest.mark.parametrize("by_task", [False, True])
async def test_postgresql_finds_the_few_where_nearly_all_have_ended(
    postgres_url: str, by_task: bool, state: RunState
) -> None:
    shared = database(postgres_url, SystemClock())
    await shared.open()
    await shared.migrate()
    others = [new_run(f"0199a3c0-0000-7000-8000-{n:012x}", state="completed", ready=0) for n in range(5_000)]
    few = [new_run(f"0199a3c0-0000-7000-9000-{n:012x}", state=state, worker="w", sender=FIRST) for n in range(3)]
    await shared.write(insert(*few, *others))
    await shared.write(tell("ANALYZE run"))
    given = {"before": views.LAST_ID, "most": 50, "rows": 1_000}
    plan = await plan_on_postgresql(shared, page_of(Wanted("echo" if by_task else None, state)).runs, given)
    await shared.close()
    assert f"run_{state}" in plan, plan
    if by_task and state is RunState.QUEUED:  # of the others no row is fetched, only their entries are passed by
        [at_runs] = re.findall(r"using run_queued on run  .*\n *Index Cond: (.*)", plan)
        assert "task" in at_runs, plan

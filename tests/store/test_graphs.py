"""Shapes, conditions, nodes and news as both databases keep them."""

from typing import Any

import pytest

from hurlbat_dispatcher.store import graphs
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.graphs import WaitRow
from hurlbat_dispatcher.store.statement import Script, Statement
from tests.store.rows import ask, insert, new_run, tell

pytestmark = pytest.mark.anyio

FLOW, OTHER, A, B, C = (f"0199a3c0-0000-7000-8000-00000000000{n}" for n in range(5))


def node(run_id: str, name: str, parent: str = FLOW, **more: Any) -> Script[None]:
    """Insert a node's run."""
    return insert(new_run(run_id, kind="node", parent=parent, root=parent, node=name, **more))


def keep(*rows: WaitRow) -> Script[None]:
    """Store conditions."""
    yield graphs.KEEP_WAIT.write(rows)


def wait(run_id: str, place: int = 0, *, action: str = "start", **more: Any) -> WaitRow:
    """Return an open condition."""
    usual: dict[str, Any] = dict.fromkeys(WaitRow._fields)
    usual |= {"tenant": 1, "run": run_id, "action": action, "clause": 0, "place": place}
    usual |= {"kind": "sleep" if "due_at" in more else "event"}
    return WaitRow(**usual | more)


def fetched(statement: Statement, *values: object) -> Script[list[tuple[Any, ...]]]:
    """Return the rows of a statement."""
    rows = yield statement.fetch(*values)
    return [tuple(row) for row in rows]


def written(statement: Statement, *rows: tuple[object, ...]) -> Script[None]:
    """Execute a statement for these rows."""
    yield statement.write(list(rows))


async def places(store: Database, script: Script[list[WaitRow]]) -> list[tuple[str, int]]:
    """Return which conditions were read."""
    return sorted((str(row.run), row.place) for row in await store.read(script))


async def test_a_shape_is_found_by_its_task_and_version_alone(store: Database) -> None:
    await store.write(graphs.keep_shapes(1, {("flow", 1): '{"nodes": [1]}', ("flow", 2): '{"nodes":[]}'}, 7))
    found = [await store.read(graphs.shape_of(*which)) for which in ((1, "flow", 1), (1, "flow", 2), (1, "flow", 3))]
    assert found == ['{"nodes": [1]}', '{"nodes":[]}', None]
    assert await store.read(graphs.shape_of(2, "flow", 1)) is None
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.write(graphs.keep_shapes(1, {("flow", 1): "{}"}, 8))


async def test_a_workflow_has_one_live_run_of_a_node_and_any_number_of_replaced_ones(store: Database) -> None:
    await store.write(node(A, "n"))
    await store.write(node(B, "n", OTHER))
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.write(node(C, "n"))
    await store.write(written(graphs.SUPERSEDE, (1, FLOW, "n")))
    await store.write(node(C, "n"))
    rows = await store.read(ask("SELECT id, node, was_node FROM run ORDER BY id"))
    assert [(str(row[0]), row[1], row[2]) for row in rows] == [(A, None, "n"), (B, "n", None), (C, "n", None)]
    found = await store.read(fetched(graphs.NODES, 1, [FLOW]))
    assert [str(row[0]) for row in found] == [C]


async def test_children_are_those_that_have_not_ended_whether_they_are_nodes_or_not(store: Database) -> None:
    await store.write(node(A, "a", state="suspended", ready=0))
    await store.write(insert(new_run(B, parent=FLOW, root=FLOW), new_run(C, parent=FLOW, root=FLOW), new_run(OTHER)))
    await store.write(tell(f"UPDATE run SET state = 'skipped' WHERE id = '{C}'"))
    assert [str(row[0]) for row in await store.read(fetched(graphs.CHILDREN, 1, [FLOW], 9))] == [A, B]
    assert len(await store.read(fetched(graphs.CHILDREN, 1, [FLOW], 1))) == 1


async def test_a_workflow_begins_at_no_worker_and_a_node_is_due_when_it_is_woken(store: Database) -> None:
    await store.write(insert(new_run(FLOW, kind="workflow", joined_at=None, sender=C)))
    await store.write(node(A, "a", state="suspended", ready=0))
    await store.write(written(graphs.BEGIN, (50, 51, 1, FLOW)))
    await store.write(written(graphs.RESUME, (60, 7, 99, '{"type":"workflow"}', 1, A)))
    rows = await store.read(
        ask(
            "SELECT state, ready, worker, sender, started_at, joined_at, due_at, rank, expires_at, trigger "
            "FROM run ORDER BY id"
        )
    )
    assert rows == [
        ("running", 1, "", None, 50, 51, 1, 0, None, None),
        ("queued", 0, None, None, None, 1, 60, 7, 99, '{"type":"workflow"}'),
    ]


async def test_an_event_finds_the_open_conditions_of_its_key_of_its_scope_and_of_none(store: Database) -> None:
    await store.write(
        keep(
            wait(A, 0, key="k"),
            wait(A, 1, key="k", scope="s"),
            wait(B, 0, key="k", scope="t"),
            wait(B, 1, key="l"),
            wait(C, 0, key="k", met_at=5, event="e"),
            wait(C, 1, due_at=9),
        )
    )
    assert await places(store, graphs.awaited(1, ["k"], [])) == [(A, 0)]
    assert await places(store, graphs.awaited(1, ["k"], ["s"])) == [(A, 0), (A, 1)]
    assert await places(store, graphs.awaited(1, ["k", "l"], ["s", "t"])) == [(A, 0), (A, 1), (B, 0), (B, 1)]
    assert await places(store, graphs.awaited(2, ["k"], ["s"])) == []


async def test_a_sleep_is_over_at_its_time_once_the_earliest_first(store: Database) -> None:
    await store.write(keep(wait(A, due_at=30), wait(B, due_at=20), wait(C, due_at=40), wait(C, 1, key="k")))
    assert await store.read(fetched(graphs.NEXT_DUE)) == [(20,)]
    assert [str(row[1]) for row in await store.read(fetched(graphs.DUE, 30, 9))] == [B, A]
    assert [str(row[1]) for row in await store.read(fetched(graphs.DUE, 30, 1))] == [B]
    await store.write(written(graphs.MEET, (31, None, 1, B, "start", 0, 0), (31, None, 1, A, "start", 0, 0)))
    assert await store.read(fetched(graphs.DUE, 39, 9)) == []
    assert await store.read(fetched(graphs.NEXT_DUE)) == [(40,)]


async def test_what_came_true_is_kept_until_its_list_is_forgotten(store: Database) -> None:
    await store.write(keep(wait(A, key="k"), wait(A, action="cancel", key="k"), wait(B, key="k")))
    await store.write(written(graphs.MEET, (31, "e", 1, A, "start", 0, 0)))
    rows = [WaitRow._make(row) for row in await store.read(fetched(graphs.WAITS, 1, [A]))]
    assert [(row.action, row.met_at, row.event) for row in rows] == [("cancel", None, None), ("start", 31, "e")]
    await store.write(written(graphs.FORGET_WAITS, (1, A, "start"), (1, A, "skip")))
    rows = [WaitRow._make(row) for row in await store.read(fetched(graphs.WAITS, 1, [A, B]))]
    assert [(str(row.run), row.action) for row in rows] == [(A, "cancel"), (B, "start")]


async def test_events_are_read_on_from_a_place_in_the_order_in_which_they_came(store: Database) -> None:
    come = [("b", 10, None), ("a", 10, "s"), ("c", 11, None), ("d", 12, "s"), ("x", 9, None)]
    await store.write(
        tell(
            *(
                "INSERT INTO event (tenant, id, key, scope, payload, metadata, digest, created_at) "
                f"VALUES (1, '{name}', 'k', {'NULL' if scope is None else repr(scope)}, '1', '{{}}', '', {at})"
                for name, at, scope in come
            )
        )
    )

    async def after(scope: str | None, place: tuple[int, str], most: int = 9) -> list[str]:
        return [row.id for row in await store.read(graphs.events_after(1, "k", scope, place, most))]

    assert await after(None, (10, "")) == ["a", "b", "c", "d"]
    assert await after(None, (10, ""), 2) == ["a", "b"]
    assert await after(None, (10, "b")) == ["c", "d"]
    assert await after("s", (10, "")) == ["a", "d"]
    assert await after("t", (0, "")) == []


async def test_news_are_read_in_order_and_forgotten_one_by_one(store: Database) -> None:
    await store.write(written(graphs.TELL, (1, "ended", A), (1, "event", "e"), (1, "ended", B)))
    rows = await store.read(fetched(graphs.UNSEEN, 9))
    assert [row[1:] for row in rows] == [(1, "ended", A), (1, "event", "e"), (1, "ended", B)]
    await store.write(written(graphs.FORGET_NEWS, (rows[1][0],)))
    assert [row[3] for row in await store.read(fetched(graphs.UNSEEN, 9))] == [A, B]
    assert len(await store.read(fetched(graphs.UNSEEN, 1))) == 1

"""What is removed of workflows, and when: nodes with their run, graphs that no run has, events nobody is told of."""

import json
from typing import Any

import pytest

from hurlbat_dispatcher import EventSpec, NotFound, Run
from hurlbat_dispatcher.checkup import strict_checkup
from hurlbat_dispatcher.loops.retention import Retention
from hurlbat_dispatcher.store import retention
from tests.engine.far_side import Call
from tests.engine.test_workflows import flow, node
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio

DAY = 86_400_000


async def retain(world: World) -> int:
    """Remove what is older than an hour."""
    removed = await Retention(1, world.parts.database, world.parts.clock, seconds=3600).run_once()
    assert await world.parts.database.read(strict_checkup()) == []
    return removed


async def age(world: World, which: str = "") -> None:
    """Let runs have been made and ended a day ago."""
    rows = await world.rows(f"SELECT id FROM run WHERE finished_at IS NOT NULL {which}")
    for (run_id,) in rows:
        await world.change(f"UPDATE run SET finished_at = finished_at - {DAY} WHERE id = '{run_id}'")


async def left(world: World) -> list[str]:
    """Return the runs that are there."""
    return sorted(str(row[0]) for row in await world.rows("SELECT id FROM run"))


@pytest.fixture(autouse=True)
def everything_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ids tell nothing of when a run was made: only the time of its end counts."""
    monkeypatch.setattr(retention, "first_id", lambda _: "ffffffff-ffff-7fff-bfff-ffffffffffff")


async def named(call: Call) -> Any:
    """Fail where the node is called so, at its first attempt."""
    name = call.body["trigger"]["node"]
    return call.failed() if name == "bad" else json.dumps(name)


async def test_nodes_stay_while_their_workflow_goes_on_and_go_with_it(world: World) -> None:
    await world.worker("w", "echo", flow(node("a"), node("b", "a", wait_for=[{"event": "go"}])), work=named)
    run = await world.submit("flow")
    await world.until_run(run, lambda found: found.state == "running")
    await world.until_rows("SELECT count(*) FROM wait", [(1,)])
    await age(world)
    assert await retain(world) == 0
    assert len(await left(world)) == 3

    await world.engine.events.publish(EventSpec("go", "1"))
    await world.ended(run)
    await age(world, "AND node IS NOT NULL")
    assert await retain(world) == 0
    await age(world)
    assert await retain(world) == 1
    assert await left(world) == []
    assert await world.rows("SELECT * FROM timeline") == []


async def test_nodes_that_were_replaced_go_with_their_workflow_and_those_of_workflows_in_it(world: World) -> None:
    await world.worker(
        "w",
        "echo",
        flow(node("x"), node("y", "x"), name="inner"),
        flow(node("a"), node("within", "a", task="inner"), node("bad", "within")),
        work=named,
    )
    run, other = await world.submit("flow"), await world.submit("inner")
    await world.all_ended([run, other])
    await world.engine.replay_run(run.id, nodes=["within"])
    await world.ended(run)
    kept = {other.id, *(one.id for one in await nodes_below(world, other))}
    assert len(await left(world)) == 3 + 10  # a, and twice: within, its two nodes, bad
    await age(world, f"AND id <> '{other.id}'")
    assert await retain(world) == 1
    assert set(await left(world)) == kept


async def test_of_very_many_nodes_some_go_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.worker("w", "echo", flow(*(node(f"n{n}") for n in range(12))), work=named)
    runs = [await world.submit("flow") for _ in range(3)]
    await world.all_ended(runs)
    await age(world)
    monkeypatch.setattr("hurlbat_dispatcher.loops.retention.BATCH", 2)
    for _ in range(20):
        if await left(world):
            await retain(world)
    assert await left(world) == []


async def test_old_runs_that_may_not_go_are_not_all_looked_at_each_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.loops.retention.WINDOW", 2)
    monkeypatch.setattr("hurlbat_dispatcher.loops.retention.IN_VAIN", 2)
    await world.worker()
    waiting = [await world.submit("echo", delay=DAY / 1000) for _ in range(5)]
    done = [await world.submit("echo") for _ in range(5)]
    await world.all_ended(done)
    await age(world)
    kept = sorted(one.id for one in waiting)
    keeper = Retention(1, world.parts.database, world.parts.clock, seconds=3600)

    assert await keeper.run_once() == 0
    assert await keeper.run_once() == 5
    assert await left(world) == kept
    more = await world.submit("echo")
    await world.all_ended([more])
    await age(world)
    assert [await keeper.run_once() for _ in range(2)] == [0, 1]


async def test_a_run_that_is_submitted_by_a_node_goes_by_its_own_time(world: World) -> None:
    await world.worker("w", "echo", flow(node("a")), work=named)
    run = await world.ended(await world.submit("flow"))
    [first] = await nodes_below(world, run)

    async def plain(call: Call) -> str:
        return "1"

    world.network.workers["w"].work = plain
    child = await world.ended(await world.submit("echo", parent=first.id, child_key="k"))
    await age(world, f"AND id <> '{child.id}'")
    assert await retain(world) == 1
    assert await left(world) == [child.id]
    assert len(await world.rows("SELECT * FROM idempotency")) == 1
    await age(world)
    assert await retain(world) == 1
    assert await world.rows("SELECT * FROM idempotency") == []


async def test_an_event_stays_until_the_node_was_told_of_it(world: World) -> None:
    worker = await world.worker("w", "echo", flow(node("a", wait_for=[{"event": "one"}, {"event": "two"}])), work=named)
    run = await world.submit("flow")
    await world.until_rows("SELECT count(*) FROM wait", [(2,)])
    for name in ("one", "other"):
        await world.engine.events.publish(EventSpec(name, '"x"', id=name))
    await world.turns()
    await world.change("UPDATE event SET created_at = created_at - 7200000")
    await retain(world)
    assert isinstance(await refused(world.engine.events.get("other")), NotFound)
    await world.engine.events.publish(EventSpec("two", '"y"', id="two"))
    await world.ended(run)
    assert [one["payload"] for one in worker.calls[0].body["trigger"]["conditions"]] == ["x", "y"]
    await retain(world)
    assert await world.rows("SELECT id FROM event") == [("two",)]


async def test_a_graph_goes_a_day_after_the_next_one_came_when_no_run_of_its_time_is_left(world: World) -> None:
    worker = await world.worker("w", "echo", flow(node("a")), flow(node("x"), name="other"), work=named)
    run = await world.ended(await world.submit("flow"))
    for name in ("b", "c"):
        worker.tasks[1] = flow(node(name))
        await world.register(worker)

    async def graphs() -> list[tuple[str, int]]:
        rows = await world.rows("SELECT task, version FROM shape ORDER BY task, version")
        return [(row[0], row[1]) for row in rows]

    every = [("flow", 1), ("flow", 2), ("flow", 3), ("other", 1)]
    await retain(world)
    assert await graphs() == every, "the next came today"
    await world.change(f"UPDATE shape SET created_at = created_at - {DAY} + 60000")
    await retain(world)
    assert await graphs() == every
    await world.change("UPDATE shape SET created_at = created_at - 60000 WHERE version = 2")
    await retain(world)
    assert await graphs() == every, "a run of the first is left"
    await age(world)
    assert await retain(world) == 1
    assert await graphs() == [("flow", 2), ("flow", 3), ("other", 1)]
    await world.change(f"UPDATE shape SET created_at = created_at - {3 * DAY}")
    newest = await world.ended(await world.submit("flow"))
    await retain(world)
    assert await graphs() == [("flow", 3), ("other", 1)], "its only run was made long after the third came"
    assert run.id not in await left(world)
    assert newest.id in await left(world)


async def nodes_below(world: World, run: Run) -> list[Run]:
    """Return the nodes of a run."""
    rows = await world.rows(f"SELECT id FROM run WHERE parent = '{run.id}'")
    return [await world.engine.get_run(str(row[0])) for row in rows]

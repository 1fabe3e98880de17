"""Runs that wait for runs: whoever would wait for ever is told at once, and nothing is stored; nobody else is."""

import asyncio
import json
from typing import Any

import pytest

from hurlbat_dispatcher import Accepted, Conflict, NotFound, Run, RunState, Submission
from hurlbat_dispatcher.loops.retention import Retention
from tests.engine.far_side import Call, FakeWorker
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio

ALL = {"key": "'all'", "max_runs": 1}


async def worker_of(world: World, name: str, *tasks: str | dict[str, Any], **more: Any) -> FakeWorker:
    """Register a worker whose runs go on until its gate is opened, but for those of `quick`."""
    worker = await world.worker(name, *tasks, **more)

    async def work(call: Call) -> Any:
        return json.dumps(call.input) if call.task == "quick" else await worker.held(call)

    worker.work = work
    return worker


async def running(world: World, task: str = "parent", **more: Any) -> Run:
    """Return a run of a task once it is with its worker."""
    run = await world.until_run(await world.submit(task, **more), lambda run: run.state is RunState.RUNNING)
    await world.until(lambda: (run.id, run.attempt) in world.network.workers[run.worker or ""].open)
    return run


async def child(world: World, parent: Run, task: str = "echo", **more: Any) -> Accepted:
    """Submit a child that its parent waits for."""
    asked: dict[str, Any] = {"parent": parent.id, "awaited": True} | more
    return await world.engine.submit(Submission(task, **asked))


async def deadlock(world: World, parent: Run, task: str = "echo", **more: Any) -> str:
    """Return in which words a child is refused that its parent would wait for for ever; nothing is stored of it."""
    before = await world.rows("SELECT id FROM run ORDER BY id")
    problem = await refused(child(world, parent, task, **more))
    assert isinstance(problem, Conflict), problem
    assert (problem.code, problem.extra) == ("would_deadlock", {"run_id": parent.id})
    assert await world.rows("SELECT id FROM run ORDER BY id") == before
    return problem.detail


# -- slots -------------------------------------------------------------------------------------------------------------


async def test_who_waits_for_a_child_that_only_its_own_slot_could_serve_is_told(world: World) -> None:
    await worker_of(world, "w", "parent", "echo", slots=1)
    parent = await running(world)
    assert await deadlock(world, parent) == (
        "echo could never start: it takes a slot, only worker w serves it, and the run that waits for it holds the"
        " slots there; give a worker more slots, let another serve echo, or do not wait for it"
    )
    assert await world.rows("SELECT count(*) FROM idempotency") == [(0,)]
    await deadlock(world, parent, child_key="k")
    assert await world.rows("SELECT count(*) FROM idempotency") == [(0,)]


async def test_who_does_not_wait_is_not_held_up(world: World) -> None:
    worker = await worker_of(world, "w", "parent", "echo", slots=1)
    parent = await running(world)
    accepted = await child(world, parent, awaited=False)
    assert accepted.run.state is RunState.QUEUED
    worker.gate.set()
    assert (await world.ended(accepted.run)).state is RunState.COMPLETED


async def test_what_other_runs_hold_is_no_deadlock(world: World) -> None:
    worker = await worker_of(world, "w", "parent", "echo", slots=2)
    parent, other = await running(world), await running(world)
    accepted = await child(world, parent)
    assert accepted.run.state is RunState.QUEUED
    await world.engine.cancel_run(other.id)
    await world.until_run(accepted.run, lambda run: run.state is RunState.RUNNING)
    worker.gate.set()


@pytest.mark.parametrize("more", [{"slots": 2}, {"another": True}], ids=["a slot more", "another worker"])
async def test_a_slot_that_is_free_for_it_is_enough(local: World, more: dict[str, Any]) -> None:
    await worker_of(local, "w", "parent", "echo", slots=more.get("slots", 1))
    if more.get("another"):
        await worker_of(local, "v", "echo", slots=1)
    parent = await running(local)
    accepted = await child(local, parent)
    await local.until_run(accepted.run, lambda run: run.state is RunState.RUNNING)


async def test_only_workers_that_may_take_the_child_count(local: World) -> None:
    labelled = {"name": "echo", "labels": {"gpu": "yes"}}
    await worker_of(local, "w", "parent", labelled, slots=1)
    await local.engine.update_worker("w", labels={"gpu": "yes"})
    await worker_of(local, "v", labelled, slots=1)
    parent = await running(local)
    assert parent.worker == "w"
    assert "only worker w serves it" in await deadlock(local, parent)
    await local.engine.update_worker("v", labels={"gpu": "yes"})
    assert (await child(local, parent)).created


@pytest.mark.parametrize("sticky", ["hard", "soft"])
async def test_a_child_that_sticks_to_its_parent_s_worker_needs_a_slot_there(local: World, sticky: str) -> None:
    await worker_of(local, "w", "parent", {"name": "echo", "sticky": sticky}, slots=1)
    parent = await running(local)
    await worker_of(local, "v", {"name": "echo", "sticky": sticky}, slots=1)
    if sticky == "hard":
        assert "only worker w serves it" in await deadlock(local, parent)
    else:
        assert (await child(local, parent)).created


async def test_a_window_that_is_pinned_counts_as_slots_and_one_that_has_shrunk_does_not(local: World) -> None:
    await worker_of(local, "w", "parent", "echo", slots=8)
    parent = await running(local)
    local.parts.desk.picture.slots["w"].window.size = 1
    assert (await child(local, parent)).created
    await local.engine.update_worker("w", window=1)
    await deadlock(local, parent)


async def test_a_task_that_nobody_serves_waits_for_a_worker(local: World) -> None:
    await worker_of(local, "w", "parent", slots=1)
    await worker_of(local, "v", "echo", slots=1)
    parent = await running(local)
    await local.engine.delete_worker("v")
    assert (await child(local, parent)).created


async def test_a_child_that_takes_more_slots_than_its_parents_leave_is_told(local: World) -> None:
    await worker_of(local, "w", {"name": "parent", "slot_cost": 2}, {"name": "echo", "slot_cost": 3}, slots=4)
    parent = await running(local)
    assert "it takes 3 slots" in await deadlock(local, parent)
    await local.register(local.network.workers["w"], slots=5)
    assert (await child(local, parent)).created


# -- those above -------------------------------------------------------------------------------------------------------


async def test_all_that_wait_for_one_another_are_counted(world: World) -> None:
    await worker_of(world, "w", "parent", "echo", slots=2)
    top = await running(world)
    middle = (await child(world, top, "parent")).run
    await world.until_run(middle, lambda run: run.state is RunState.RUNNING)
    assert "the runs that wait for it hold the slots" in await deadlock(world, middle)


async def test_a_parent_that_did_not_wait_may_end_and_is_not_counted(world: World) -> None:
    worker = await worker_of(world, "w", "parent", "echo", slots=2)
    top = await running(world)
    middle = (await child(world, top, "parent", awaited=False)).run
    await world.until_run(middle, lambda run: run.state is RunState.RUNNING)
    last = (await child(world, middle)).run
    assert last.state is RunState.QUEUED
    worker.open[top.id, 1].set()
    await world.until_run(last, lambda run: run.state is RunState.RUNNING)
    worker.gate.set()


async def test_a_parent_that_waits_by_a_request_of_its_own_is_counted_as_long_as_it_does(world: World) -> None:
    await worker_of(world, "w", "parent", "echo", slots=2)
    top = await running(world)
    middle = (await child(world, top, "parent", awaited=False)).run
    await world.until_run(middle, lambda run: run.state is RunState.RUNNING)
    waiting = asyncio.ensure_future(world.engine.wait(middle.id, 60, awaited_by=top.id))
    await world.until(lambda: bool(world.parts.waiters.awaited))
    await deadlock(world, middle)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert (await child(world, middle)).created


async def test_who_runs_no_longer_holds_nothing(world: World) -> None:
    await worker_of(world, "w", "parent", "quick", slots=1)
    ended = await world.ended(await world.submit("quick"))
    await running(world)
    assert (await child(world, ended, "parent")).created


# -- groups ------------------------------------------------------------------------------------------------------------


async def test_a_group_that_those_who_wait_fill_is_told(world: World) -> None:
    await worker_of(world, "w", {"name": "parent", "concurrency": [ALL]}, slots=9)
    parent = await running(world)
    assert await deadlock(world, parent, "parent") == (
        "parent could never start: the run that waits for it holds all places (1) of its concurrency group 'all';"
        " raise max_runs, give it another key, or do not wait for it"
    )


async def test_a_group_of_another_key_or_with_a_place_more_is_not(local: World) -> None:
    keyed = {"name": "keyed", "concurrency": [{"key": "input.of", "max_runs": 1}]}
    roomy = {"name": "roomy", "concurrency": [{"key": "'all'", "max_runs": 2}]}
    await worker_of(local, "w", keyed, roomy, slots=9)
    one = await running(local, "keyed", input='{"of": "a"}')
    assert (await child(local, one, "keyed", input='{"of": "b"}')).created
    await deadlock(local, one, "keyed", input='{"of": "a"}')
    assert (await child(local, await running(local, "roomy"), "roomy")).created


async def test_a_group_that_tasks_share_by_its_name_is_one(local: World) -> None:
    shared = [{**ALL, "name": "shared"}]
    await worker_of(local, "w", {"name": "parent", "concurrency": shared}, {"name": "echo", "concurrency": shared})
    await deadlock(local, await running(local))


async def test_where_one_of_two_is_cancelled_nobody_waits(local: World) -> None:
    newest = {"name": "parent", "concurrency": [{**ALL, "strategy": "CANCEL_NEWEST"}]}
    await worker_of(local, "w", newest, slots=9)
    parent = await running(local)
    accepted = await child(local, parent, "parent")
    assert (await local.ended(accepted.run)).state is RunState.CANCELLED


# -- runs that are there -----------------------------------------------------------------------------------------------


async def test_waiting_for_a_run_that_waits_for_the_same_slot_is_told(world: World) -> None:
    worker = await worker_of(world, "w", "parent", "echo", slots=1)
    parent = await running(world)
    queued = (await child(world, parent, awaited=False)).run
    problem = await refused(world.engine.wait(queued.id, 60, awaited_by=parent.id))
    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra) == ("would_deadlock", {"run_id": parent.id})
    assert (await world.engine.wait(queued.id, 0.01)).state is RunState.QUEUED
    worker.gate.set()
    ended = await world.ended(queued)
    assert (await world.engine.wait(queued.id, 60, awaited_by=parent.id)).output == ended.output


async def test_waiting_for_a_run_that_runs_is_fine(world: World) -> None:
    worker = await worker_of(world, "w", "parent", "echo", slots=2)
    parent, other = await running(world), await running(world, "echo")
    waiting = asyncio.ensure_future(world.engine.wait(other.id, 60, awaited_by=parent.id))
    await world.until(lambda: bool(world.parts.waiters.awaited))
    worker.gate.set()
    assert (await waiting).state is RunState.COMPLETED
    assert not world.parts.awaiting._open


async def test_a_run_that_waits_for_itself_or_for_one_that_waits_for_it_is_told(world: World) -> None:
    await worker_of(world, "w", "parent", slots=9)
    top = await running(world)
    middle = (await child(world, top, "parent")).run
    last = (await child(world, middle, "parent")).run
    for awaited, by, said in (
        (top, top, f"run {top.id} would wait for its own end"),
        (top, last, f"run {top.id} waits for run {last.id}, which would wait for its end; let it end instead"),
        (middle, last, f"run {middle.id} waits for run {last.id}, which would wait for its end; let it end instead"),
    ):
        problem = await refused(world.engine.wait(awaited.id, 60, awaited_by=by.id))
        assert isinstance(problem, Conflict)
        assert (problem.code, problem.detail) == ("would_deadlock", said)
    await world.engine.cancel_run(last.id)
    assert (await world.engine.wait(last.id, 60, awaited_by=top.id)).state is RunState.CANCELLED


async def test_a_child_that_was_left_alone_may_wait_for_its_parent_until_that_waits_for_it(world: World) -> None:
    worker = await worker_of(world, "w", "parent", slots=9)
    top = await running(world)
    left = (await child(world, top, "parent", awaited=False)).run
    third = await running(world)
    waiting = [
        asyncio.ensure_future(world.engine.wait(top.id, 60, awaited_by=third.id)),
        asyncio.ensure_future(world.engine.wait(third.id, 60, awaited_by=left.id)),
    ]
    await world.until(lambda: len(world.parts.waiters.awaited) == 2)
    problem = await refused(world.engine.wait(left.id, 60, awaited_by=top.id))
    assert isinstance(problem, Conflict)
    assert problem.detail == f"run {left.id} waits for run {top.id}, which would wait for its end; let it end instead"
    worker.gate.set()
    assert {run.state for run in await asyncio.gather(*waiting)} == {RunState.COMPLETED}


async def test_who_waits_is_believed_and_a_run_that_is_not_there_is_not_found(world: World) -> None:
    nobody = "0199a3c0-0000-7000-8000-000000000000"
    await worker_of(world, "w", "parent", "quick")
    run = await world.ended(await world.submit("quick"))
    assert (await world.engine.wait(run.id, 60, awaited_by=nobody)).id == run.id
    for awaited, by in ((nobody, run.id), (run.id, "x"), ("x", run.id)):
        assert isinstance(await refused(world.engine.wait(awaited, 60, awaited_by=by)), NotFound)


async def test_a_child_that_is_found_by_its_key_and_has_started_is_waited_for(world: World) -> None:
    worker = await worker_of(world, "w", "parent", "quick", slots=1)
    parent = await running(world)
    early = (await child(world, parent, "quick", awaited=False, child_key="early")).run
    late = (await child(world, parent, "quick", awaited=False, child_key="late", delay=3600.0)).run
    worker.gate.set()
    await world.ended(early)
    await world.ended(parent)
    worker.gate.clear()
    await world.engine.replay_run(parent.id)
    await world.until_run(parent, lambda run: run.state is RunState.RUNNING)
    again = await world.engine.submit_many(
        [
            Submission("quick", parent=parent.id, awaited=True, child_key="early"),
            Submission("quick", parent=parent.id, awaited=True, child_key="late", delay=3600.0),
            Submission("quick", parent=parent.id, awaited=True, child_key="new"),
        ]
    )
    found, *refusals = again
    assert isinstance(found, Accepted)
    assert (found.created, found.run.id, found.run.output) == (False, early.id, "null")
    assert [one.code for one in refusals if isinstance(one, Conflict)] == ["would_deadlock"] * 2
    assert (await world.engine.get_run(late.id)).state is RunState.QUEUED


# -- workflows ---------------------------------------------------------------------------------------------------------


def flow(*nodes: dict[str, Any], name: str = "flow", **more: Any) -> dict[str, Any]:
    """Return the policy of a workflow."""
    return {"name": name, "graph": {"nodes": list(nodes)}, **more}


async def test_a_workflow_whose_first_node_could_not_start_is_told(world: World) -> None:
    nested = flow({"name": "inner", "task": "flow"}, name="nested")
    later = flow({"name": "first", "task": "quick"}, {"name": "a", "task": "echo", "parents": ["first"]}, name="later")
    await worker_of(world, "w", "parent", "echo", flow({"name": "a", "task": "echo"}), nested, later, slots=1)
    await worker_of(world, "v", "quick", slots=1)
    parent = await running(world)
    assert "echo could never start" in await deadlock(world, parent, "flow")
    assert "echo could never start" in await deadlock(world, parent, "nested")
    assert (await child(world, parent, "later")).created
    assert (await child(world, parent, "flow", awaited=False)).created


async def test_a_node_that_may_be_skipped_is_not_counted_on(local: World) -> None:
    skipped = {"name": "a", "task": "echo", "skip_if": [{"expression": "true"}]}
    await worker_of(local, "w", "parent", "echo", flow(skipped), slots=1)
    accepted = await child(local, await running(local), "flow")
    assert (await local.ended(accepted.run)).state is RunState.COMPLETED


async def test_waiting_for_a_workflow_whose_node_waits_for_the_same_slot_is_told(world: World) -> None:
    await worker_of(world, "w", "parent", "echo", flow({"name": "a", "task": "echo"}), slots=1)
    parent = await running(world)
    accepted = await child(world, parent, "flow", awaited=False)
    assert accepted.run.state is RunState.RUNNING
    problem = await refused(world.engine.wait(accepted.run.id, 60, awaited_by=parent.id))
    assert isinstance(problem, Conflict)
    assert (problem.code, problem.detail.partition(":")[0]) == ("would_deadlock", "echo could never start")


async def test_a_node_that_waits_holds_what_its_workflow_holds(world: World) -> None:
    whole = flow({"name": "a", "task": "parent"}, concurrency=[ALL])
    await worker_of(world, "w", "parent", "echo", whole, slots=9)
    workflow = await world.submit("flow")
    [(node_id,)] = await world.rows(f"SELECT id FROM run WHERE parent = '{workflow.id}'")
    node = await world.until_run(str(node_id), lambda run: run.state is RunState.RUNNING)
    assert "all places (1) of its concurrency group 'all'" in await deadlock(world, node, "flow")
    assert (await child(world, node)).created


# -- at a submit that waits --------------------------------------------------------------------------------------------


async def test_a_submit_that_waits_is_told_as_well(world: World) -> None:
    await worker_of(world, "w", "parent", "echo", slots=1)
    parent = await running(world)
    asked = Submission("echo", parent=parent.id, awaited=True)
    problem = await refused(world.engine.submit_and_wait(asked, 60))
    assert isinstance(problem, Conflict)
    assert problem.code == "would_deadlock"


async def test_who_waits_for_nobody_costs_no_look_at_anybody(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await worker_of(local, "w", "parent", "quick", slots=9)
    parent = await running(local)
    await Retention(1, local.parts.database, local.parts.clock, seconds=3600).run_once()

    def nobody(*_: object) -> Any:
        raise AssertionError("it was looked at who waits")

    monkeypatch.setattr("hurlbat_dispatcher.awaiting.kin.line", nobody)
    await local.ended((await child(local, parent, "quick", awaited=False)).run)
    await local.ended(await local.submit("quick"))

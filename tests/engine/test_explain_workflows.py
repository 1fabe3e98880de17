"""How far a workflow is, what its nodes wait for, and why they ended as they did."""

import asyncio
import json
import re
from typing import Any

import pytest

from hurlbat_dispatcher import EventSpec, Run
from tests.engine.far_side import Call, FakeWorker
from tests.engine.world import SOON, World

pytestmark = pytest.mark.anyio


def node(name: str, *parents: str, task: str = "echo", **more: Any) -> dict[str, Any]:
    """Return a node."""
    return {"name": name, "task": task, "parents": list(parents), **more}


def flow(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return the policy of a workflow."""
    return {"name": "flow", "graph": {"nodes": list(nodes)}, **more}


async def said(world: World, run_id: str) -> str:
    """Return the summary of a run's explanation, its times as T."""
    summary = (await world.engine.explain(run_id)).summary
    return re.sub(r"\d{4}-\S+?Z", "T", summary)


async def states_of(world: World, run: Run) -> dict[str, tuple[str, str | None]]:
    """Return the states of a workflow's nodes, and their runs, by name."""
    family = await world.engine.workflows.family_of(await world.engine.get_run(run.id))
    return {one.name: (one.state, one.run) for one in family.nodes or ()}


async def until(world: World, run: Run, **wanted: str) -> dict[str, str]:
    """Wait until nodes are in these states; return the runs of those that were reached."""
    async with asyncio.timeout(SOON):
        while True:
            found = await states_of(world, run)
            if all(found[name][0] == state for name, state in wanted.items()):
                return {name: run_id for name, (_, run_id) in found.items() if run_id is not None}


async def begun(world: World, *nodes: dict[str, Any], **more: Any) -> tuple[Run, FakeWorker]:
    """Register a worker with a workflow of these nodes, of which those of `slow` are held; submit a run of it."""
    worker = await world.worker("w", "echo", "slow", flow(*nodes, **more))

    async def work(call: Call) -> Any:
        return await worker.held(call) if call.task == "slow" else json.dumps(call.input)

    worker.work = work
    return await world.submit("flow"), worker


async def test_a_workflow_says_which_nodes_run_and_wait_and_how_many_are_left(world: World) -> None:
    packed = {"event": "packed", "scope": "shop", "expression": "input.ok"}
    run, _ = await begun(
        world,
        node("a"),
        node("b", task="slow"),
        node("c", wait_for=[{"any": [{"sleep": 3600}, packed]}, {"event": "paid"}]),
        node("d", "b", "c"),
    )
    runs = await until(world, run, a="completed", b="running", c="suspended", d="waiting")

    found = await world.engine.explain(runs["c"])

    waits = "waits for the time T or the event packed of the scope shop with input.ok, and the event paid."
    assert await said(world, run.id) == (
        f"It runs since T. 1 of its 4 nodes has ended. b runs. c {waits} 1 comes after these."
    )
    assert await said(world, runs["c"]) == f"It {waits}"
    assert (found.earliest_start, found.frees) == (None, "Time, and events: POST /events.")


async def test_what_waits_for_the_time_alone_says_when_it_starts_at_the_earliest(world: World) -> None:
    run, _ = await begun(world, node("a", wait_for=[{"any": [{"sleep": 60}, {"event": "e"}]}, {"sleep": 3600}]))
    runs = await until(world, run, a="suspended")

    found = await world.engine.explain(runs["a"])

    [due] = await world.rows("SELECT max(due_at) FROM wait")
    assert (found.earliest_start, found.frees) == (due[0], "Time, and events: POST /events.")


async def test_only_what_is_still_open_is_waited_for(world: World) -> None:
    run, _ = await begun(world, node("a", wait_for=[{"event": "one"}, {"event": "two"}]))
    runs = await until(world, run, a="suspended")

    await world.engine.events.publish(EventSpec("one", "null"))

    assert await said(world, runs["a"]) == "It waits for the event two."


async def test_a_node_whose_task_nobody_serves_says_so_and_its_workflow_too(world: World) -> None:
    await world.worker("other", "gone")
    await world.engine.delete_worker("other")
    run, _ = await begun(world, node("a", task="gone"), node("b", "a"))
    runs = await until(world, run, a="queued")

    found = await world.engine.explain(runs["a"])

    assert found.summary == "No registered worker serves task gone."
    assert (await said(world, run.id)).endswith("a is queued. No registered worker serves gone. 1 comes after these.")


async def test_a_workflow_that_waits_in_its_line_names_what_holds_it_and_no_slots(world: World) -> None:
    first, worker = await begun(world, node("a", task="slow"), concurrency=[{"key": "'k'", "max_runs": 1}])
    second = await world.submit("flow")
    await until(world, first, a="running")

    found = await world.engine.explain(second.id)
    await world.engine.limits.pause_task("flow")
    paused = await world.engine.explain((await world.submit("flow")).id)

    assert [(one.kind, one.holds, one.occupied_by) for one in found.budgets if one.kind != "pause"] == [
        ("concurrency", True, (first.id,))
    ]
    assert "is full: 1 of 1 runs are under way." in found.summary
    assert "paused" in paused.summary
    await world.engine.limits.resume_task("flow")
    worker.gate.set()
    await world.all_ended([first, second])


async def test_how_workflows_and_their_nodes_ended_is_said_without_attempts_that_they_never_had(world: World) -> None:
    run, _ = await begun(
        world,
        node("a", skip_if=[{"expression": "true"}]),
        node("b", cancel_if=[{"expression": "true"}]),
        node("c", "b"),
        node("d", input="input.missing"),
    )
    await world.ended(run)
    runs = await until(world, run)

    assert await said(world, runs["a"]) == "It was skipped at T: its skip_if came true."
    assert await said(world, runs["b"]) == "It was cancelled at T: its cancel_if came true."
    assert await said(world, runs["c"]) == "It was cancelled at T: node b was cancelled."
    sentence = "a condition or the input of node d: input is null, and has no member missing"
    assert await said(world, runs["d"]) == f"It failed at T: {sentence}."
    assert await said(world, run.id) == f"It failed at T: node d failed: expression_failed: {sentence}."


async def test_a_workflow_that_completed_says_so_without_a_worker(world: World) -> None:
    run, _ = await begun(world, node("a"))
    await world.ended(run)

    assert await said(world, run.id) == "It completed at T."

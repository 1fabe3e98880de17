"""Faults that workflows had, each found once."""

import asyncio
import json
from typing import Any

import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher import Conflict, EventSpec, Invalid, RunState, Submission
from hurlbat_dispatcher.assembly import Parts
from hurlbat_dispatcher.turn import composing
from tests.engine.far_side import Call
from tests.engine.test_workflows import flow, named, node, nodes_of, order, started
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio


async def test_who_is_displaced_by_a_node_in_the_turn_of_its_start_is_cancelled_all_the_same(world: World) -> None:
    rule = [{"key": "'k'", "max_runs": 1, "strategy": "CANCEL_IN_PROGRESS"}]

    async def work(call: Call) -> Any:
        return "null"

    await world.worker("w", {"name": "x", "concurrency": rule}, flow(node("n", task="x")), work=work)
    accepted = await world.engine.submit_many([Submission("x"), Submission("flow")])
    runs = await world.all_ended([one.run for one in accepted if not isinstance(one, Exception)])
    assert [(run.task, run.state) for run in runs] in (
        [("x", RunState.CANCELLED), ("flow", RunState.COMPLETED)],
        [("x", RunState.COMPLETED), ("flow", RunState.COMPLETED)],  # it had ended before it was displaced
    )


async def test_a_replay_that_was_cancelled_before_it_began_loses_no_output(world: World) -> None:
    worker = await started(world, flow(node("a"), node("bad", "a")))
    run = await world.ended(await world.submit("flow"))
    old = await nodes_of(world, run.id)
    await world.engine.limits.pause_task("flow")
    await world.engine.replay_run(run.id)
    await world.engine.cancel_run(run.id)
    await world.engine.replay_run(run.id)
    await world.engine.limits.resume_task("flow")
    await world.ended(run)
    assert order(worker) == ["a", "bad", "bad"]
    assert (await nodes_of(world, run.id))["a"].id == old["a"].id


async def test_a_node_that_a_replay_has_replaced_is_not_replayed_alone(world: World) -> None:
    await started(world, flow(node("a"), node("bad", "a")))
    run = await world.ended(await world.submit("flow"))
    old = await nodes_of(world, run.id)
    await world.engine.replay_run(run.id)
    await world.ended(run)
    problem = await refused(world.engine.replay_run(old["bad"].id))
    assert isinstance(problem, Conflict)
    assert problem.code == "run_is_node"


async def test_a_node_that_has_waited_was_not_scheduled(world: World) -> None:
    await started(world, flow(node("a", wait_for=[{"event": "go"}])))
    run = await world.submit("flow")
    await world.until_run(run, lambda found: found.state == "running")
    await world.engine.events.publish(EventSpec("go"))
    await world.ended(run)
    found = (await nodes_of(world, run.id))["a"]
    assert [entry.kind for entry in found.timeline] == ["created", "started", "completed"]


async def test_workflows_that_were_declared_nodes_of_each_other_at_once_are_not_begun(world: World) -> None:
    one = TaskPolicy(**flow(node("x", task="two"), name="one"))
    two = TaskPolicy(**flow(node("x", task="one"), name="two"))
    made = await asyncio.gather(
        world.engine.workflows.put(one), world.engine.workflows.put(two), return_exceptions=True
    )
    if not any(isinstance(outcome, Exception) for outcome in made):
        assert isinstance(await refused(world.submit("one")), Invalid)
    assert await world.rows("SELECT id FROM run") == []


async def test_more_first_nodes_than_one_turn_makes_are_made_in_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(composing, "MOST_NODES", 10)
    await started(world, flow(*(node(f"n{n}") for n in range(6))))
    runs = await world.submit_all(8, "flow")
    assert {run.state for run in await world.all_ended(runs)} == {RunState.COMPLETED}
    assert await world.rows("SELECT count(*) FROM run WHERE node IS NOT NULL") == [(48,)]
    assert await world.rows("SELECT * FROM news") == []


async def test_a_workflow_newer_than_what_the_owner_knows_waits_until_it_knows(
    owner: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await owner.worker("w", "echo", flow(node("a")), work=named)
    other.network.workers["w"] = worker
    await other.until(lambda: "flow" in other.parts.registry.tasks)
    really, known = Parts._reload, asyncio.Event()

    async def reload(parts: Parts) -> None:
        if parts is owner.parts:
            await known.wait()
        await really(parts)

    monkeypatch.setattr(Parts, "_reload", reload)
    fresh = await other.worker("v", "new", flow(node("a", task="new")), work=named)
    owner.network.workers["v"] = fresh
    run = await other.submit("flow")
    await other.until_run(run, lambda found: found.state == "running")
    await owner.turns()
    known.set()
    assert (await other.ended(run)).state is RunState.COMPLETED
    assert [call.task for call in fresh.calls] == ["new"]


async def test_a_node_that_fails_as_it_is_reached_calls_whom_its_task_names(world: World) -> None:
    worker = await world.worker(
        "w",
        {"name": "echo", "on_failure": "sorry"},
        "sorry",
        flow(node("a", input="input.x.y"), node("bad")),
        work=lambda call: named(call) if call.task == "echo" else _sorry(call),
    )
    run = await world.ended(await world.submit("flow"))
    assert run.state is RunState.FAILED
    await world.until(lambda: len([call for call in worker.calls if call.task == "sorry"]) == 2)


async def _sorry(call: Call) -> Any:
    return json.dumps(call.run_id)

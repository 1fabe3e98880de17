"""Workflows: nodes come one after another, wait for what they say, and end with their workflow."""

import json
from typing import Any

import pytest

from hurlbat_dispatcher import Conflict, EventSpec, Run, RunState
from tests.engine.far_side import Call, FakeWorker
from tests.engine.world import LATER_MS, World, refused

pytestmark = pytest.mark.anyio


def flow(*nodes: dict[str, Any], name: str = "flow", last: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return the policy of a workflow."""
    return {"name": name, "graph": {"nodes": list(nodes)} | (last or {}), **more}


def node(name: str, *parents: str, task: str = "echo", **more: Any) -> dict[str, Any]:
    """Return a node."""
    return {"name": name, "task": task, "parents": list(parents), **more}


async def named(call: Call) -> Any:
    """Return the name of the node, or fail or cancel where it is called so."""
    name = call.body["trigger"]["node"]
    if name.startswith("bad"):
        return call.failed(f"{name} is bad")
    return json.dumps(name)


async def nodes_of(world: World, workflow: str) -> dict[str, Run]:
    """Return the nodes of a workflow's run as they stand, by name."""
    rows = await world.rows(f"SELECT id FROM run WHERE parent = '{workflow}' AND node IS NOT NULL ORDER BY id")
    runs = [await world.engine.get_run(str(row[0])) for row in rows]
    return {run.node or "": run for run in runs}


async def states_of(world: World, workflow: str) -> dict[str, str]:
    """Return the states of a workflow's nodes."""
    return {name: str(run.state) for name, run in (await nodes_of(world, workflow)).items()}


async def started(world: World, *policies: dict[str, Any], **more: Any) -> FakeWorker:
    """Register a worker that serves `echo` and workflows."""
    return await world.worker("w", "echo", *policies, work=named, **more)


def order(worker: FakeWorker) -> list[str]:
    """Return the nodes in the order in which they came to the worker."""
    return [call.body["trigger"]["node"] for call in worker.calls]


async def test_a_node_runs_after_all_its_parents_with_their_outputs(world: World) -> None:
    worker = await started(world, flow(node("a"), node("b"), node("c", "a", "b"), node("d", "c")))
    run = await world.ended(await world.submit("flow", '{"n": 1}', metadata='{"m": 1}'))
    assert (run.state, run.kind, run.attempt, run.worker) == (RunState.COMPLETED, "workflow", 0, None)
    assert json.loads(run.output or "") == {"d": "d"}
    assert sorted(order(worker)[:2]) == ["a", "b"]
    assert order(worker)[2:] == ["c", "d"]
    third = worker.calls[2]
    assert (third.input, third.body["parents"], third.body["metadata"]) == ({"n": 1}, {"a": "a", "b": "b"}, {"m": 1})
    assert third.body["trigger"]["workflow"] == "flow"
    assert third.body["trigger"]["run"] == run.id
    found = await nodes_of(world, run.id)
    assert {(one.kind, one.parent, one.root, one.task) for one in found.values()} == {("node", run.id, run.id, "echo")}
    assert [entry.kind for entry in run.timeline] == ["created", "started", "completed"]


async def test_a_failing_node_bars_what_comes_after_it_and_nothing_else(world: World) -> None:
    await started(world, flow(node("a"), node("bad"), node("c", "a", "bad"), node("d", "c"), node("e", "a")))
    run = await world.ended(await world.submit("flow"))
    assert run.state is RunState.FAILED
    assert await states_of(world, run.id) == {
        "a": "completed",
        "bad": "failed",
        "c": "cancelled",
        "d": "cancelled",
        "e": "completed",
    }
    found = await nodes_of(world, run.id)
    assert (found["c"].reason, found["c"].cancelled_by) == ("node bad failed", "node")
    assert found["d"].reason == "node c was cancelled"
    error = json.loads(run.error or "")
    assert error == {
        "code": "node_failed",
        "type": "ValueError",
        "message": "node bad failed: ValueError: bad is bad",
        "node": "bad",
        "run": found["bad"].id,
    }


async def test_a_failure_or_a_success_is_followed_by_its_node_and_then_it_ends(world: World) -> None:
    last = {"on_failure": {"name": "sorry", "task": "echo"}, "on_success": {"name": "hurray", "task": "echo"}}
    worker = await started(
        world, flow(node("a"), last=last), flow(node("ok"), node("bad"), node("b", "bad"), name="poor", last=last)
    )
    good, poor = await world.submit("flow"), await world.submit("poor")
    assert [run.state for run in await world.all_ended([good, poor])] == [RunState.COMPLETED, RunState.FAILED]
    assert await states_of(world, good.id) == {"a": "completed", "hurray": "completed"}
    assert await states_of(world, poor.id) == {
        "ok": "completed",
        "bad": "failed",
        "b": "cancelled",
        "sorry": "completed",
    }
    [sorry] = [call for call in worker.calls if call.body["trigger"]["node"] == "sorry"]
    told = sorry.body["trigger"]["parents"]
    assert (sorry.body["parents"], told["b"]["state"]) == ({"ok": "ok"}, "cancelled")
    assert told["bad"]["error"] == {"code": "task_error", "type": "ValueError", "message": "bad is bad"}


async def test_a_node_waits_for_a_sleep_or_an_event_and_takes_what_came_first(world: World) -> None:
    either = {"any": [{"sleep": 3600}, {"event": "go", "scope": "s", "expression": "input.n > 1"}]}
    worker = await started(world, flow(node("a", wait_for=[either]), node("b", wait_for=[{"sleep": 3600}])))
    run = await world.submit("flow")
    await world.until_run(run, lambda found: found.state == "running")
    assert await states_of(world, run.id) == {"a": "suspended", "b": "suspended"}
    push = world.engine.events.publish

    for scope, payload in ((None, '{"n": 2}'), ("s", '{"n": 1}'), ("s", '{"x": 1}')):
        await push(EventSpec("go", payload, scope=scope))
    assert (await states_of(world, run.id))["a"] == "suspended"
    await push(EventSpec("go", '{"n": 2}', scope="s"))
    await world.until(lambda: order(worker) == ["a"])
    [came] = worker.calls[0].body["trigger"]["conditions"]
    assert (came["event"], came["payload"]) == ("go", {"n": 2})
    await world.change(f"UPDATE wait SET due_at = due_at - {LATER_MS}")
    await world.tick()
    assert (await world.ended(run)).state is RunState.COMPLETED
    assert worker.calls[1].body["trigger"]["conditions"] == [{"sleep": 3600}]
    assert await world.rows("SELECT * FROM wait") == []


async def test_a_node_waits_for_the_event_of_its_own_order(world: World) -> None:
    worker = await started(
        world, flow(node("a", wait_for=[{"event": "paid", "scope_from": "input.order"}]), node("b", "a"))
    )
    one, two = [await world.submit("flow", json.dumps({"order": order})) for order in ("o-1", "o-2")]
    none = await world.ended(await world.submit("flow", "{}"))
    assert json.loads(none.error or "")["type"] == "expression_failed"
    for run in (one, two):
        await world.until_run(run, lambda found: found.state == "running")
    for scope in (None, "o-3", "o-2"):
        await world.engine.events.publish(EventSpec("paid", scope=scope))
    assert (await world.ended(two)).state is RunState.COMPLETED
    await world.turns()
    assert {call.body["trigger"]["run"] for call in worker.calls} == {two.id}
    assert await states_of(world, one.id) == {"a": "suspended"}
    await world.engine.cancel_run(one.id)


async def test_a_cancelled_workflow_takes_its_nodes_along_and_starts_nothing(world: World) -> None:
    worker = await started(
        world,
        flow(node("a"), node("b", "a"), node("w", wait_for=[{"event": "never"}]), concurrency=[{"key": "'k'"}]),
    )
    await world.engine.pause_worker("w")
    run = await world.submit("flow")
    await world.until_run(run, lambda found: found.state == "running")
    other = await world.submit("flow")
    found = await world.engine.cancel_run(run.id, reason="enough")
    assert (found.state, found.reason, found.cancelled_by) == (RunState.CANCELLED, "enough", "request")
    await world.turns()
    assert await states_of(world, run.id) == {"a": "cancelled", "w": "cancelled"}
    [first, _] = (await nodes_of(world, run.id)).values()
    assert (first.reason, first.cancelled_by) == ("workflow cancelled: enough", "parent")
    await world.until_run(other, lambda found: found.state == "running")
    await world.engine.cancel_run(other.id)
    await world.engine.resume_worker("w")
    await world.turns()
    assert worker.calls == []


async def test_a_replay_runs_what_failed_and_what_comes_after_it(world: World) -> None:
    ok = False

    async def work(call: Call) -> Any:
        name = call.body["trigger"]["node"]
        return json.dumps(name) if ok or name != "b" else call.failed()

    worker = await world.worker("w", "echo", flow(node("a"), node("b", "a"), node("c", "b"), node("d", "a")), work=work)
    run = await world.ended(await world.submit("flow"))
    assert run.state is RunState.FAILED
    old = await nodes_of(world, run.id)
    alone = await refused(world.engine.replay_run(old["b"].id))
    assert isinstance(alone, Conflict)
    assert alone.code == "run_is_node"
    ok = True
    before = len(worker.calls)
    await world.engine.replay_run(run.id)
    assert (await world.ended(run)).state is RunState.COMPLETED
    assert order(worker)[before:] == ["b", "c"]
    assert worker.calls[before].body["parents"] == {"a": "a"}
    new = await nodes_of(world, run.id)
    assert (new["a"].id, new["d"].id) == (old["a"].id, old["d"].id)
    assert (await world.engine.get_run(old["b"].id)).was_node == "b"
    await world.engine.replay_run(run.id, nodes=["d"])
    await world.ended(run)
    assert order(worker)[before:] == ["b", "c", "d"]
    await world.engine.replay_run(run.id, everything=True)
    await world.ended(run)
    assert sorted(order(worker)[-4:]) == ["a", "b", "c", "d"]
    assert isinstance(await refused(world.engine.replay_run(run.id, nodes=["x"])), Exception)


async def test_workflows_of_one_group_run_one_after_another(world: World) -> None:
    worker = await started(world, flow(node("a"), node("b", "a"), concurrency=[{"key": "'k'"}]))
    runs = [await world.submit("flow") for _ in range(3)]
    await world.all_ended(runs)
    assert [call.body["trigger"]["run"] for call in worker.calls] == [run.id for run in runs for _ in range(2)]


async def test_an_end_that_another_server_took_is_followed_by_the_owner(owner: World, other: World) -> None:
    worker = await owner.worker("w", "echo", flow(node("a"), node("b", "a")), work=named)
    other.network.workers["w"] = worker
    await other.until(lambda: "flow" in other.parts.registry.tasks)
    runs = [await other.submit("flow") for _ in range(5)]
    assert {run.state for run in await other.all_ended(runs)} == {RunState.COMPLETED}
    await owner.until(lambda: not owner.parts.desk.picture.running)
    await owner.until_rows("SELECT * FROM news", [])


async def test_a_workflow_goes_on_after_a_crash(local: World) -> None:
    worker = await started(
        local, flow(node("a", wait_for=[{"sleep": 3600}]), node("b", "a"), concurrency=[{"key": "'k'"}])
    )
    run = await local.submit("flow")
    await local.until_run(run, lambda found: found.state == "running")
    await local.crash()
    await local.restart()
    await local.change(f"UPDATE wait SET due_at = due_at - {LATER_MS}")
    await local.tick()
    assert (await local.ended(run)).state is RunState.COMPLETED
    assert order(worker) == ["a", "b"]


async def test_a_node_is_skipped_or_cancelled_as_its_conditions_say(world: World) -> None:
    await started(
        world,
        flow(
            node("a"),
            node("skipped", "a", skip_if=[{"expression": "parents.a == 'a'"}]),
            node("after", "skipped"),
            node("never", "a", wait_for=[{"expression": "parents.a == 'b'"}]),
            node("wrong", "a", skip_if=[{"expression": "parents.a.x > 1"}]),
            node("off", "a", cancel_if=[{"expression": "true"}]),
            node("mapped", "a", input="{'x': parents.a, 'n': input.n}"),
        ),
    )
    run = await world.ended(await world.submit("flow", '{"n": 5}'))
    found = await nodes_of(world, run.id)
    assert {name: str(one.state) for name, one in found.items()} == {
        "a": "completed",
        "skipped": "skipped",
        "after": "completed",
        "never": "skipped",
        "wrong": "failed",
        "off": "cancelled",
        "mapped": "completed",
    }
    assert json.loads(found["wrong"].error or "")["code"] == "expression_failed"
    assert (found["off"].cancelled_by, found["never"].reason) == ("condition", "wait_for can never come true")
    assert json.loads(found["mapped"].input) == {"x": "a", "n": 5}


async def test_a_run_of_a_workflow_that_has_not_ended_is_not_replayed(world: World) -> None:
    await started(world, flow(node("a", wait_for=[{"event": "never"}])))
    run = await world.submit("flow")
    assert isinstance(await refused(world.engine.replay_run(run.id)), Conflict)

"""`hurlbat.testing`: workflows in a virtual world, with what they wait for at its time."""

from datetime import timedelta
from typing import Any

import pytest

from hurlbat import (
    Backoff,
    CancelRun,
    Context,
    Hurlbat,
    OnEvent,
    RunCancelled,
    RunFailed,
    Sleep,
    When,
    any_of,
)
from hurlbat.testing import Faults, World, simulated, world_fixture

hurlbat = Hurlbat()
world = world_fixture(hurlbat, path="/")
stormy = world_fixture(hurlbat, path="/", seeds=range(2), faults=Faults.from_seed)

order = hurlbat.workflow("order", input=dict[str, int], on_events="order.placed")


@order.task
async def reserve(order: dict[str, int]) -> int:
    """Reserve, or give in."""
    if order["id"] < 0:
        raise CancelRun("no such order")
    return order["id"] * 10


@order.task(parents=reserve, wait_for=any_of(Sleep(timedelta(days=2)), OnEvent("paid", expression="input.id == 7")))
def remind(order: dict[str, int], ctx: Context) -> list[Any]:
    """Tell what was waited for; in a thread."""
    return [ctx.output(reserve), ["event" if "event" in came else "sleep" for came in ctx.conditions]]


@order.task(parents=[reserve], skip_if=When("parents.reserve < 50"))
async def thank(ctx: Context) -> str:
    """Thank for large orders."""
    return f"thanks for {ctx.output(reserve)}"


@order.task(parents=[remind, thank], retries=2, backoff=Backoff(strategy="fixed", initial=3_600, jitter=False))
async def ship(order: dict[str, int], ctx: Context) -> list[Any]:
    """Ship at the second attempt, but for some."""
    if ctx.attempt == 1 or order["id"] == 13:
        raise ValueError("no lorry")
    return [ctx.was_skipped(thank), ctx.output(thank, "no thanks"), ctx.workflow_run_id]


undone: list[Any] = []


@order.on_failure
async def undo(order: dict[str, int], ctx: Context) -> None:
    """Take back what was reserved."""
    undone.append([order["id"], ctx.output(reserve), ctx.output(ship, None)])


steady = hurlbat.workflow("steady", input=int)
a = steady.task(name="a", retries=50)(lambda number: number)
b = steady.task(name="b", retries=50, parents=a, wait_for=Sleep(3_600))(lambda number: None)


@steady.task(retries=50, parents=[a, b])
async def c(ctx: Context) -> int:
    """Double what the first node gave."""
    return int(ctx.output(a)) * 2


night = Hurlbat()
nights = world_fixture(night, path="/")
inner = night.workflow("inner", input=dict[str, int])
inner.task(name="waits", wait_for=Sleep(3_600))(lambda given: given["id"] + 1)
nightly = night.workflow("nightly", input=None, crons="0 3 * * *")
first = nightly.task(name="first")(lambda: 1)
nightly.add(inner, parents=first, input="{'id': parents.first}")


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Forget what was undone."""
    undone.clear()


async def states(world: World, task: str = "order") -> dict[str, str]:
    """Return the states of the runs of an order's nodes."""
    return {run.task: run.state for run in await world.runs() if run.task.startswith(f"{task}.")}


@simulated
async def test_a_workflow_goes_on_after_days(world: World) -> None:
    began = world.now()
    ref = await order.run_no_wait({"id": 1})
    await world.settle()
    assert await states(world) == {
        "order.reserve": "completed",
        "order.remind": "suspended",
        "order.thank": "skipped",
    }
    await world.advance(days=3)
    run = await ref.status()
    assert run.output == {"ship": [True, "no thanks", ref.id]}
    assert (await world.runs(task="order.remind"))[0].output == [10, ["sleep"]]
    assert timedelta(days=2, hours=1) < world.now() - began
    assert str(run.finished_at)[:16] == (began + timedelta(days=2, hours=1)).isoformat()[:16]


@simulated
async def test_a_workflow_is_waited_for_and_an_event_wakes_it(world: World) -> None:
    [started] = (await hurlbat.events.push("order.placed", {"id": 7})).runs
    await world.settle()
    await hurlbat.events.push("paid", {"id": 8})
    await world.settle()
    assert (await states(world))["order.remind"] == "suspended"
    await hurlbat.events.push("paid", {"id": 7})
    assert await order.ref(started).result() == {"ship": [False, "thanks for 70", started]}
    assert (await world.runs(task="order.remind"))[0].output == [70, ["event"]]


@simulated
async def test_a_failure_is_followed_by_its_node_and_told_to_who_waits(world: World) -> None:
    ref = await order.run_no_wait({"id": 13})
    await world.drain()
    with pytest.raises(RunFailed, match="order failed: ValueError: node ship failed: ValueError: no lorry") as failed:
        await ref.result()
    assert (failed.value.code, failed.value.type) == ("node_failed", "ValueError")
    assert undone == [[13, 130, None]]
    found = await ref.status()
    assert [(node["name"], node["state"]) for node in found.nodes] == [
        ("reserve", "completed"),
        ("remind", "completed"),
        ("thank", "completed"),
        ("ship", "failed"),
        ("undo", "completed"),
    ]
    await ref.replay(from_=[ship])
    await world.drain()
    assert undone == [[13, 130, None]] * 2
    assert len(await world.runs(task="order.reserve")) == 1
    assert [run.was_node for run in await world.runs(task="order.ship")] == ["ship", None]


@simulated
async def test_a_node_that_gives_in_cancels_what_comes_after_it(world: World) -> None:
    with pytest.raises(RunCancelled) as cancelled:
        await order.run({"id": -1})
    assert (cancelled.value.run.state, cancelled.value.by) == ("cancelled", "node")
    assert await states(world) == {
        "order.reserve": "cancelled",
        "order.remind": "cancelled",
        "order.thank": "cancelled",
        "order.ship": "cancelled",
    }
    [reserved] = await world.runs(task="order.reserve")
    assert (reserved.reason, reserved.cancelled_by) == ("no such order", "task")


@simulated
async def test_a_workflow_runs_at_its_times_with_another_as_its_node(nights: World) -> None:
    await nights.advance(days=3)
    runs = await nights.runs(task="nightly")
    assert [(run.state, run.output) for run in runs] == [("completed", {"inner": {"waits": 2}})] * 3
    assert [str(run.created_at)[11:16] for run in runs] == ["03:00"] * 3
    assert [str(run.finished_at)[11:16] for run in runs] == ["04:00"] * 3


@simulated
async def test_a_cancelled_workflow_takes_its_nodes_along(world: World) -> None:
    ref = await order.run_no_wait({"id": 1})
    await world.settle()
    await ref.cancel("changed their mind")
    await world.drain()
    assert (await states(world))["order.remind"] == "cancelled"
    assert undone == []


@simulated
async def test_a_workflow_survives_a_server_that_dies_while_it_waits(world: World) -> None:
    ref = await order.run_no_wait({"id": 6})
    await world.settle()
    await world.restart_server()
    await world.advance(days=3)
    assert (await ref.status()).output == {"ship": [False, "thanks for 60", ref.id]}


@simulated
async def test_in_a_storm_a_workflow_goes_on_all_the_same(stormy: World) -> None:
    refs = await steady.run_many_no_wait([1, 2, 3])
    await stormy.drain()
    stormy.calm()  # so that every look at what came of it is answered
    assert [(await ref.status()).output for ref in refs] == [{"c": number * 2} for number in (1, 2, 3)]
    assert len(await stormy.runs()) == 12

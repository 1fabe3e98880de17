"""`hurlbat.testing`: tasks and their children in a virtual world, by the whole SDK and the real engine."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from hurlbat import Concurrency, Context, Hurlbat, RunCancelled, RunFailed, WouldDeadlock
from hurlbat.testing import World, simulated, world_fixture

hurlbat = Hurlbat()
world = world_fixture(hurlbat, path="/", begin=datetime(2027, 3, 26, 12, 0, tzinfo=UTC))
done: list[Any] = []


@hurlbat.task(retries=0)
async def double(number: int) -> int:
    done.append(number)
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number * 2


@hurlbat.task
async def all_of(count: int) -> list[int]:
    return await double.run_many(list(range(count)))


@hurlbat.task
async def those_that_can(numbers: list[int]) -> list[str]:
    outputs = await double.run_many(numbers, return_exceptions=True)
    return [str(one) if isinstance(one, int) else f"{type(one).__name__} {getattr(one, 'type', '')}" for one in outputs]


@hurlbat.task
async def one_of(number: int) -> str:
    try:
        return str(await double.run(number))
    except RunFailed as error:
        return f"{error.code} {error.type} {error.run.parent is not None}"


@hurlbat.task(retries=3)
async def patient(number: int, ctx: Context) -> list[Any]:
    outputs: list[Any] = await double.run_many([number, number + 1], child_key="pair")
    left = await double.run_no_wait(number + 2, child_key="left")
    if ctx.attempt < 3:
        raise ConnectionError("not yet")
    return [*outputs, await left.result(), left.id]


@hurlbat.task(concurrency=Concurrency("'all'", max_runs=1), retries=5)
async def itself(depth: int) -> int:
    done.append(depth)
    return depth if depth == 0 else await itself.run(depth - 1)


@hurlbat.task(concurrency=Concurrency("'all'", max_runs=1), retries=5)
async def by_itself(depth: int) -> str:
    try:
        await by_itself.run(depth - 1)
    except WouldDeadlock as error:
        return error.detail
    return "no"


@hurlbat.task
async def long(seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
        done.append("slept")
    except asyncio.CancelledError:
        done.append("stopped")
        raise


@hurlbat.task
async def family(depth: int) -> None:
    if depth == 0:
        await long.run(3600.0)
    else:
        async with asyncio.TaskGroup() as group:
            group.create_task(family.run(depth - 1))
            group.create_task(long.schedule(3600.0, delay=3600))


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@simulated
async def test_a_thousand_children_give_their_outputs_in_order(world: World) -> None:
    ref = await all_of.run_no_wait(1_000)
    assert await ref.result() == [2 * n for n in range(1_000)]
    assert sorted(done) == list(range(1_000))
    children = await world.runs(task="double")
    assert {(run.parent, run.root) for run in children} == {(ref.id, ref.id)}


@simulated
async def test_failures_stand_where_their_inputs_stood(world: World) -> None:
    assert await those_that_can.run([1, -1, 2, -2]) == ["2", "RunFailed ValueError", "4", "RunFailed ValueError"]
    ref = await all_of.run_no_wait(0)
    assert await ref.result() == []


@simulated
async def test_a_child_s_failure_reaches_who_waits_for_it(world: World) -> None:
    assert await one_of.run(4) == "8"
    assert await one_of.run(-1) == "task_error ValueError True"


@simulated
async def test_a_parent_that_is_tried_again_finds_its_children_also_those_that_have_ended(world: World) -> None:
    ref = await patient.run_no_wait(5)
    *outputs, left = await ref.result()
    assert outputs == [10, 12, 14]
    assert sorted(done) == [5, 6, 7]
    children = {run.child_key or "": run for run in await world.runs(task="double")}
    assert (sorted(children), children["left"].id) == (["left", "pair:0", "pair:1"], left)
    assert (await ref.status()).tries == 3


@simulated
async def test_a_parent_that_would_wait_for_itself_fails_at_once_and_for_good(world: World) -> None:
    assert await itself.run(0) == 0
    with pytest.raises(RunFailed) as failed:
        await itself.run(1)
    error = failed.value
    assert (error.code, error.type, error.run.tries) == ("would_deadlock", "would_deadlock", 1)
    assert "raise max_runs, give it another key, or do not wait for it (409 would_deadlock)" in str(error)
    assert done == [0, 1]
    assert len(await world.runs(task="itself")) == 2


@simulated
async def test_who_catches_it_may_go_another_way(world: World) -> None:
    said = await by_itself.run(1)
    assert said.startswith("by_itself could never start: the run that waits for it holds all places (1) of its")


@simulated
async def test_cancelling_a_parent_stops_all_that_came_of_it(world: World) -> None:
    ref = await family.run_no_wait(2)
    await world.advance(seconds=10)
    assert len(await world.runs(state="running")) == 4
    await ref.cancel("enough")
    with pytest.raises(RunCancelled, match="enough"):
        await ref.result()
    await world.settle()
    below = [run for run in await world.runs() if run.id != ref.id]
    assert {(run.state, run.cancelled_by) for run in below} == {("cancelled", "parent")}
    assert len(below) == 5
    await world.advance(hours=3)
    assert done == ["stopped"]

"""The policies that workers declare, held against those of the tasks that others serve."""

from typing import Any

import pytest

from hurlbat_dispatcher import Invalid, NotFound, WorkerState
from tests.engine.world import World

pytestmark = pytest.mark.anyio


def task(name: str, strategy: str = "GROUP_ROUND_ROBIN", **more: Any) -> dict[str, Any]:
    """Return a task with a rule that it shares with others."""
    return {"name": name, "concurrency": [{"key": "input", "name": "shared", "strategy": strategy} | more]}


async def test_a_dispute_in_plain_json_is_refused_and_nothing_is_stored(world: World) -> None:
    await world.worker("a", task("one"))
    with pytest.raises(Invalid, match="the concurrency rule shared has the strategy") as refused:
        await world.worker("b", task("two", "CANCEL_NEWEST"), plain=True)
    assert (refused.value.code, refused.value.extra["field"]) == ("policy_invalid", "tasks")
    with pytest.raises(NotFound):
        await world.engine.get_worker("b")
    with pytest.raises(NotFound):
        await world.engine.get_task("two")


async def test_a_dispute_in_a_manifest_rejects_the_worker_and_leaves_its_tasks_as_they_are(world: World) -> None:
    await world.worker("a", task("one"))
    worker = await world.worker("b", task("two"))
    worker.tasks[:] = [task("two", "CANCEL_NEWEST"), {"name": "three"}]

    synced = await world.engine.sync_worker("b")

    assert (synced.state, synced.tasks) == (WorkerState.REJECTED, ("two",))
    assert synced.problem is not None
    assert synced.problem.startswith("the concurrency rule shared has the strategy")
    [rule] = (await world.engine.get_task("two")).flow.concurrency
    assert rule.strategy == "GROUP_ROUND_ROBIN"
    with pytest.raises(NotFound):
        await world.engine.get_task("three")


async def test_a_rejected_worker_is_ready_once_the_dispute_is_over(world: World) -> None:
    await world.worker("a", task("one"))
    worker = await world.worker("b", task("two", "CANCEL_NEWEST"))
    assert (await world.engine.get_worker("b")).state is WorkerState.REJECTED
    worker.tasks[:] = [task("two")]
    assert (await world.engine.sync_worker("b")).state is WorkerState.READY


@pytest.mark.parametrize("plain", [False, True])
async def test_a_worker_may_change_its_mind_about_all_of_its_own_tasks(world: World, plain: bool) -> None:
    worker = await world.worker("a", task("one"), task("two"), plain=plain)
    worker.tasks[:] = [task("one", "CANCEL_NEWEST"), task("three", "CANCEL_NEWEST")]
    changed = await world.register(worker)
    assert (changed.state in (WorkerState.READY, WorkerState.UNVERIFIED), changed.tasks) == (True, ("one", "three"))


async def test_of_one_task_that_two_workers_declare_the_newest_policy_counts(world: World) -> None:
    await world.worker("a", task("one", max_runs=1))
    await world.worker("b", task("one", "CANCEL_NEWEST", max_runs=5))
    found = await world.engine.get_task("one")
    [rule] = found.flow.concurrency
    assert (rule.max_runs, rule.strategy, found.workers) == (5, "CANCEL_NEWEST", ("a", "b"))


@pytest.mark.parametrize("plain", [False, True])
async def test_an_expression_that_cannot_be_read_is_told_where_it_is_registered(world: World, plain: bool) -> None:
    wrong = {"name": "one", "rate_limits": [{"key": "cdn", "units": "input.size +"}]}
    if plain:
        with pytest.raises(Invalid, match=r"task one: rate_limits\[0\]\.units"):
            await world.worker("a", wrong, plain=True)
    else:
        await world.worker("a", wrong)
        rejected = await world.engine.get_worker("a")
        assert rejected.state is WorkerState.REJECTED
        assert rejected.problem is not None
        assert rejected.problem.startswith("task one: rate_limits[0].units")

"""Why a run waits, or why it ended so."""

import asyncio
import json
from typing import Any

import pytest

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import BudgetView, Explanation, NotFound, Unavailable
from hurlbat_dispatcher.neighbours import Neighbours
from tests.engine.far_side import Call
from tests.engine.world import SOON, World

pytestmark = pytest.mark.anyio

BY_USER = {"name": "by_user", "concurrency": [{"key": "input.user", "max_runs": 1}]}
LIMITED = {"name": "limited", "rate_limits": [{"key": "cdn", "units": 2}]}
SOME = json.dumps({"user": "u1"})


def holder(found: Explanation) -> BudgetView:
    """Return the one budget that holds the run."""
    [view] = [one for one in found.budgets if one.holds]
    return view


async def test_a_full_group_is_named_with_who_occupies_it_and_the_place_in_line(world: World) -> None:
    worker = await world.worker("w", BY_USER, slots=9)
    worker.work = worker.held
    first = await world.submit("by_user", SOME)
    second, third = await world.submit("by_user", SOME), await world.submit("by_user", SOME)
    await world.until(lambda: len(worker.open) == 1)

    found, last = await world.engine.explain(second.id), await world.engine.explain(third.id)

    view = holder(found)
    assert (view.kind, view.name, view.key, view.used, view.limit) == ("concurrency", "input.user", "u1", 1, 1)
    assert view.occupied_by == (first.id,)
    assert (found.position, last.position) == (1, 2)
    assert "'u1' of rule input.user is full: 1 of 1" in found.summary
    assert "1 run of its kind is before it." in last.summary
    assert [(one.name, one.room) for one in found.budgets if one.kind == "slots"] == [("w", True)]
    assert found.frees is not None
    assert "max_runs" in found.frees
    worker.gate.set()
    await world.all_ended([first, second, third])


async def test_slots_that_are_taken_or_not_to_be_had(world: World) -> None:
    worker = await world.worker("w", slots=1)
    worker.work = worker.held
    runs = [await world.submit(), await world.submit()]
    await world.until(lambda: len(worker.open) == 1)

    found = await world.engine.explain(runs[1].id)
    view = holder(found)
    assert (view.kind, view.name, view.used, view.limit, view.occupied_by) == ("slots", "w", 1, 1, (runs[0].id,))
    assert found.summary == "All slots of worker w are taken (1 of 1)."
    running = await world.engine.explain(runs[0].id)
    assert running.summary.startswith("Attempt 1 runs on worker w since ")

    await world.engine.pause_worker("w")
    assert "Worker w is paused" in (await world.engine.explain(runs[1].id)).summary
    await world.engine.delete_worker("w")
    assert (await world.engine.explain(runs[1].id)).summary == "No registered worker serves task echo."
    worker.gate.set()


async def test_rate_limits_pauses_and_their_hours(world: World) -> None:
    await world.engine.limits.put("cdn", 3, 3_600_000)
    await world.worker("w", LIMITED, slots=9)
    await world.ended(await world.submit("limited"))
    waiting = await world.submit("limited")

    found = await world.engine.explain(waiting.id)
    view = holder(found)
    assert (view.kind, view.name, view.used, view.limit, view.units) == ("rate_limit", "cdn", 2, 3, 2)
    assert found.earliest_start == view.opens_at is not None
    assert "is used up: 2 of 3 units in 3600 s, and the run takes 2. There is room at " in found.summary

    await world.engine.limits.put("cdn", 1, 3_600_000)
    assert "lets 1 units through, and the run takes 2" in (await world.engine.explain(waiting.id)).summary
    await world.engine.limits.put("cdn", 9, 3_600_000)
    await world.ended(waiting)

    await world.engine.limits.pause_task("limited")
    held = await world.submit("limited")
    assert (await world.engine.explain(held.id)).summary == "Task limited is paused."
    await world.engine.limits.pause("cdn")
    await world.engine.limits.resume_task("limited")
    found = await world.engine.explain(held.id)
    assert "rate limit cdn: it is paused" in found.summary
    assert found.frees == "Resume the key: POST /rate-limits/cdn/resume."
    await world.engine.limits.resume("cdn")
    await world.ended(held)


async def test_later_again_and_in_the_end(world: World) -> None:
    worker = await world.worker("w", {"name": "echo", "retries": 1, "backoff": {"initial": 3600, "jitter": False}})
    later = await world.submit(delay=3600)
    found = await world.engine.explain(later.id)
    assert found.summary.startswith("It is scheduled for ")
    assert found.earliest_start == later.due_at

    async def failing(call: Call) -> FailedLine:
        return call.failed()

    worker.work = failing
    failed = await world.submit()
    await world.until_run(failed, lambda run: run.state == "queued" and run.attempt == 1)
    found = await world.engine.explain(failed.id)
    assert "for its next attempt, as attempt 1 did not succeed" in found.summary

    await world.engine.cancel_run(later.id, reason="not needed")
    assert (await world.engine.explain(later.id)).summary.endswith(": not needed.")
    with pytest.raises(NotFound):
        await world.engine.explain("00000000-0000-7000-8000-000000000000")


async def test_a_run_that_a_rule_cancelled_says_which_and_for_whom(world: World) -> None:
    rule = {"key": "'all'", "max_runs": 1, "strategy": "CANCEL_IN_PROGRESS"}
    worker = await world.worker("w", {"name": "latest", "concurrency": [rule]}, slots=9)
    worker.work = worker.held
    first = await world.submit("latest")
    await world.until(lambda: len(worker.open) == 1)
    second = await world.submit("latest")

    found = await world.engine.explain(first.id)

    assert found.run.reason == "concurrency"
    assert f"by the concurrency rule 'all' (CANCEL_IN_PROGRESS): run {second.id} took its place." in found.summary
    worker.gate.set()


async def test_a_server_that_does_not_start_the_runs_asks_the_one_that_does(
    owner: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await owner.worker("w", BY_USER, slots=9)
    worker.work = worker.held
    await other.until(lambda: "by_user" in other.parts.registry.tasks)
    first, second = await owner.submit("by_user", SOME), await other.submit("by_user", SOME)
    monkeypatch.setattr("hurlbat_dispatcher.neighbours.ASK_SECONDS", SOON)
    async with asyncio.timeout(SOON):
        while not (there := await owner.engine.explain(second.id)).budgets:
            await owner.turns()
    here = await other.engine.explain(second.id)
    assert holder(here) == holder(there)
    assert holder(here).occupied_by == (first.id,)

    do = Neighbours._do

    def deaf(neighbours: Neighbours, said: dict[str, Any]) -> None:
        if "asked" not in said:
            do(neighbours, said)

    monkeypatch.setattr(Neighbours, "_do", deaf)
    monkeypatch.setattr("hurlbat_dispatcher.neighbours.ASK_SECONDS", 0.05)
    with pytest.raises(Unavailable, match="did not answer"):
        await other.engine.explain(second.id)
    worker.gate.set()
    await owner.all_ended([first, second])

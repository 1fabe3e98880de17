"""Two servers at a time, in every schedule: a time that comes beside a change, one event or key twice, a move."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from hurlbat_dispatcher.schedules import Schedules
from hurlbat_dispatcher.store import firing, publishing, runs
from tests.interleavings.scenes import (
    HEIR,
    NOW,
    OWNER,
    PEER,
    SCHEDULE,
    SOON,
    Deed,
    cancel,
    does,
    fire,
    gathers,
    looks_after,
    move,
    publish,
    scene,
    succeeds,
    tick,
)
from tests.interleavings.schedules import SomeSchedules
from tests.interleavings.stage import Stage
from tests.interleavings.stepper import Fault

pytestmark = pytest.mark.anyio


async def pause(door: Schedules) -> None:
    await door.pause(SCHEDULE)


async def pause_and_resume(door: Schedules) -> None:
    await door.pause(SCHEDULE)
    await door.resume(SCHEDULE)


async def other_input(door: Schedules) -> None:
    await door.update(SCHEDULE, {"input": '"other"'})


async def other_times(door: Schedules) -> None:
    await door.update(SCHEDULE, {"expression": "*/2 * * * *"})


async def delete(door: Schedules) -> None:
    await door.delete(SCHEDULE)


Change = Callable[[Schedules], Coroutine[Any, Any, None]]
CHANGES: dict[str, tuple[Change, set[tuple[str, ...]]]] = {
    "pause": (pause, {("running 1",), ()}),
    "other times": (other_times, {("running 1",), ()}),
    "deletion": (delete, {("running 1",), ()}),
    "another input": (other_input, {("running 1",)}),
}
DUE = scene(free=2, scheduled=True)
LOST = scene(free=2, scheduled=True, owned_until=NOW - 1)
LATER = NOW + 60_000


@pytest.mark.parametrize("change", CHANGES)
async def test_a_time_that_comes_beside_a_change_is_fired_once_or_left_to_the_change(stage: Stage, change: str) -> None:
    work, endings = CHANGES[change]
    outcome = await stage.show(DUE, does(OWNER, tick, tick), looks_after(PEER, work))
    assert outcome.broken == {}
    assert outcome.endings == endings
    assert outcome.waits > 0


async def test_a_time_that_comes_beside_a_pause_and_its_end_is_fired_once_at_most(stage: Stage) -> None:
    outcome = await stage.show(DUE, does(OWNER, tick), looks_after(PEER, pause_and_resume))
    assert outcome.broken == {}
    assert outcome.endings == {("running 1",), ()}


async def test_a_time_that_comes_as_the_lanes_change_hands_is_fired_once(stage: Stage) -> None:
    drawn = SomeSchedules(seed=1, count=40)
    outcome = await stage.show(LOST, does(OWNER, tick), succeeds(HEIR, tick), schedules=drawn)
    assert outcome.broken == {}
    assert outcome.endings == {("running 1",)}


async def test_a_fire_by_hand_and_a_due_time_are_two(stage: Stage) -> None:
    outcome = await stage.show(DUE, does(OWNER, tick), does(PEER, fire))
    assert outcome.broken == {}
    assert {len(ending) for ending in outcome.endings} == {2}


async def test_two_fires_by_hand_are_two(stage: Stage) -> None:
    outcome = await stage.show(DUE, does(PEER, fire), does(HEIR, fire))
    assert outcome.broken == {}
    assert outcome.endings == {("queued 0", "queued 0")}


@pytest.mark.parametrize("other", [OWNER, HEIR])
async def test_of_one_event_that_two_servers_publish_the_runs_are_there_once(stage: Stage, other: str) -> None:
    outcome = await stage.show(scene(free=2), does(PEER, publish(1)), does(other, publish(2)))
    assert outcome.broken == {}
    assert {len(ending) for ending in outcome.endings} == {1}
    assert outcome.clashes > 0


@pytest.mark.parametrize("other", [OWNER, HEIR])
async def test_two_submits_of_one_debounce_at_two_servers_are_one_run(stage: Stage, other: str) -> None:
    outcome = await stage.show(scene(free=2), does(PEER, gathers(1)), does(other, gathers(2)))
    assert outcome.broken == {}
    assert outcome.endings == {("queued 0",)}
    assert outcome.inputs == {("1",), ("2",)}
    assert outcome.clashes > 0


async def test_a_run_that_is_moved_beside_its_start_is_moved_or_started(stage: Stage) -> None:
    outcome = await stage.show(scene(SOON, free=1), does(OWNER, tick, tick), does(PEER, move(SOON, LATER)))
    assert outcome.broken == {}
    assert outcome.endings == {("queued 0",), ("running 1",)}


async def test_a_run_that_is_moved_and_cancelled_is_cancelled(stage: Stage) -> None:
    outcome = await stage.show(scene(SOON), does(PEER, move(SOON, LATER)), does(HEIR, cancel(SOON)))
    assert outcome.broken == {}
    assert outcome.endings == {("cancelled 0",)}


FAULTS: dict[str, tuple[tuple[Fault, ...], Deed, Deed, str]] = {
    "a time is fired though its schedule is paused meanwhile": (
        (Fault(firing.DUE, r" FOR UPDATE", ""),),
        does(OWNER, tick),
        looks_after(PEER, pause),
        "its schedule was paused",
    ),
    "an event that is known starts its runs once more": (
        tuple(Fault(kept, r"\Z", " ON CONFLICT DO NOTHING") for kept in (publishing.KEEP_EVENT, publishing.KEEP_START)),
        does(PEER, publish(1)),
        does(HEIR, publish(2)),
        "is of an event that does not say so",
    ),
    "a run that has started is moved": (
        (Fault(runs.LOAD, r" FOR UPDATE", ""),),
        does(OWNER, tick, tick),
        does(PEER, move(SOON, LATER)),
        "became run …0a running",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_schedule_shows_that(stage: Stage, fault: str) -> None:
    planted, one, other, sentence = FAULTS[fault]
    arranged = scene(SOON, free=2) if planted[0].statement is runs.LOAD else DUE
    outcome = await stage.show(arranged, one, other, faults=planted, until_broken=sentence)
    assert [found for found in outcome.broken if sentence in found], list(outcome.broken)

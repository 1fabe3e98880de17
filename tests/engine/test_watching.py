"""Watching a run: what was told of it stays as it was told, and what is new is heard of at once."""

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress

import pytest

from hurlbat_dispatcher import Conflict, NotFound, Run, TimelineEntry, Unavailable
from hurlbat_dispatcher import waiting as waiting_module
from tests.engine.far_side import Call, Output
from tests.engine.test_histories import TASKS, Moody
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

Told = list[TimelineEntry]


async def follow(world: World, run_id: str) -> tuple[Told, Run]:
    """Watch a run from now to its end, and return what was told, each entry when it came first."""
    told: Told = []
    with await world.engine.watch(run_id) as watch:
        while True:
            story = list(watch.run.timeline)
            assert story[: len(told)] == told[: len(story)], "what was told has changed"
            told += story[len(told) :]
            if watch.run.is_final:
                return told, watch.run
            assert await watch.news(SOON), f"nothing more was heard of {watch.run}"


async def follow_all(world: World, ids: Iterable[str]) -> None:
    """Watch runs to their ends, and hold what was told against what is told to one who comes later."""
    followed = await asyncio.gather(*(follow(world, run_id) for run_id in ids))
    for told, run in followed:
        late = (await world.engine.get_run(run.id)).timeline
        assert told == list(late)[: len(told)]
        assert told[-1].kind in (run.state, "late", "callback"), told


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let those who watch look after every commit, in storms, too."""
    monkeypatch.setattr(waiting_module, "GAP", 0.0)


async def test_the_story_of_a_life_with_everything_in_it_is_only_ever_added_to(world: World, at_once: None) -> None:
    worker = await world.worker("w", {"name": "echo", "retries": 3, "backoff": {"strategy": "fixed", "initial": 0}})
    run = await world.submit("echo", delay=3600)
    following = asyncio.ensure_future(follow(world, run.id))
    await world.until(lambda: run.id in world.parts.waiters.watched)
    await world.engine.move_run(run.id, delay=1800)
    attempts: list[Call] = []
    go_on = asyncio.Event()

    async def work(call: Call) -> Output:
        attempts.append(call)
        if call.attempt == 1:
            return call.failed()
        await go_on.wait()
        return "2"

    worker.work = work
    await world.time_comes(run, "due_at")
    await world.until(lambda: len(attempts) == 2)
    first, second = attempts
    await refused(world.engine.report_complete(run.id, 1, first.lease_token, "1", b"late"))
    await world.engine.report_log(run.id, 2, second.lease_token, [("info", "half")])
    go_on.set()
    told, ended = await following
    assert ended.output == "2"
    assert [entry.kind for entry in told] == [
        *("created", "scheduled", "moved", "started", "retry", "started", "late", "log", "completed")
    ]
    await refused(world.engine.report_complete(run.id, 1, first.lease_token, "1", b"too late"))
    told.append((await world.engine.get_run(run.id)).timeline[-1])
    assert told[-1].kind == "late"
    await world.engine.replay_run(run.id)
    again = await world.ended(run)
    assert list(again.timeline[: len(told)]) == told
    assert [entry.kind for entry in again.timeline[len(told) :]] == ["replayed", "started", "completed"]


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_to_a_run_its_story_is_only_ever_added_to(
    world: World, at_once: None, seed: int
) -> None:
    chance = random.Random(seed)
    moods = []
    for name, slots in (("a", 4), ("b", 3)):
        worker = await world.worker(name, *TASKS, slots=slots, max_batch=4)
        moods.append(Moody(world, worker, seed + slots))
        worker.answer = moods[-1].answer
    tasks, delays = ("once", "twice", "often"), (None, None, 0.01, 3600.0)
    ids = [(await world.submit(chance.choice(tasks), str(n), delay=chance.choice(delays))).id for n in range(40)]
    following = asyncio.ensure_future(follow_all(world, ids))
    for _ in range(60):
        run_id, engine = chance.choice(ids), world.engine
        try:
            await chance.choice([engine.cancel_run, engine.replay_run, _moved(world, chance)])(run_id)
        except Conflict:
            continue
    for mood in moods:
        mood.calm = True
    while not following.done():
        await world.change("UPDATE run SET lease_until = 1 WHERE lease_until IS NOT NULL AND state = 'running'")
        for [run_id] in await world.rows("SELECT id FROM run WHERE state = 'queued' AND due_at > created_at + 99999"):
            with suppress(Conflict):
                await world.engine.move_run(str(run_id), delay=0)
        await world.tick(sweep=True)
        for name in ("a", "b"):
            await world.engine.resume_worker(name)
        await asyncio.wait({following}, timeout=0.1)
    await following
    await asyncio.gather(*(task for mood in moods for task in mood.reports))


def _moved(world: World, chance: random.Random):  # type: ignore[no-untyped-def]  # as the methods beside it
    return lambda run_id: world.engine.move_run(run_id, delay=chance.choice([0.0, 0.01, 7200.0]))


@pytest.mark.usefixtures("nobody_looks_again")
async def test_one_who_watches_hears_of_a_commit_at_once_and_of_nothing_else(local: World, at_once: None) -> None:
    worker = await local.worker()
    worker.work = worker.held
    run = await local.submit()
    await local.until(lambda: len(worker.open) == 1)
    await local.turns()
    with await local.engine.watch(run.id) as watch:
        await local.submit("echo", "another")
        assert not await watch.news(0.02)
        await local.engine.cancel_run(run.id)
        assert await watch.news(SOON)
        assert watch.run.timeline[-1].kind == "cancelled"


async def test_what_happens_at_another_server_is_seen_within_a_second(
    owner: World, other: World, at_once: None
) -> None:
    worker = await owner.worker("w", {"name": "echo", "retries": 1, "backoff": {"strategy": "fixed", "initial": 3600}})

    async def fail(call: Call) -> Output:
        await worker.gate.wait()
        return call.failed()

    worker.work = fail
    run = await owner.submit()
    with await other.engine.watch(run.id) as watch:
        await other.parts.waiting.watch_again()  # takes the marks, and rings once
        assert await watch.news(SOON)
        worker.gate.set()
        await owner.put_back(run, "retry")
        while len(watch.run.timeline) < 3:
            assert await watch.news(SOON)
        assert [entry.kind for entry in watch.run.timeline] == ["created", "started", "retry"]
        assert waiting_module.WATCH_AGAIN == 1.0
        await owner.engine.cancel_run(run.id)
        assert await watch.news(SOON)
        assert watch.run.is_final


async def test_in_a_storm_of_changes_one_look_tells_of_many(local: World) -> None:
    run, call = await _running(local)
    with await local.engine.watch(run.id) as watch:
        looks, told = 0, len(watch.run.timeline)
        for number in range(100):
            await local.engine.report_log(run.id, 1, call.lease_token, [("info", str(number))])
            if number % 10 == 0 and await watch.news(0):
                looks += 1
        while await watch.news(0.1):
            looks += 1
        assert [entry.detail["message"] for entry in watch.run.timeline[told:]] == [str(n) for n in range(100)]
        assert looks < 60


async def _running(world: World) -> tuple[Run, Call]:
    worker = await world.worker()
    worker.work = worker.held
    run = await world.submit()
    await world.until(lambda: bool(worker.calls))
    return run, worker.calls[0]


async def test_nothing_is_left_of_one_who_has_watched(local: World) -> None:
    run, _ = await _running(local)
    before = asyncio.all_tasks()
    watching = asyncio.ensure_future(follow(local, run.id))
    await local.until(lambda: bool(local.parts.waiters.watched))
    await local.parts.waiting.watch_again()
    watching.cancel()
    await asyncio.wait({watching})
    waiters = local.parts.waiters
    assert (dict(waiters._watching), waiters.watches, local.parts.waiting._marks) == ({}, 0, {})
    await local.nothing_left(before)
    assert isinstance(await refused(local.engine.watch("00000000-0000-7000-8000-000000000000")), NotFound)
    assert (dict(waiters._watching), waiters.watches) == ({}, 0)


async def test_only_so_many_may_watch(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_module, "MAX_WATCHES", 2)
    run, _ = await _running(local)
    first = await local.engine.watch(run.id)
    with await local.engine.watch(run.id):
        problem = await refused(local.engine.watch(run.id))
        assert isinstance(problem, Unavailable)
        assert (problem.code, problem.extra["limit"]) == ("too_many_streams", 2)
    with await local.engine.watch(run.id):
        first.leave()
    first.leave()
    assert local.parts.waiters.watches == 0


async def test_a_server_that_stops_tells_no_more(local: World) -> None:
    run, _ = await _running(local)
    with await local.engine.watch(run.id) as watch:
        hearing = asyncio.ensure_future(watch.news(SOON))
        await asyncio.sleep(0)
        stopping = asyncio.ensure_future(local.engine.stop(0))
        problem = await refused(hearing)
        assert (isinstance(problem, Unavailable), watch.over) == (True, True)
        await stopping


async def test_a_run_that_is_removed_is_no_more_to_be_told_of(local: World, at_once: None) -> None:
    await local.worker()
    run = await local.ended(await local.submit())
    with await local.engine.watch(run.id) as watch:
        await local.change(f"DELETE FROM run WHERE id = '{run.id}'")
        await local.parts.waiting.watch_again()
        assert isinstance(await refused(watch.news(SOON)), NotFound)

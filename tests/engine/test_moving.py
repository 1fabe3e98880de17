"""Runs that wait for their time: they are listed, moved and cancelled until it comes. Time is moved, not waited for."""

import asyncio

import pytest

from hurlbat_dispatcher import Conflict, NotFound, RunState, Submission
from tests.engine.world import LATER_MS, SOON, World, refused

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


async def test_a_run_that_is_moved_to_now_starts_at_once(world: World) -> None:
    await world.worker()
    runs = [await world.submit("echo", delay=3600.0) for _ in range(3)]
    await world.engine.move_run(runs[0].id, runs[0].created_at - 1)
    await world.engine.move_run(runs[1].id, delay=0)
    moved = await world.engine.move_run(runs[2].id, delay=0.05)
    assert moved.created_at < moved.due_at < moved.created_at + SOON * 1000
    for run in runs:
        ended = await world.ended(run)
        assert [entry.kind for entry in ended.timeline] == [*("created", "scheduled", "moved", "started", "completed")]
        assert ended.started_at is not None
        assert ended.started_at >= ended.due_at


async def test_a_run_that_is_moved_away_does_not_start_at_its_old_time(world: World) -> None:
    await world.worker()
    run = await world.submit("echo", delay=3600.0)
    moved = await world.engine.move_run(run.id, run.due_at + LATER_MS)
    assert moved.due_at == run.due_at + LATER_MS
    await world.time_comes(run, "due_at")  # by as much as it was delayed at first
    assert (await world.engine.get_run(run.id)).state == "queued"
    await world.time_comes(run, "due_at")
    assert (await world.ended(run)).state == "completed"


async def test_what_is_moved_keeps_its_time_to_live_and_takes_its_schedule_timeout_along(world: World) -> None:
    await world.worker("w", {"name": "echo", "schedule_timeout": 60}, "plain")
    run = await world.submit("echo", delay=3600.0)
    moved = await world.engine.move_run(run.id, run.due_at - 1_000)
    assert moved.expires_at == moved.due_at + 60_000
    short = await world.submit("plain", delay=3600.0, ttl=7200.0)
    moved = await world.engine.move_run(short.id, delay=1.0)
    assert moved.expires_at == short.expires_at == short.created_at + 7_200_000


async def test_a_priority_is_changed_while_a_run_waits_for_its_time(world: World) -> None:
    worker = await world.worker(slots=1)
    worker.work = worker.held
    blocking = await world.submit("echo", "0")
    low, high = await world.submit("echo", "1", delay=3600.0), await world.submit("echo", "2", delay=3600.0)
    found = await world.engine.move_run(high.id, priority=9)
    assert (found.priority, found.due_at) == (9, high.due_at)
    assert [entry.kind for entry in found.timeline] == ["created", "scheduled"]
    for run in (low, high):
        await world.time_comes(run, "due_at")
    worker.gate.set()
    await world.all_ended([blocking, low, high])
    assert [call.input for call in worker.calls] == [0, 2, 1]


async def test_only_a_run_that_was_never_due_can_be_moved(world: World) -> None:
    worker = await world.worker("w", {"name": "echo", "retries": 1, "backoff": {"initial": 3600, "jitter": False}})
    ended = await world.ended(await world.submit())
    worker.work = worker.held
    running = await world.submit()
    await world.engine.pause_worker("w")
    waiting = await world.submit()
    cancelled = await world.submit("echo", delay=3600.0)
    await world.engine.cancel_run(cancelled.id)
    replayed = await world.engine.replay_run(cancelled.id)
    for run, code in ((ended, "run_finished"), (running, "run_running"), (waiting, "run_due"), (replayed, "run_due")):
        before = await world.engine.get_run(run.id)
        problem = await refused(world.engine.move_run(run.id, delay=60))
        assert isinstance(problem, Conflict)
        assert problem.code == code
        assert await world.engine.get_run(run.id) == before
    unknown = await refused(world.engine.move_run("00000000-0000-7000-8000-000000000000", delay=1))
    assert isinstance(unknown, NotFound)


async def test_moves_and_cancels_at_once_agree(world: World) -> None:
    await world.worker()
    ids = [(await world.submit("echo", delay=3600.0)).id for _ in range(20)]
    works = [world.engine.move_run(run_id, delay=delay) for run_id in ids for delay in (0, 7200.0)]
    works += [world.engine.cancel_run(run_id) for run_id in ids]
    answers = await asyncio.gather(*works, return_exceptions=True)
    assert all(not isinstance(answer, BaseException) or isinstance(answer, Conflict) for answer in answers)
    await world.turns()
    for run_id in ids:
        found = await world.engine.get_run(run_id)
        assert found.state in (RunState.CANCELLED, RunState.COMPLETED, RunState.RUNNING, RunState.QUEUED)
        if found.state is RunState.QUEUED:
            assert found.due_at - found.created_at >= 7_200_000


async def test_another_server_moves_a_run_and_the_owner_starts_it(owner: World, other: World) -> None:
    await owner.worker()
    run = await owner.submit("echo", delay=3600.0)
    await other.engine.move_run(run.id, delay=0.01)
    assert (await other.ended(run)).state == "completed"


async def test_what_waits_for_its_time_is_listed_the_newest_first(world: World) -> None:
    await world.worker("w", "echo", "other")
    await world.engine.pause_worker("w")
    due = await world.submit()
    delayed = [await world.submit(task, delay=3600.0) for task in ("echo", "other", "echo")]
    cancelled = await world.submit("echo", delay=3600.0)
    await world.engine.cancel_run(cancelled.id)
    page = await world.engine.list_runs(delayed=True, limit=2)
    rest = await world.engine.list_runs(delayed=True, cursor=page.next_cursor)
    assert [run.id for run in page.items + rest.items] == [run.id for run in reversed(delayed)]
    assert [run.id for run in (await world.engine.list_runs(delayed=True, task="other")).items] == [delayed[1].id]
    await world.engine.move_run(delayed[0].id, delay=0)
    await world.turns()
    left = await world.engine.list_runs(delayed=True)
    assert [run.id for run in left.items] == [delayed[2].id, delayed[1].id]
    assert due.id in [run.id for run in (await world.engine.list_runs(state=RunState.QUEUED)).items]


async def test_lists_of_a_while_begin_with_its_first_moment_and_end_before_its_last(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    runs = [await world.submit("echo", str(n)) for n in range(5)]
    for n, run in enumerate(runs):
        await world.change(f"UPDATE run SET created_at = {runs[0].created_at + n} WHERE id = '{run.id}'")
    first = runs[0].created_at

    async def listed(after: int | None, before: int | None) -> list[str]:
        found = await world.engine.list_runs(created_after=after, created_before=before)
        return [run.input for run in reversed(found.items)]

    assert await listed(first + 1, first + 3) == ["1", "2"]
    assert await listed(first + 4, None) == ["4"]
    assert await listed(None, first + 1) == ["0"]
    assert await listed(first - HOUR_MS, first) == []
    assert await listed(-(10**12), 1 << 50) == ["0", "1", "2", "3", "4"]


async def test_an_idempotency_key_with_a_time_holds_for_that_time(world: World) -> None:
    """At 0, 1.5, 4 and 7.5 hours, with a key for two: it is the time of the database that is moved."""
    await world.worker()

    async def submitted() -> tuple[str, bool]:
        accepted = await world.engine.submit(Submission("echo", "1", idempotency_key="k", idempotency_ttl=7200.0))
        return accepted.run.id, accepted.created

    first = await submitted()
    await world.ended(first[0])
    found = [first]
    for hours in (1.5, 2.5, 3.5):
        await world.change(f"UPDATE idempotency SET until = until - {int(hours * HOUR_MS)}")
        found.append(await submitted())
    assert [created for _, created in found] == [True, False, True, True]
    assert found[1][0] == first[0]
    assert len({run_id for run_id, _ in found}) == 3

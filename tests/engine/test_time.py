"""What time does to runs: delays, retries, and everything that runs out. Times are read from rows, never waited for."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Invalid, Run, RunState
from hurlbat_dispatcher.turn.crank import turn
from hurlbat_dispatcher.turn.operations import Tick
from tests.engine.far_side import Call, FakeWorker, accepted, marked, said, streaming
from tests.engine.world import LATER_MS, LEASE, World, refused

pytestmark = pytest.mark.anyio


def policy(**more: object) -> dict[str, object]:
    return {"name": "echo", "execution_timeout": 60} | more


def fixed(seconds: float, retries: int = 3) -> dict[str, object]:
    return policy(retries=retries, backoff={"strategy": "fixed", "initial": seconds, "jitter": False})


def _waits_after(attempt: int) -> Callable[[Run], bool]:
    return lambda run: run.attempt == attempt and run.state == "queued"


async def times(world: World, run: Run) -> dict[str, int]:
    names = ["created_at", "due_at", "started_at", "finished_at", "expires_at", "lease_until"]
    [row] = await world.rows(f"SELECT {', '.join(names)} FROM run WHERE id = '{run.id}'")
    return dict(zip(names, row, strict=True))


# -- delays ------------------------------------------------------------------------------------------------------------


async def test_a_delayed_run_starts_when_it_is_due_and_not_before(world: World) -> None:
    worker = await world.worker()
    run = await world.submit("echo", "1", delay=3600.0)
    await world.tick()
    found = await world.engine.get_run(run.id)
    assert (found.state, found.attempt, found.due_at - found.created_at) == ("queued", 0, 3_600_000)
    assert [(entry.kind, entry.detail) for entry in found.timeline] == [
        ("created", {}),
        ("scheduled", {"due_at": found.due_at}),
    ]
    assert worker.calls == []
    await world.time_comes(run, "due_at")
    assert (await world.ended(run)).output == "1"


async def test_runs_start_in_the_order_of_their_moments_to_the_millisecond(world: World) -> None:
    worker = await world.worker("w", slots=1)
    later = (await world.submit("echo", delay=0.0)).created_at + LATER_MS
    moments = [7, 3, 9, 1, 5, 0, 8, 2, 6, 4]
    runs = [await world.submit("echo", str(n), run_at=later + n) for n in moments]
    assert [run.due_at - later for run in runs] == moments
    await world.change(f"UPDATE run SET due_at = due_at - {LATER_MS} WHERE attempt = 0")
    await world.tick()
    await world.all_ended(runs)
    assert [call.input for call in worker.calls[1:]] == list(range(10))


async def test_a_short_delay_ends_by_itself(world: World) -> None:
    await world.worker()
    run = await world.submit("echo", delay=0.03)
    ended = await world.ended(run)
    assert ended.started_at is not None
    assert ended.started_at >= ended.due_at >= ended.created_at + 30


async def test_a_moment_that_has_passed_is_now(world: World) -> None:
    await world.worker()
    first = await world.submit("echo")
    ended = await world.ended(await world.submit("echo", run_at=first.created_at - 300 * 86_400_000))
    assert ended.due_at == ended.created_at


@pytest.mark.parametrize("years", [-2, 2])
async def test_a_moment_out_of_reach_is_a_mistake(world: World, years: int) -> None:
    await world.worker()
    run = await world.submit("echo", delay=3600.0)
    moment = run.created_at + years * 366 * 86_400_000
    for problem in (
        await refused(world.submit("echo", run_at=moment)),
        await refused(world.engine.move_run(run.id, moment)),
    ):
        assert isinstance(problem, Invalid)
        assert (problem.extra, "31536000" in problem.detail) == ({"field": "run_at", "limit": 31_536_000}, True)


# -- retries -----------------------------------------------------------------------------------------------------------


async def fail(call: Call) -> Any:
    return call.failed()


BACKOFFS = {
    "fixed": ({"strategy": "fixed", "initial": 7, "jitter": False}, [7_000, 7_000, 7_000]),
    "exponential": ({"initial": 2, "factor": 3, "max": 10, "jitter": False}, [2_000, 6_000, 10_000]),
    "list": ({"strategy": "list", "delays": [1, 60], "jitter": False}, [1_000, 60_000, 60_000]),
}


@pytest.mark.parametrize("name", BACKOFFS)
async def test_a_failure_waits_as_its_policy_says_and_gives_up_when_its_tries_are_used_up(
    world: World, name: str
) -> None:
    backoff, expected = BACKOFFS[name]
    worker = await world.worker("w", policy(retries=3, backoff=backoff), work=fail)
    run = await world.submit()
    waits = []
    for attempt in range(1, 4):
        found = await world.until_run(run, _waits_after(attempt))
        assert (found.tries, json.loads(found.error or "{}")["code"]) == (attempt, "task_error")
        waits.append(found.due_at - [entry for entry in found.timeline if entry.kind == "retry"][-1].at)
        await world.time_comes(run, "due_at")
    ended = await world.ended(run)
    assert waits == expected
    assert (ended.state, ended.attempt, ended.tries, ended.max_attempts) == ("failed", 4, 4, 4)
    assert worker.seen(run.id) == [1, 2, 3, 4]
    assert [entry.kind for entry in ended.timeline] == ["created"] + ["started", "retry"] * 3 + ["started", "failed"]


async def test_jitter_waits_between_half_and_all(local: World) -> None:
    await local.worker("w", policy(retries=1, backoff={"strategy": "fixed", "initial": 100}), work=fail)
    runs = await local.submit_all(20)
    waits = []
    for run in runs:
        found = await local.put_back(run, "retry")
        waits.append(found.due_at - found.timeline[-1].at)
    assert all(50_000 <= wait <= 100_000 for wait in waits)
    assert len(set(waits)) > 10


async def test_the_task_may_say_itself_how_long_to_wait(world: World) -> None:
    async def later(call: Call) -> Any:
        return call.failed(retry_after=123.5)

    await world.worker("w", fixed(7), work=later)
    found = await world.put_back(await world.submit(), "retry")
    assert found.due_at - found.timeline[-1].at == 123_500


async def test_a_task_that_says_no_retry_has_none(world: World) -> None:
    async def never(call: Call) -> Any:
        return call.failed(retryable=False, details='{"a": [1]}')

    worker = await world.worker("w", fixed(0), work=never)
    ended = await world.ended(await world.submit())
    assert (ended.state, ended.attempt, ended.tries) == ("failed", 1, 1)
    assert json.loads(ended.error or "") == {
        "code": "task_error",
        "type": "ValueError",
        "message": "boom",
        "details": {"a": [1]},
    }
    assert len(worker.calls) == 1


async def test_an_input_that_the_task_refuses_fails_at_once_with_its_fields(world: World) -> None:
    async def refuse(call: Call) -> Any:
        return call.failed("1 field", type="invalid_input", details='[{"loc": ["a"]}]')

    await world.worker("w", fixed(0), work=refuse)
    ended = await world.ended(await world.submit())
    error = json.loads(ended.error or "")
    assert (ended.state, ended.tries, error["code"], error["details"]) == (
        "failed",
        1,
        "invalid_input",
        [{"loc": ["a"]}],
    )


async def test_backpressure_says_what_was_asked_and_waits_as_long(world: World) -> None:
    async def busy(_: list[Call]) -> httpx.Response:
        return marked(429, retry_after="1e9")

    await world.worker("w", fixed(7), answer=busy)
    found = await world.put_back(await world.submit(), "pushed_back")
    entry = found.timeline[-1]
    assert found.due_at - entry.at == 3_600_000
    assert (found.tries, entry.detail["due_at"]) == (0, found.due_at)


async def test_a_worker_that_pushed_back_gets_nothing_until_then_and_then_everything(world: World) -> None:
    worker = await world.worker("w", fixed(7))

    async def busy(_: list[Call]) -> httpx.Response:
        worker.answer = None
        return marked(503, retry_after="0.05")

    worker.answer = busy
    first = await world.submit("echo", "0")
    await world.put_back(first, "pushed_back")
    rest = await world.submit_all(3)
    ended = await world.all_ended([first, *rest])
    assert [(run.state, run.tries) for run in ended] == [("completed", 1)] * 4


# -- what runs out -----------------------------------------------------------------------------------------------------


async def test_a_run_that_did_not_start_within_its_ttl_is_cancelled(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    run = await world.submit("echo", ttl=60.0)
    assert (run.expires_at or 0) - run.created_at == 60_000
    await world.time_comes(run, "expires_at", "ttl_at")
    ended = await world.ended(run)
    assert (ended.state, ended.error, ended.attempt) == (RunState.CANCELLED, None, 0)
    assert (ended.reason or "").startswith("ttl")
    assert ended.timeline[-1].detail == {"reason": ended.reason}


async def test_a_run_that_did_not_start_within_its_schedule_timeout_fails(world: World) -> None:
    await world.worker("w", policy(schedule_timeout=30))
    await world.engine.pause_worker("w")
    run = await world.submit("echo", delay=3600.0)
    assert (run.expires_at or 0) - run.due_at == 30_000
    await world.time_comes(run, "due_at", "expires_at")
    await world.time_comes(run, "expires_at")
    ended = await world.ended(run)
    assert (ended.state, json.loads(ended.error or "")["code"], ended.attempt) == ("failed", "schedule_timeout", 0)


async def test_the_shorter_of_both_counts(world: World) -> None:
    await world.worker("w", policy(schedule_timeout=30))
    await world.engine.pause_worker("w")
    first, second = await world.submit("echo", ttl=10.0), await world.submit("echo", ttl=99.0)
    assert [(run.expires_at or 0) - run.created_at for run in (first, second)] == [10_000, 30_000]


async def test_neither_counts_once_the_run_has_started(world: World) -> None:
    worker = await world.worker("w", policy(schedule_timeout=30), work=None)
    worker.work = worker.held
    run = await world.submit("echo", ttl=60.0)
    await world.until(lambda: len(worker.open) == 1)
    await world.time_comes(run, "expires_at", "ttl_at")
    assert (await world.engine.get_run(run.id)).state is RunState.RUNNING
    worker.gate.set()
    assert (await world.ended(run)).state is RunState.COMPLETED


async def test_a_retry_has_the_schedule_timeout_again_and_no_ttl(world: World) -> None:
    await world.worker("w", fixed(100) | {"schedule_timeout": 30}, work=fail)
    found = await world.put_back(await world.submit("echo", ttl=10.0), "retry")
    assert (found.expires_at or 0) - found.due_at == 30_000


@pytest.mark.parametrize("asked", [{"ttl": 60.0}, {}], ids=["ttl", "schedule_timeout"])
async def test_starts_that_did_not_reach_the_worker_do_not_put_off_what_runs_out(
    world: World, asked: dict[str, Any]
) -> None:
    worker = await world.worker("w", policy() if asked else policy(schedule_timeout=60))
    worker.away = httpx.ConnectError("refused")
    run = await world.submit("echo", **asked)
    found = await world.put_back(run, "not_sent")
    assert (found.tries, (found.expires_at or 0) - found.created_at) == (0, 60_000)
    await world.engine.pause_worker("w")
    await world.time_comes(run, "expires_at", "ttl_at")
    ended = await world.ended(run)
    assert ended.state is (RunState.CANCELLED if asked else RunState.FAILED)
    assert ended.tries == 0


# -- execution timeouts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plain", [False, True], ids=["protocol", "plain"])
async def test_an_attempt_beyond_its_execution_timeout_is_charged_and_its_worker_told(
    world: World, plain: bool
) -> None:
    worker = await world.worker("w", fixed(3600) | {"execution_timeout": 0.05}, plain=plain)
    worker.work = worker.held
    run = await world.submit()
    found = await world.put_back(run, "retry")
    assert (found.tries, json.loads(found.error or "")["code"]) == (1, "execution_timeout")
    if not plain:
        await world.until(lambda: worker.cancels == [(run.id, 1, "execution_timeout")])
    await world.until(lambda: not worker.open)
    assert await world.load() == 0


async def accepting(worker: FakeWorker) -> None:
    async def answer(_: list[Call]) -> httpx.Response:
        return httpx.Response(202, headers={"hurlbat-async": "1"}) if worker.plain else accepted()

    worker.answer = answer


@pytest.mark.parametrize("plain", [False, True], ids=["protocol", "plain"])
async def test_a_detached_attempt_has_no_lease_beyond_its_execution_timeout(world: World, plain: bool) -> None:
    worker = await world.worker("w", fixed(3600) | {"execution_timeout": 1}, plain=plain)
    await accepting(worker)
    run = await world.submit()
    await world.until_detached(run)
    [(lease_until, deadline_at)] = await world.rows(f"SELECT lease_until, deadline_at FROM run WHERE id = '{run.id}'")
    assert lease_until <= deadline_at
    assert deadline_at >= run.created_at + 1_000 + LEASE * 1_000 // 3  # a third of the lease as grace
    await world.time_comes(run, "deadline_at", "lease_until")
    found = await world.put_back(run, "retry")
    assert (found.tries, json.loads(found.error or "")["code"]) == (1, "execution_timeout")


async def test_the_time_that_an_attempt_waited_at_its_worker_is_not_its_execution_time(world: World) -> None:
    worker = await world.worker("w", fixed(3600) | {"execution_timeout": 60})
    await accepting(worker)
    run = await world.submit()
    await world.change(f"UPDATE run SET started_at = started_at - {LATER_MS} WHERE id = '{run.id}'")
    await world.until_detached(run)
    found = await world.engine.get_run(run.id)
    assert found.started_at is not None
    [(deadline_at,)] = await world.rows(f"SELECT deadline_at FROM run WHERE id = '{run.id}'")
    assert deadline_at >= found.created_at + 60_000
    await world.tick()
    assert (await world.engine.get_run(run.id)).state == "running"


async def test_a_detached_attempt_that_nobody_hears_of_is_charged_when_its_lease_is_over(world: World) -> None:
    worker = await world.worker("w", fixed(3600), slots=1)
    await accepting(worker)
    run = await world.submit()
    await world.until_detached(run)
    assert await world.load() == 1
    await world.time_comes(run, "lease_until")
    found = await world.put_back(run, "retry")
    assert (found.tries, json.loads(found.error or "")["code"]) == (1, "lease_expired")
    assert await world.load() == 0


async def test_a_stream_that_breaks_leaves_what_started_on_a_lease_and_gives_back_the_others(world: World) -> None:
    worker = await world.worker("w", fixed(3600))

    async def breaks(calls: list[Call]) -> httpx.Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield said(calls[0].started(), calls[1].started(), calls[1].completed("7"))
            raise httpx.ReadError("gone")

        return streaming(chunks())

    worker.answer = breaks
    started, done, other = await world.submit_all(3)
    await world.until_detached(started)
    await world.put_back(other, "not_started")
    found = [await world.engine.get_run(run) for run in (started, done, other)]
    assert [(run.state, run.tries) for run in found] == [("running", 1), ("completed", 1), ("queued", 0)]


async def test_a_stream_without_heartbeats_is_cut(sqlite_url: str) -> None:
    async with World(sqlite_url, heartbeat=0.05) as world:
        worker = await world.worker("w", fixed(3600))
        worker.work = worker.held
        run = await world.submit()
        await world.until_detached(run)
        assert (await world.engine.get_run(run.id)).state is RunState.RUNNING
        await world.until(lambda: not worker.open)


async def test_two_ticks_in_one_turn_queue_a_run_once(local: World) -> None:
    """A second one would read again what the first has read: the copy would free the slot of the run that started."""
    await local.worker("w", slots=1)
    await local.engine.pause_worker("w")
    await local.submit(delay=3600)
    await local.change("UPDATE run SET due_at = 1, rank = 1")
    await local.parts.database.write(turn(local.parts.desk, [Tick(), Tick(sweep=True), Tick()]))
    assert [len(lane.heap) for lane in local.parts.desk.picture.lanes.values()] == [1]

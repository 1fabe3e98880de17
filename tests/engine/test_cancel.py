"""Cancelling and replaying runs, in whatever state they are."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Conflict, NotFound, RunState
from hurlbat_dispatcher.domain.runs import CANCEL_HOLD_MS
from tests.engine.far_side import Call, accepted, marked
from tests.engine.world import LATER_MS, World, refused

pytestmark = pytest.mark.anyio

SLOW = {"name": "echo", "retries": 2, "backoff": {"strategy": "fixed", "initial": 3600, "jitter": False}}
NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def held_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the slot of a cancelled attempt for longer than a test lasts."""
    monkeypatch.setattr("hurlbat_dispatcher.turn.decide.CANCEL_HOLD_MS", LATER_MS)


async def fail(call: Call) -> Any:
    return call.failed()


# -- cancel ------------------------------------------------------------------------------------------------------------


async def test_a_queued_run_is_cancelled_and_never_starts(world: World) -> None:
    worker = await world.worker()
    await world.engine.pause_worker("w")
    run, other = await world.submit("echo", "1"), await world.submit("echo", "2")
    found = await world.engine.cancel_run(run.id, reason="no need")
    assert (found.state, found.reason, found.attempt) == (RunState.CANCELLED, "no need", 0)
    assert [entry.kind for entry in found.timeline] == ["created", "cancelled"]
    await world.engine.resume_worker("w")
    await world.ended(other)
    assert [call.run_id for call in worker.calls] == [other.id]


async def test_a_delayed_run_is_cancelled_and_never_starts(world: World) -> None:
    worker = await world.worker()
    run = await world.submit("echo", delay=3600.0)
    await world.engine.cancel_run(run.id)
    await world.time_comes(run, "due_at")
    assert (await world.engine.get_run(run.id)).state is RunState.CANCELLED
    assert worker.calls == []


async def test_a_run_that_backs_off_is_cancelled_and_never_starts_again(world: World) -> None:
    worker = await world.worker("w", SLOW, work=fail)
    run = await world.submit()
    await world.put_back(run, "retry")
    found = await world.engine.cancel_run(run.id)
    await world.time_comes(run, "due_at")
    assert (found.state, found.attempt, found.tries) == (RunState.CANCELLED, 1, 1)
    assert len(worker.calls) == 1


async def test_a_running_attempt_is_told_and_its_slot_is_free_when_it_stopped(world: World) -> None:
    worker = await world.worker("w", slots=1)
    worker.work = worker.held
    run, following = await world.submit("echo", "1"), await world.submit("echo", "2")
    await world.until(lambda: len(worker.open) == 1)
    found = await world.engine.cancel_run(run.id, reason="enough")
    assert found.state is RunState.CANCELLED
    await world.until(lambda: worker.cancels == [(run.id, 1, "enough")])
    await world.until(lambda: [call.run_id for call in worker.calls] == [run.id, following.id])
    worker.gate.set()
    assert (await world.ended(following)).output == "2"
    assert (await world.engine.get_run(run.id)).output is None


async def test_a_worker_that_does_not_confirm_keeps_its_slot_for_five_seconds(world: World) -> None:
    worker = await world.worker("w", slots=1, stops=False)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    run = await world.submit("echo", "1")
    await world.until_detached(run)
    found = await world.engine.cancel_run(run.id)
    await world.until(lambda: len(worker.cancels) == 1)
    following = await world.submit("echo", "2")
    await world.turns()
    [(held,)] = await world.rows(f"SELECT holds_until FROM run WHERE id = '{run.id}'")
    assert held - (found.finished_at or 0) == LATER_MS
    assert CANCEL_HOLD_MS == 5_000
    assert (await world.load(), len(worker.calls)) == (1, 1)

    worker.answer = None
    await world.time_comes(run, "holds_until")
    assert (await world.ended(following)).output == "2"
    assert await world.load() == 0


async def test_a_cancellation_that_is_asked_for_again_is_told_again_until_it_is_confirmed(local: World) -> None:
    """The first one may have been lost, with the answer of its commit."""
    worker = await local.worker("w", slots=1, stops=False)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    run = await local.submit("echo", "1")
    await local.until_detached(run)
    local.parts.outbox.cancel, tell = lambda orders: None, local.parts.outbox.cancel  # type: ignore[method-assign]
    await local.engine.cancel_run(run.id)
    local.parts.outbox.cancel = tell  # type: ignore[method-assign]
    await local.engine.cancel_run(run.id, reason="again")
    await local.until(lambda: worker.cancels == [(run.id, 1, "again")])
    await local.time_comes(run, "holds_until")
    await local.engine.cancel_run(run.id)
    await local.turns()
    assert len(worker.cancels) == 1


async def test_a_slot_that_is_held_stays_held_over_a_restart(local: World) -> None:
    worker = await local.worker("w", slots=1, stops=False)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    run = await local.submit("echo", "1")
    await local.until_detached(run)
    await local.engine.cancel_run(run.id)
    await local.until(lambda: len(worker.cancels) == 1)
    worker.answer = None
    await local.crash()
    await local.restart()
    await local.turns()
    assert await local.load() == 1
    following = await local.submit("echo", "2")
    await local.turns()
    assert (await local.engine.get_run(following.id)).state is RunState.QUEUED
    await local.time_comes(run, "holds_until")
    await local.ended(following)


async def test_an_attempt_that_waits_to_be_sent_is_never_sent(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.outbox.SENDING", 2)
    monkeypatch.setattr("hurlbat_dispatcher.outbox.SENDING_SECONDS", 3600.0)
    worker = await local.worker("w", max_batch=2)
    silent = asyncio.Event()

    async def wait(calls: list[Call]) -> httpx.Response:
        await silent.wait()
        return marked(503, retry_after="3600")

    worker.answer = wait
    runs = await local.submit_all(12)
    await local.until(lambda: len(worker.calls) == 4)  # the others wait behind these
    await local.engine.cancel_run(runs[11])
    await local.turns()
    silent.set()
    await local.until(lambda: local.parts.outbox.in_flight == 0)
    assert worker.seen(runs[11]) == []
    assert worker.cancels == []


async def test_a_delivery_that_carries_nothing_else_is_closed(local: World) -> None:
    worker = await local.worker("w", stops=False)
    worker.work = worker.held
    run = await local.submit()
    await local.until(lambda: len(worker.open) == 1)
    await local.engine.cancel_run(run.id)
    await local.until(lambda: not worker.open)
    await local.until(lambda: local.parts.desk.picture.slots["w"].used == 0)


async def test_a_delivery_that_carries_another_run_stays_open(local: World) -> None:
    worker = await local.worker("w")
    worker.work = worker.held
    first, second = await local.submit_all(2)
    await local.until(lambda: len(worker.open) == 2)
    assert len(worker.deliveries) == 1
    await local.engine.cancel_run(first)
    await local.until(lambda: len(worker.open) == 1)
    worker.gate.set()
    assert (await local.ended(second)).state is RunState.COMPLETED


async def test_a_late_answer_of_a_cancelled_attempt_is_recorded_and_changes_nothing(world: World) -> None:
    worker = await world.worker("w", stops=False)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    run = await world.submit()
    await world.until_detached(run)
    await world.engine.cancel_run(run.id)
    problem = await refused(world.engine.report_complete(run.id, 1, worker.calls[0].lease_token, "7", b"x"))
    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra["state"]) == ("attempt_over", "cancelled")
    found = await world.engine.get_run(run.id)
    assert (found.state, found.output) == (RunState.CANCELLED, None)
    assert [entry.kind for entry in found.timeline] == ["created", "started", "cancelled", "late"]
    assert await world.load() == 0  # it has shown that it ended


async def test_cancelling_twice_is_fine_and_cancelling_the_finished_is_not(world: World) -> None:
    await world.worker()
    run = await world.submit("echo", delay=3600.0)
    first = await world.engine.cancel_run(run.id, reason="one")
    assert await world.engine.cancel_run(run.id, reason="two") == first
    done = await world.ended(await world.submit())
    problem = await refused(world.engine.cancel_run(done.id))
    assert isinstance(problem, Conflict)
    assert problem.code == "run_finished"
    assert isinstance(await refused(world.engine.cancel_run(NOBODY)), NotFound)


async def test_cancel_and_the_end_of_an_attempt_in_the_same_turn_have_one_outcome(world: World) -> None:
    worker = await world.worker()
    worker.work = worker.held
    runs = await world.submit_all(20)
    await world.until(lambda: len(worker.open) == 16)
    cancels = [asyncio.ensure_future(_quietly(world.engine.cancel_run(run))) for run in runs]
    worker.gate.set()
    await asyncio.gather(*cancels)
    ended = await world.all_ended(runs)
    assert {run.state for run in ended} <= {RunState.COMPLETED, RunState.CANCELLED}
    for run in ended:
        assert (run.output is not None) == (run.state is RunState.COMPLETED)
    await world.until(lambda: world.parts.desk.picture.slots["w"].used == 0)


# -- replay ------------------------------------------------------------------------------------------------------------


async def test_a_failed_run_is_replayed_with_new_tries_and_keeps_its_history(world: World) -> None:
    worker = await world.worker("w", {"name": "echo", "retries": 1, "backoff": {"strategy": "fixed", "initial": 0}})
    worker.work = fail
    run = await world.ended(await world.submit("echo", "5"))
    assert (run.state, run.tries, run.max_attempts) == (RunState.FAILED, 2, 2)
    worker.work = None
    again = await world.engine.replay_run(run.id)
    assert (again.max_attempts, again.finished_at, again.reason) == (4, None, None)
    ended = await world.ended(run)
    assert (ended.state, ended.output, ended.error) == (RunState.COMPLETED, "5", None)
    assert (ended.attempt, ended.tries, ended.max_attempts) == (3, 3, 4)
    kinds = [entry.kind for entry in ended.timeline]
    assert kinds == ["created", "started", "retry", "started", "failed", "replayed", "started", "completed"]
    failed = ended.timeline[4]
    assert (failed.at, failed.attempt) == (run.finished_at, 2)
    assert failed.detail["code"] == "task_error"


async def test_a_completed_run_is_replayed(world: World) -> None:
    worker = await world.worker()
    run = await world.ended(await world.submit("echo", "5"))
    await world.engine.replay_run(run.id)
    ended = await world.until_run(run, lambda found: found.attempt == 2 and found.is_final)
    assert (ended.state, ended.tries, ended.max_attempts) == (RunState.COMPLETED, 2, 2)
    assert worker.seen(run.id) == [1, 2]


async def test_a_cancelled_run_is_replayed(world: World) -> None:
    await world.worker()
    run = await world.submit("echo", "5", delay=3600.0, ttl=7200.0)
    await world.engine.cancel_run(run.id)
    again = await world.engine.replay_run(run.id)
    assert again.expires_at is None
    ended = await world.ended(run)
    assert (ended.state, ended.output, ended.reason) == (RunState.COMPLETED, "5", None)


async def test_a_cancelled_attempt_that_may_still_run_is_not_replayed(world: World) -> None:
    worker = await world.worker("w", slots=1, stops=False)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    run = await world.submit()
    await world.until_detached(run)
    await world.engine.cancel_run(run.id)
    problem = await refused(world.engine.replay_run(run.id))
    assert isinstance(problem, Conflict)
    assert problem.code == "run_stopping"
    worker.answer = None
    await world.time_comes(run, "holds_until")
    await world.engine.replay_run(run.id)
    assert (await world.ended(run)).attempt == 2


async def test_a_run_that_is_not_finished_is_not_replayed(world: World) -> None:
    await world.worker()
    run = await world.submit("echo", delay=3600.0)
    problem = await refused(world.engine.replay_run(run.id))
    assert isinstance(problem, Conflict)
    assert problem.code == "run_not_finished"
    assert isinstance(await refused(world.engine.replay_run(NOBODY)), NotFound)


async def test_an_answer_of_before_the_replay_changes_nothing(world: World) -> None:
    worker = await world.worker("w", slots=2)
    worker.work = fail
    run = await world.ended(await world.submit("echo", "5"))
    worker.work = worker.held
    await world.engine.replay_run(run.id)
    await world.until(lambda: len(worker.open) == 1)
    problem = await refused(world.engine.report_complete(run.id, 1, worker.calls[0].lease_token, "7", b"x"))
    assert isinstance(problem, Conflict)
    worker.gate.set()
    ended = await world.ended(run)
    assert (ended.output, ended.attempt) == (json.dumps(5), 2)


async def _quietly(work: Any) -> None:
    try:
        await work
    except Conflict:
        return

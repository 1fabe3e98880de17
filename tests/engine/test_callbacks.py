"""When a run has finally failed, the task that its own names runs: once, and in the very commit that fails it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import Run, RunState
from hurlbat_dispatcher.domain.outcome import ErrorCode, Failed
from hurlbat_dispatcher.store import postgres, sqlite
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.telling import rfc3339
from hurlbat_dispatcher.turn.operations import AttemptEnd, End
from tests.engine.far_side import Call, Output, accepted, lines
from tests.engine.world import World, refused

pytestmark = pytest.mark.anyio

NOW = {"strategy": "fixed", "initial": 0, "jitter": False}
WORK = {"name": "work", "on_failure": "clean"}
RETRIED = WORK | {"retries": 2, "backoff": NOW}


async def broken(call: Call) -> Output:
    """Fail at work, and clean up well."""
    return call.failed() if call.task == "work" else "null"


async def called(world: World, task: str = "clean") -> list[Run]:
    """Return the runs of the callback when all have ended, the oldest first."""
    await world.turns()
    ids = [row[0] for row in await world.rows(f"SELECT id FROM run WHERE task = '{task}' ORDER BY id")]
    return await world.all_ended(ids)


def callbacks(run: Run) -> list[dict[str, Any]]:
    return [dict(entry.detail) for entry in run.timeline if entry.kind.startswith("callback")]


# -- what is told ------------------------------------------------------------------------------------------------------


async def test_a_run_that_failed_for_good_calls_once_and_tells_everything(world: World) -> None:
    worker = await world.worker("w", RETRIED, "clean", work=broken)

    run = await world.ended(await world.submit("work", '{"n":  1}', metadata='{"who": "Ada"}'))
    [callback] = await called(world)

    assert (run.state, run.tries) == (RunState.FAILED, 3)
    assert worker.seen(run.id) == [1, 2, 3]
    assert run.finished_at is not None
    assert run.error is not None
    assert json.loads(callback.input) == {
        "run": {
            "id": run.id,
            "task": "work",
            "input": {"n": 1},
            "metadata": {"who": "Ada"},
            "error": json.loads(run.error),
            "tries": 3,
            "finished_at": rfc3339(run.finished_at),
        }
    }
    assert '"input":{"n":  1}' in callback.input
    assert callback.metadata == '{"who": "Ada"}'
    assert json.loads(callback.trigger or "") == {"type": "failure", "run": run.id, "task": "work"}
    assert callback.created_at == run.finished_at
    [told] = [call for call in worker.calls if call.task == "clean"]
    assert told.body["trigger"] == {"type": "failure", "run": run.id, "task": "work"}
    assert callbacks(run) == [{"task": "clean", "run": callback.id}]
    assert [entry.kind for entry in run.timeline][-2:] == ["failed", "callback"]


# -- when --------------------------------------------------------------------------------------------------------------


async def _not_retryable(world: World) -> Run:
    async def work(call: Call) -> Output:
        return call.failed(retryable=False) if call.task == "work" else "null"

    await world.worker("w", RETRIED, "clean", work=work)
    return await world.ended(await world.submit("work"))


async def _not_in_time(world: World) -> Run:
    await world.worker("w", WORK | {"schedule_timeout": 600}, "clean")
    await world.engine.limits.pause_task("work")
    run = await world.submit("work")
    await world.time_comes(run, "expires_at")
    return await world.ended(run)


async def _lost(world: World) -> Run:
    return await _crashed(world, WORK)


async def _lost_again(world: World) -> Run:
    return await _crashed(world, RETRIED, "UPDATE run SET tries = 3, attempt = 3 WHERE task = 'work'")


async def _crashed(world: World, policy: dict[str, Any], *change: str) -> Run:
    worker = await world.worker("w", policy, "clean")
    worker.work = worker.held
    run = await world.submit("work")
    await world.until(lambda: len(worker.open) == 1)
    for sql in change:
        await world.change(sql)
    await world.crash()
    worker.work = None
    await world.restart()
    return await world.ended(run)


FAILURES: dict[str, tuple[Callable[[World], Awaitable[Run]], str]] = {
    "not retryable": (_not_retryable, "task_error"),
    "schedule_timeout": (_not_in_time, "schedule_timeout"),
    "unknown_outcome": (_lost, "unknown_outcome"),
    "lease lost": (_lost_again, "lease_expired"),
}


@pytest.mark.parametrize("how", FAILURES)
async def test_every_way_to_fail_for_good_calls_once(local: World, how: str) -> None:
    fail, code = FAILURES[how]

    run = await fail(local)
    [callback] = await called(local)

    assert (run.state, json.loads(run.error or "")["code"]) == (RunState.FAILED, code)
    told = json.loads(callback.input)["run"]
    assert (told["id"], told["error"]["code"], told["tries"]) == (run.id, code, run.tries)


async def test_what_did_not_fail_calls_nobody(world: World) -> None:
    worker = await world.worker("w", RETRIED, "clean")
    worker.work = worker.held
    running, delayed = await world.submit("work"), await world.submit("work", delay=3600.0, ttl=7200.0)
    expired = await world.submit("work", delay=3600.0, ttl=1800.0)
    await world.until(lambda: len(worker.open) == 1)

    await world.engine.cancel_run(running.id)
    await world.engine.cancel_run(delayed.id)
    await world.time_comes(expired, "ttl_at", "expires_at")
    worker.work = None
    good = await world.submit("work")
    ended = await world.all_ended([running, delayed, expired, good])

    assert [run.state.value for run in ended] == ["cancelled"] * 3 + ["completed"]
    assert await called(world) == []


async def test_the_failure_of_a_callback_calls_nobody_not_even_round_and_round(local: World) -> None:
    async def fail(call: Call) -> Output:
        return call.failed()

    worker = await local.worker("w", WORK, {"name": "clean", "on_failure": "work"}, work=fail)

    run = await local.ended(await local.submit("work"))
    [callback] = await called(local)
    own = await local.ended(await local.submit("clean"))
    await called(local, "work")

    assert (callback.state, callbacks(callback)) == (RunState.FAILED, [])
    assert [entry["task"] for entry in callbacks(own)] == ["work"]
    assert sorted(call.task for call in worker.calls) == ["clean", "clean", "work", "work"]
    assert len(callbacks(run)) == 1


async def test_a_run_that_is_replayed_and_fails_again_calls_again(local: World) -> None:
    await local.worker("w", WORK, "clean", work=broken)
    run = await local.ended(await local.submit("work"))

    await local.engine.replay_run(run.id)
    again = await local.ended(run)
    first, second = await called(local)

    assert [json.loads(one.input)["run"]["tries"] for one in (first, second)] == [1, 2]
    assert [entry["run"] for entry in callbacks(again)] == [first.id, second.id]


async def test_the_loser_of_two_ends_calls_nobody(local: World) -> None:
    worker = await local.worker("w", WORK, "clean")
    worker.work = worker.held
    run = await local.submit("work")
    await local.until(lambda: len(worker.open) == 1)
    failed = Failed(ErrorCode.TASK_ERROR, "no", retryable=False)

    ends = [End([AttemptEnd(run.id, 1, failed)]) for _ in range(3)]
    first = await local.do(ends[0])
    late = [await refused(local.do(end)) for end in ends[1:]]
    worker.gate.set()

    assert first is None
    assert [getattr(problem, "code", None) for problem in late] == ["attempt_over"] * 2
    assert len(await called(local)) == 1


async def work_later(calls: list[Call]) -> httpx.Response:
    """Say of work that it will be reported, and clean up at once."""
    return accepted() if calls[0].task == "work" else lines(calls[0].completed())


async def test_two_servers_that_hear_of_a_failure_call_once_between_them(owner: World, other: World) -> None:
    worker = await owner.worker("w", WORK, "clean", answer=work_later)
    await other.until(lambda: "clean" in other.parts.registry.tasks)
    run = await owner.submit("work")
    await owner.until_detached(run)
    token, failure = worker.calls[0].lease_token, FailedLine("", 0, "E", "boom")

    both = [
        world.engine.report_fail(run.id, 1, token, failure, digest) for world, digest in ((owner, b"x"), (other, b"y"))
    ]
    told = await asyncio.gather(*both, return_exceptions=True)
    ended = await owner.ended(run)
    [callback] = await called(owner)

    assert sorted(type(one).__name__ for one in told) == ["Conflict", "NoneType"]
    assert callbacks(ended) == [{"task": "clean", "run": callback.id}]
    assert callback.state is RunState.COMPLETED


async def test_a_failure_that_only_the_other_server_hears_of_calls_just_so(owner: World, other: World) -> None:
    worker = await owner.worker("w", WORK, "clean", answer=work_later)
    await other.until(lambda: "clean" in other.parts.registry.tasks)
    run = await owner.submit("work")
    await owner.until_detached(run)

    await other.engine.report_fail(run.id, 1, worker.calls[0].lease_token, FailedLine("", 0, "E", "boom"), b"x")

    assert [one.state for one in await called(other)] == [RunState.COMPLETED]


# -- which task --------------------------------------------------------------------------------------------------------


async def test_a_callback_that_nobody_knows_is_told_in_the_run_s_timeline_and_called_once_it_is_there(
    world: World,
) -> None:
    await world.worker("w", WORK, work=broken)
    run = await world.ended(await world.submit("work"))

    [told] = callbacks(run)
    await world.worker("other", "clean")
    await world.engine.replay_run(run.id)
    await world.ended(run)
    [callback] = await called(world)

    assert told == {
        "task": "clean",
        "message": "there is no task clean; register a worker that serves it first",
    }
    assert (await world.engine.get_run(run.id)).state is RunState.FAILED
    assert callback.state is RunState.COMPLETED


async def test_a_callback_that_nobody_serves_any_more_waits_for_who_does(local: World) -> None:
    await local.worker("other", "clean")
    await local.worker("w", WORK, work=broken)
    await local.engine.delete_worker("other")
    run = await local.ended(await local.submit("work"))

    [waiting] = callbacks(run)
    held = await local.engine.get_run(waiting["run"])
    await local.worker("other", "clean")

    assert held.state is RunState.QUEUED
    assert (await local.ended(held)).state is RunState.COMPLETED


async def test_the_policy_of_the_callback_is_its_own(local: World) -> None:
    one_at_a_time = {"key": "input.run.input", "max_runs": 1}
    policy = {"name": "clean", "priority": 7, "retries": 4, "concurrency": [one_at_a_time]}
    worker = await local.worker("w", WORK | {"priority": 1}, policy)

    async def work(call: Call) -> Output:
        return call.failed() if call.task == "work" else await worker.held(call)

    worker.work = work
    runs = [await local.submit("work", text) for text in ('"a"', '"a"', '"b"')]
    await local.all_ended(runs)
    await local.until(lambda: len(worker.open) == 2)
    stored = await local.rows("SELECT state, priority, max_attempts FROM run WHERE task = 'clean' ORDER BY state")
    worker.gate.set()

    assert stored == [("queued", 7, 5), ("running", 7, 5), ("running", 7, 5)]
    assert [run.state.value for run in await called(local)] == ["completed"] * 3


# -- in one commit -----------------------------------------------------------------------------------------------------


def commits_fail(monkeypatch: pytest.MonkeyPatch, *, after: bool) -> list[str]:
    """Let every commit fail until the list that is returned has its name taken out: before it, or `after` it."""
    failing = ["all"]
    end, commit = sqlite._end, postgres._commit
    trouble = DatabaseTrouble("the disk is gone", unknown=after)

    def sqlite_end(connection: Any, how: str) -> None:
        if how == "COMMIT" and failing and not after:
            failing.append("refused")
            raise trouble
        end(connection, how)
        if how == "COMMIT" and failing:
            failing.clear()
            raise trouble

    async def postgres_commit(connection: Any) -> None:
        if failing and not after and not await _reads_only(connection):
            failing.append("refused")
            await connection.execute("ROLLBACK")
            raise trouble
        await commit(connection)
        if failing and after and not await _reads_only(connection):
            failing.clear()
            raise trouble

    monkeypatch.setattr(sqlite, "_end", sqlite_end)
    monkeypatch.setattr(postgres, "_commit", postgres_commit)
    return failing


async def _reads_only(connection: Any) -> bool:
    return bool(await connection.fetchval("SHOW transaction_read_only") == "on")


async def test_a_commit_that_fails_leaves_neither_the_failure_nor_the_callback(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing: list[str] = []

    async def work(call: Call) -> Output:
        if call.task == "work" and not failing:
            failing.extend(commits_fail(monkeypatch, after=False))
        return await broken(call)

    await world.worker("w", WORK, "clean", work=work)
    run = await world.submit("work")
    await world.until(lambda: world.parts.writer.trouble is not None)
    before = await world.rows("SELECT task, state FROM run")
    monkeypatch.undo()
    ended = await world.ended(run)

    assert before == [("work", "running")]
    assert ended.state is RunState.FAILED
    assert len(await called(world)) == 1


async def test_a_commit_of_which_nobody_heard_calls_once_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(call: Call) -> Output:
        if call.task == "work":
            commits_fail(monkeypatch, after=True)
        return await broken(call)

    await world.worker("w", WORK, "clean", work=work)

    run = await world.ended(await world.submit("work"))

    assert run.state is RunState.FAILED
    assert len(await called(world)) == 1
    assert len(callbacks(run)) == 1

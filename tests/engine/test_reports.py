"""Attempts that go on without a connection: leases, and what the worker reports."""

from typing import Any

import httpx
import pytest

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import Conflict, RunState, Unauthorized
from tests.engine.far_side import Call, FakeWorker, accepted, broken, said, streaming
from tests.engine.world import LEASE, World, refused

pytestmark = pytest.mark.anyio

SLOW = {"name": "echo", "retries": 1, "backoff": {"strategy": "fixed", "initial": 3600, "jitter": False}}
LATELY_MS = int(LEASE * 1000) - 120_000
"""So long ago was the last renewal of a lease that it ends soon."""
FAILURE = FailedLine("", 0, "KeyError", "no such key", stack="here")


async def accepting(
    world: World, task: dict[str, Any] | None = None, *, plain: bool = False
) -> tuple[FakeWorker, Call]:
    """Have a worker that took a run and will report."""
    worker = await world.worker("w", task or SLOW, plain=plain)

    async def answer(_: list[Call]) -> httpx.Response:
        return httpx.Response(202, headers={"hurlbat-async": "1"}) if plain else accepted()

    worker.answer = answer
    run = await world.submit("echo", "1")
    await world.until_detached(run)
    return worker, worker.calls[0]


@pytest.mark.parametrize("plain", [False, True], ids=["protocol", "plain"])
async def test_a_report_completes_the_run_and_frees_its_slot(world: World, plain: bool) -> None:
    _, call = await accepting(world, plain=plain)
    assert call.report_url == f"http://hurlbat.test/runs/{call.run_id}/attempts/1"
    await world.engine.report_complete(call.run_id, 1, call.lease_token, '{"b":1,  "a":2}', b"x")
    run = await world.engine.get_run(call.run_id)
    assert (run.state, run.output, run.attempt, run.tries) == (RunState.COMPLETED, '{"b":1,  "a":2}', 1, 1)
    assert await world.load() == 0


async def test_an_exact_repeat_of_a_report_is_fine_and_another_one_is_not(world: World) -> None:
    _, call = await accepting(world)
    report = world.engine.report_complete
    await report(call.run_id, 1, call.lease_token, "1", b"same")
    await report(call.run_id, 1, call.lease_token, "1", b"same")
    for problem in (
        await refused(report(call.run_id, 1, call.lease_token, "2", b"other")),
        await refused(world.engine.report_fail(call.run_id, 1, call.lease_token, FAILURE, b"other still")),
    ):
        assert isinstance(problem, Conflict)
    run = await world.engine.get_run(call.run_id)
    assert (run.state, run.output) == (RunState.COMPLETED, "1")
    assert [entry.kind for entry in run.timeline] == ["created", "started", "completed", "late", "late"]


async def test_a_reported_failure_is_retried_and_its_repeat_is_fine(world: World) -> None:
    _, call = await accepting(world)
    await world.engine.report_fail(call.run_id, 1, call.lease_token, FAILURE, b"same")
    await world.engine.report_fail(call.run_id, 1, call.lease_token, FAILURE, b"same")
    run = await world.put_back(call.run_id, "retry")
    assert (run.tries, [entry.kind for entry in run.timeline]) == (1, ["created", "started", "retry"])
    assert isinstance(
        await refused(world.engine.report_complete(call.run_id, 1, call.lease_token, "1", b"other")), Conflict
    )


async def test_a_heartbeat_renews_the_lease(world: World) -> None:
    _, call = await accepting(world)
    await world.change(f"UPDATE run SET lease_until = lease_until - {LATELY_MS} WHERE id = '{call.run_id}'")
    [(before,)] = await world.rows(f"SELECT lease_until FROM run WHERE id = '{call.run_id}'")
    reply = await world.engine.report_heartbeat(call.run_id, 1, call.lease_token)
    [(after,)] = await world.rows(f"SELECT lease_until FROM run WHERE id = '{call.run_id}'")
    assert (reply.cancelled, reply.lease) == (False, LEASE)
    assert after >= before + LATELY_MS


async def test_a_heartbeat_tells_of_the_cancellation(world: World) -> None:
    _, call = await accepting(world)
    await world.engine.cancel_run(call.run_id)
    assert (await world.engine.report_heartbeat(call.run_id, 1, call.lease_token)).cancelled


async def test_a_heartbeat_of_an_attempt_that_is_over_is_a_conflict(world: World) -> None:
    _, call = await accepting(world)
    await world.time_comes(call.run_id, "lease_until")
    await world.put_back(call.run_id, "retry")
    problem = await refused(world.engine.report_heartbeat(call.run_id, 1, call.lease_token))
    assert isinstance(problem, Conflict)
    assert problem.code == "attempt_over"


async def test_a_report_after_the_lease_changes_nothing(world: World) -> None:
    _, call = await accepting(world)
    await world.time_comes(call.run_id, "lease_until")
    await world.put_back(call.run_id, "retry")
    assert isinstance(
        await refused(world.engine.report_complete(call.run_id, 1, call.lease_token, "1", b"x")), Conflict
    )
    run = await world.engine.get_run(call.run_id)
    assert (run.state, run.output, run.tries) == (RunState.QUEUED, None, 1)


async def test_a_lease_is_renewed_for_as_long_as_it_takes(world: World) -> None:
    _, call = await accepting(world)
    for _ in range(5):
        await world.change(f"UPDATE run SET lease_until = lease_until - {LATELY_MS} WHERE id = '{call.run_id}'")
        await world.engine.report_heartbeat(call.run_id, 1, call.lease_token)
        await world.tick(sweep=True)
    await world.engine.report_complete(call.run_id, 1, call.lease_token, "1", b"x")
    assert (await world.engine.get_run(call.run_id)).attempt == 1


async def test_only_the_token_of_this_attempt_of_this_run_is_good(world: World) -> None:
    worker, call = await accepting(world)
    other = await world.submit("echo", "2")
    await world.until_detached(other)
    stranger = worker.calls[1].lease_token
    engine = world.engine
    for token in (stranger, call.lease_token[:-1], call.lease_token + "A", "", "x" * 43):
        for ask in (
            engine.report_complete(call.run_id, 1, token, "1", b"x"),
            engine.report_fail(call.run_id, 1, token, FAILURE, b"x"),
            engine.report_heartbeat(call.run_id, 1, token),
            engine.report_log(call.run_id, 1, token, [("info", "x")]),
        ):
            assert isinstance(await refused(ask), Unauthorized)
    assert isinstance(await refused(engine.report_complete(call.run_id, 2, call.lease_token, "1", b"x")), Unauthorized)
    assert (await engine.get_run(call.run_id)).state is RunState.RUNNING


async def test_the_token_of_an_old_attempt_says_nothing_of_the_new_one(world: World) -> None:
    worker, call = await accepting(world)
    await world.time_comes(call.run_id, "lease_until")
    await world.put_back(call.run_id, "retry")
    await world.time_comes(call.run_id, "due_at")
    await world.until(lambda: len(worker.calls) == 2)
    new = worker.calls[1]
    assert new.lease_token != call.lease_token
    assert isinstance(
        await refused(world.engine.report_complete(call.run_id, 1, call.lease_token, "1", b"x")), Conflict
    )
    await world.until_detached(call.run_id)
    await world.engine.report_complete(call.run_id, 2, new.lease_token, "2", b"x")
    assert (await world.engine.get_run(call.run_id)).output == "2"


async def test_a_report_by_an_attempt_that_is_connected_counts_and_its_stream_comes_late(world: World) -> None:
    worker = await world.worker("w", SLOW)
    worker.work = worker.held
    run = await world.submit("echo", "1")
    await world.until(lambda: len(worker.open) == 1)
    assert not (await world.engine.report_heartbeat(run.id, 1, worker.calls[0].lease_token)).cancelled
    await world.engine.report_complete(run.id, 1, worker.calls[0].lease_token, "9", b"x")
    worker.gate.set()
    await world.until(lambda: world.parts.outbox.in_flight == 0)
    await world.turns()
    found = await world.engine.get_run(run.id)
    assert (found.output, [entry.kind for entry in found.timeline]) == (
        "9",
        ["created", "started", "completed", "late"],
    )


async def test_logs_and_progress_are_remembered_in_order(world: World) -> None:
    worker = await world.worker()

    async def answer(calls: list[Call]) -> httpx.Response:
        call = calls[0]
        spoken = (
            call.started(),
            call.logged("one"),
            call.progressed(0.5, "half"),
            call.logged("two"),
            call.completed(),
        )
        return streaming(broken(said(*spoken)))

    worker.answer = answer
    run = await world.ended(await world.submit())
    told = [(entry.kind, dict(entry.detail)) for entry in (await world.engine.get_run(run.id)).timeline]
    assert [one for one in told if one[0] in ("log", "progress")] == [
        ("log", {"level": "info", "message": "one"}),
        ("progress", {"value": 0.5, "message": "half"}),
        ("log", {"level": "info", "message": "two"}),
    ]


async def test_a_log_is_taken_while_the_attempt_runs_and_not_after(world: World) -> None:
    _, call = await accepting(world)
    await world.engine.report_log(call.run_id, 1, call.lease_token, [("warning", "one"), ("info", "two")])
    await world.engine.report_complete(call.run_id, 1, call.lease_token, "1", b"x")
    assert isinstance(
        await refused(world.engine.report_log(call.run_id, 1, call.lease_token, [("info", "x")])), Conflict
    )
    run = await world.engine.get_run(call.run_id)
    logs = [entry.detail["message"] for entry in run.timeline if entry.kind == "log"]
    assert logs == ["one", "two"]


async def test_a_timeline_does_not_grow_without_end(local: World) -> None:
    _, call = await accepting(local)
    for _ in range(30):
        await local.engine.report_log(call.run_id, 1, call.lease_token, [("info", "x")] * 100)
        await local.turns(1)
    await local.engine.report_complete(call.run_id, 1, call.lease_token, "1", b"x")
    [(count,)] = await local.rows("SELECT count(*) FROM timeline")
    assert 1_000 <= count <= 1_100

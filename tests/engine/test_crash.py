"""A server that dies, one that stops, and what the next one makes of what they left."""

import asyncio
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import CannotOpen, DatabaseTrouble, Engine, Outside, Run, RunState, Unavailable
from hurlbat_dispatcher.store.statement import Script
from tests.engine.far_side import Call, streaming
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

RETRIED = {"name": "echo", "retries": 3, "backoff": {"strategy": "fixed", "initial": 0, "jitter": False}}
NEVER = {"name": "echo", "retries": 3, "backoff": {"strategy": "fixed", "initial": 3600, "jitter": False}}


async def test_attempts_of_a_killed_server_are_rescued_at_once_charged_and_repeated(local: World) -> None:
    worker = await local.worker("w", RETRIED, slots=2)
    worker.work = worker.held
    runs = await local.submit_all(3)
    await local.until(lambda: len(worker.open) == 2)

    await local.crash()
    worker.work = None
    await local.restart()
    ended = await local.all_ended(runs)

    assert [(run.state, run.attempt, run.tries) for run in ended] == [
        ("completed", 2, 2),
        ("completed", 2, 2),
        ("completed", 1, 1),
    ]
    assert [entry.kind for entry in ended[0].timeline] == ["created", "started", "retry", "started", "completed"]
    assert ended[0].timeline[2].detail["code"] == "lease_expired"
    assert await local.load() == 0


async def test_what_a_killed_server_left_for_good_holds_no_slot(local: World) -> None:
    worker = await local.worker("w", slots=1)
    worker.work = worker.held
    await local.submit()
    await local.until(lambda: len(worker.open) == 1)
    await local.crash()
    worker.work = None
    await local.restart()
    assert (await local.ended(await local.submit())).state == "completed"


async def test_a_server_killed_right_after_its_start_is_followed_at_once(local: World) -> None:
    await local.worker()
    await local.crash()
    await local.restart()
    assert (await local.ended(await local.submit())).state == "completed"


async def test_what_a_killed_server_acknowledged_is_there(local: World) -> None:
    worker = await local.worker()
    worker.away = httpx.ConnectError("refused")
    ids = [(await local.submit("echo", str(n))).id for n in range(20)]
    await local.crash()
    worker.away = None
    await local.restart()
    assert [run.output for run in await local.all_ended(ids)] == [str(n) for n in range(20)]


async def test_another_server_on_postgresql_rescues_when_the_lease_is_over(shared: World) -> None:
    worker = await shared.worker("w", RETRIED)
    worker.work = worker.held
    run = await shared.submit()
    await shared.until(lambda: len(worker.open) == 1)
    await shared.crash()
    await shared.restart()
    worker.work = None
    assert not shared.parts.desk.owns

    await shared.change(
        "UPDATE dispatcher SET lease_until = 1 WHERE lease_until < (SELECT max(lease_until) FROM dispatcher)"
    )
    await shared.change("UPDATE shard SET lease_until = 1")
    await shared.parts.lease.run_once()
    ended = await shared.ended(run)
    assert (ended.state, ended.attempt, ended.tries) == ("completed", 2, 2)


async def test_a_stop_gives_back_uncharged_what_was_not_sent_and_leaves_what_runs_to_a_lease(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.outbox.SENDING", 3)
    monkeypatch.setattr("hurlbat_dispatcher.outbox.SENDING_SECONDS", 3600.0)  # silence holds back who waits behind it
    worker = await world.worker("w", NEVER, max_batch=2)
    never = asyncio.Event()

    async def answer(calls: list[Call]) -> httpx.Response:
        if calls[0].input == 0:
            return streaming(worker._stream(calls))
        await never.wait()  # it has the request and says nothing
        raise AssertionError

    worker.answer = answer
    worker.work = worker.held
    runs = await world.submit_all(14)  # a delivery of two streams, three are with the worker, six runs wait
    await world.until(lambda: len(worker.deliveries) == 4)
    await world.turns()
    assert len(worker.calls) == 8
    await world.engine.pause_worker("w")  # so that the next server starts none of them

    await world.engine.stop(0)
    await world.restart()
    found = [await world.engine.get_run(run) for run in runs]

    assert [(run.state, run.attempt, run.tries) for run in found[:2]] == [("running", 1, 1)] * 2
    assert [(run.state, run.attempt, run.tries) for run in found[2:]] == [("queued", 1, 0)] * 12
    assert [kinds(run)[-1] for run in found[2:]] == ["not_started"] * 6 + ["not_sent"] * 6
    leases = await world.rows("SELECT lease_until IS NOT NULL FROM run WHERE state = 'running'")
    assert [bool(leased) for (leased,) in leases] == [True, True]


async def test_a_stop_waits_for_answers_within_its_grace(local: World) -> None:
    worker = await local.worker()
    worker.work = worker.held
    run = await local.submit()
    await local.until(lambda: len(worker.open) == 1)
    stopping = asyncio.create_task(local.engine.stop(SOON))
    await asyncio.sleep(0)
    assert isinstance(await refused(local.submit()), Unavailable)
    worker.gate.set()
    await stopping
    await local.restart()
    assert (await local.engine.get_run(run.id)).state is RunState.COMPLETED


async def test_an_attempt_that_outlives_a_stop_may_still_report(local: World) -> None:
    worker = await local.worker("w", NEVER)
    worker.work = worker.held
    run = await local.submit()
    await local.until(lambda: len(worker.open) == 1)
    await local.engine.stop(0)
    await local.restart()
    call = worker.calls[0]
    await local.engine.report_complete(run.id, 1, call.lease_token, "5", b"digest")
    ended = await local.ended(run)
    assert (ended.state, ended.output, ended.attempt) == ("completed", "5", 1)


async def test_a_second_server_on_the_same_file_is_refused_and_welcome_after_the_first(local: World) -> None:
    second = Engine(local.settings, Outside(network=local.network.transport()))
    problem = await refused(second.start())
    assert isinstance(problem, CannotOpen)
    assert "another server uses" in str(problem)
    await local.engine.stop(0)
    await second.start()
    await second.stop(0)


async def test_a_submit_whose_commit_is_in_doubt_is_not_lost_and_not_stuck(shared: World) -> None:
    """The connection died in the middle of COMMIT: it was done, and nobody said so."""
    worker = await shared.worker("w", RETRIED, slots=1)
    database = shared.parts.database
    write = database.write
    doubtful = [True]

    async def commits_in_silence(script):  # type: ignore[no-untyped-def]
        result = await write(script)
        if doubtful and getattr(result, "inserts", None):
            doubtful.clear()
            raise DatabaseTrouble("the connection died", unknown=True)
        return result

    database.write = commits_in_silence  # type: ignore[method-assign]
    problem = await refused(shared.submit("echo", "1"))
    assert isinstance(problem, Unavailable)
    assert problem.code == "outcome_unknown"
    [(run_id,)] = await shared.rows("SELECT id FROM run")
    ended = await shared.ended(str(run_id))
    assert (ended.state, ended.output, worker.seen(ended.id)) == ("completed", "1", [ended.attempt])


def kinds(run: Run) -> list[str]:
    return [entry.kind for entry in run.timeline]


async def test_a_change_that_is_stored_but_cannot_be_shown_is_not_called_refused(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.worker()
    await local.engine.pause_worker("w")
    run = await local.submit()
    read = local.parts.database.read

    async def away(_: Script[Any]) -> Any:
        raise DatabaseTrouble("gone")

    monkeypatch.setattr(local.parts.database, "read", away)
    problem = await refused(local.engine.cancel_run(run.id))
    monkeypatch.setattr(local.parts.database, "read", read)
    assert isinstance(problem, Unavailable)
    assert problem.code == "outcome_unknown"
    assert (await local.engine.get_run(run.id)).state is RunState.CANCELLED

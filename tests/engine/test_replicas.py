"""Several servers on one PostgreSQL: one starts runs, all accept, end and cancel them."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import sqlalchemy as sa

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import RunState, Submission, WorkerState
from hurlbat_dispatcher.store.statement import Script, Statement
from hurlbat_dispatcher.turn.crank import turn
from hurlbat_dispatcher.turn.fence import NotOwner
from hurlbat_dispatcher.turn.operations import Tick
from tests.engine.far_side import Call, accepted
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

SLOW = {"name": "echo", "retries": 3, "backoff": {"strategy": "fixed", "initial": 0, "jitter": False}}


@pytest.fixture
async def shared(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """A first server, whose sweep does not lend a hand."""
    monkeypatch.setattr("hurlbat_dispatcher.assembly.SWEEP_SHARED", 3600.0)
    async with World(postgres_url) as world:
        yield world


@pytest.fixture
async def other(shared: World) -> AsyncIterator[World]:
    """A second server on the same database, with the same workers."""
    async with World(shared.settings.database_url, shared.network) as world:
        yield world


async def hear_of(other: World, task: str = "echo") -> None:
    """Wait until the other server knows a task."""
    await other.until(lambda: task in other.parts.registry.tasks)


async def test_one_owns_the_lanes_and_the_other_accepts_for_it(shared: World, other: World) -> None:
    worker = await shared.worker("w", slots=3)
    await hear_of(other)
    assert (shared.parts.desk.owns, other.parts.desk.owns) == (True, False)
    accepted_run = await other.submit("echo", "5")
    assert accepted_run.state is RunState.QUEUED  # it starts when the owner has heard of it
    ended = await other.ended(accepted_run)
    assert (ended.state, ended.output, ended.attempt) == (RunState.COMPLETED, "5", 1)
    runs = await asyncio.gather(*(world.submit_all(50) for world in (shared, other)))
    await shared.all_ended([*runs[0], *runs[1]])
    assert worker.peak <= 3
    assert len(worker.calls) == 101


@pytest.mark.usefixtures("nobody_looks_again")
async def test_who_waits_at_one_server_hears_of_an_end_at_the_other_at_once(shared: World, other: World) -> None:
    await shared.worker()
    await hear_of(other)
    runs = [await other.submit("echo", str(n)) for n in range(40)]
    assert [run.output for run in await other.all_ended(runs)] == [str(n) for n in range(40)]


async def test_one_key_at_two_servers_at_the_same_time_makes_one_run(shared: World, other: World) -> None:
    worker = await shared.worker()
    await hear_of(other)
    for key in "abcde":
        asked = Submission("echo", "1", idempotency_key=key, idempotency_ttl=60.0)
        outcomes = await asyncio.gather(*(world.engine.submit(asked) for world in (shared, other) * 5))
        assert sum(one.created for one in outcomes) == 1
        assert len({one.run.id for one in outcomes}) == 1
        await shared.ended(outcomes[0].run)
    assert len(worker.calls) == 5


async def test_a_key_that_somebody_else_is_just_storing_is_waited_for_and_found(shared: World, other: World) -> None:
    """The lock is held by the test: without a second look the submit would fail on the constraint."""
    await shared.worker()
    asked = Submission("echo", "1", idempotency_key="old", idempotency_ttl=60.0)
    first = (await shared.engine.submit(asked)).run
    await hear_of(other)
    blocked, renamed = asyncio.Event(), asyncio.Event()

    def rename() -> Script[None]:
        yield Statement(sa.text("UPDATE idempotency SET key = 'new'")).write([()])
        renamed.set()
        while not blocked.is_set():
            yield Statement(sa.text("SELECT pg_sleep(0.002)")).fetch()

    renaming = asyncio.ensure_future(other.parts.database.write(rename()))
    await renamed.wait()
    again = asyncio.ensure_future(shared.engine.submit(asked._replace(idempotency_key="new")))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    try:
        async with asyncio.timeout(SOON):
            while await other.rows(waits) != [(1,)]:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
    finally:
        blocked.set()
    await renaming
    found = await again
    assert (found.created, found.run.id) == (False, first.id)


async def test_a_retry_that_waits_holds_no_slot_at_the_owner(shared: World, other: World) -> None:
    worker = await shared.worker("w", SLOW | {"backoff": {"strategy": "fixed", "initial": 3600}}, slots=1)
    await hear_of(other)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    run = await shared.submit("echo", "1")
    await shared.until_detached(run)
    worker.answer = None
    await other.engine.report_fail(run.id, 1, worker.calls[0].lease_token, FailedLine("", 0, "E", "boom"), b"x")
    assert (await shared.ended(await shared.submit("echo", "2"))).output == "2"


async def test_the_other_takes_over_when_the_owner_is_gone(shared: World, other: World) -> None:
    worker = await shared.worker("w", SLOW)
    await hear_of(other)
    worker.work = worker.held
    running = await shared.submit("echo", "1")
    await shared.until(lambda: len(worker.open) == 1)
    await shared.crash()
    worker.work = None
    waiting = await other.submit("echo", "2")
    await other.change(f"UPDATE dispatcher SET lease_until = 1 WHERE id <> '{other.parts.desk.me}'")
    await other.change("UPDATE shard SET lease_until = 1")
    await other.parts.lease.run_once()
    ended = await other.all_ended([running, waiting])
    assert [(run.state, run.attempt, run.tries) for run in ended] == [("completed", 2, 2), ("completed", 1, 1)]


async def test_a_turn_of_an_owner_that_was_replaced_writes_nothing(shared: World, other: World) -> None:
    worker = await shared.worker("w", slots=2)
    await hear_of(other)
    await shared.change("UPDATE shard SET lease_until = 1")
    await other.parts.lease.run_once()
    await other.turns()
    assert isinstance(await refused(shared.parts.database.write(turn(shared.parts.desk, [Tick()]))), NotOwner)

    run = await shared.submit("echo", "7")  # it does not know yet, and finds out in its turn
    assert run.state is RunState.QUEUED
    assert not shared.parts.desk.owns
    ended = await other.ended(run)
    assert (ended.output, ended.attempt, len(worker.calls)) == ("7", 1, 1)


async def test_a_server_that_stops_hands_the_lanes_over_at_once(shared: World, other: World) -> None:
    await shared.worker()
    await hear_of(other)
    await shared.engine.stop(0)
    await other.parts.lease.run_once()
    ended = await other.ended(await other.submit())
    assert ended.state is RunState.COMPLETED


async def test_a_server_without_a_lease_sends_nothing(shared: World) -> None:
    worker = await shared.worker()
    shared.parts.outbox._may_send = lambda: False
    run = await shared.submit("echo", "1")
    await shared.put_back(run, "not_sent")
    assert worker.calls == []
    shared.parts.outbox._may_send = shared.parts.lease.holds
    ended = await shared.ended(run)
    assert (ended.output, ended.tries) == ("1", 1)


async def test_a_server_whose_lease_ran_out_starts_nothing_until_it_has_renewed_it(shared: World) -> None:
    worker = await shared.worker()
    shared.parts.lease._until = 0.001
    run = await shared.submit("echo", "1")
    await shared.turns()
    assert ((await shared.engine.get_run(run.id)).attempt, worker.calls) == (0, [])
    await shared.parts.lease.run_once()
    ended = await shared.ended(run)
    assert (ended.output, ended.attempt) == ("1", 1)


async def test_any_server_cancels_and_takes_reports(shared: World, other: World) -> None:
    worker = await shared.worker("w", slots=1)
    await hear_of(other)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    worker.answer = accept
    first = await shared.submit("echo", "1")
    await shared.until_detached(first)
    await other.engine.report_complete(first.id, 1, worker.calls[0].lease_token, "9", b"x")
    second = await shared.submit("echo", "2")
    await shared.until_detached(second)  # the owner has heard that the slot is free
    await other.engine.cancel_run(second.id)
    await shared.until(lambda: len(worker.cancels) == 1)
    assert (await shared.ended(first)).output == "9"


async def test_a_failure_reported_at_another_server_frees_the_slot_and_oversells_none(
    shared: World, other: World
) -> None:
    first, second = await shared.worker("a", SLOW, slots=1), await shared.worker("b", SLOW, slots=1)
    await hear_of(other)
    await other.until(lambda: len(other.parts.registry.workers) == 2)

    async def accept(_: list[Call]) -> httpx.Response:
        return accepted()

    first.answer = second.answer = accept
    await shared.engine.pause_worker("b")
    run = await shared.submit("echo", "1")
    await shared.until_detached(run)
    await shared.engine.pause_worker("a")
    await shared.engine.resume_worker("b")
    failure = FailedLine("", 0, "E", "boom")
    await other.engine.report_fail(run.id, 1, first.calls[0].lease_token, failure, b"x")
    await shared.until(lambda: len(second.calls) == 1)
    await shared.turns()
    assert (await shared.load("a"), await shared.load("b")) == (0, 1)
    following = await shared.submit("echo", "2")
    await shared.turns()
    assert len(second.calls) == 1  # its one slot is taken
    second.answer = None
    await shared.engine.report_complete(run.id, 2, second.calls[0].lease_token, "1", b"x")
    assert [json.loads(run.output or "") for run in await shared.all_ended([run, following])] == [1, 2]


async def test_a_worker_registered_at_one_server_is_known_at_the_other(shared: World, other: World) -> None:
    await other.worker("w", "echo")
    await hear_of(shared)
    assert (await shared.engine.get_worker("w")).state is WorkerState.READY
    await other.engine.pause_worker("w")
    await shared.until(lambda: shared.parts.registry.workers["w"].state is WorkerState.PAUSED)
    await other.engine.delete_worker("w")
    await shared.until(lambda: "w" not in shared.parts.registry.workers)


async def test_two_servers_register_the_same_worker_at_the_same_time(shared: World, other: World) -> None:
    """As the instances of one deploy do, each at the server that it reaches."""
    fake = await shared.worker("w")
    await shared.engine.delete_worker("w")
    await other.until(lambda: "w" not in other.parts.registry.workers)
    for _ in range(5):
        workers = await asyncio.gather(*(world.register(fake) for world in (shared, other) * 2))
        assert {worker.state for worker in workers} == {WorkerState.READY}
        await shared.engine.delete_worker("w")

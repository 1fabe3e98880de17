"""Servers that go, stand still, or hear things in the wrong order: nothing is started twice, sent late or forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from hurlbat_dispatcher import DatabaseTrouble, Run, RunState, Unavailable
from hurlbat_dispatcher.push.transport import Response
from hurlbat_dispatcher.store.database import Clash
from hurlbat_dispatcher.store.leases import renew
from hurlbat_dispatcher.turn.operations import End
from tests.engine.test_sharing import busy
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

RETRIED = {"name": "echo", "retries": 2, "backoff": {"initial": 0, "strategy": "fixed"}}


def writes(world: World, before: Callable[[Any], None]) -> None:
    """Call `before` with each script that a server is about to run; it may raise."""
    real = world.parts.database.write

    async def write(script: Any) -> Any:
        before(script)
        return await real(script)

    world.parts.database.write = write  # type: ignore[method-assign]


async def test_a_hand_over_that_failed_is_done_with_the_next_renewal(owner: World, other: World) -> None:
    worker = await busy(owner, other, plain=True)
    await owner.submit(input="1")
    await owner.until(lambda: len(worker.open) == 1)
    failed: list[Any] = []

    def once(script: Any) -> None:
        if script.__name__ == "hand_over" and not failed:
            failed.append(script)
            raise DatabaseTrouble("away for a moment")

    writes(owner, once)
    stopping = asyncio.ensure_future(owner.engine.stop(SOON))
    await owner.until(lambda: len(failed) == 1)
    await owner.parts.lease.run_once()
    run = await other.submit(input="2")
    await other.until(lambda: any(call.run_id == run.id for call in worker.calls))
    assert (len(failed), stopping.done()) == (1, False)
    worker.gate.set()
    await stopping


async def test_servers_that_stop_together_do_not_keep_each_other_busy(owner: World, other: World) -> None:
    worker = await busy(owner, other, plain=True)
    await owner.submit(input="1")
    await other.submit(input="2")
    await owner.until(lambda: len(worker.open) == 2)
    renewals = []
    for world in (owner, other):
        writes(world, lambda script: renewals.append(script) if script.__name__ == renew.__name__ else None)
    stopping = [asyncio.ensure_future(world.engine.stop(SOON)) for world in (owner, other)]
    for _ in range(200):
        await asyncio.sleep(0.005)  # long enough for hundreds
    worker.gate.set()
    await asyncio.gather(*stopping)
    assert len(renewals) < 20


async def test_a_run_whose_cancellation_is_heard_before_its_start_is_not_sent(owner: World, other: World) -> None:
    """The answer of the commit that took it is late."""
    worker = await busy(owner, other)
    taken, go_on = asyncio.Event(), asyncio.Event()
    real = other.parts.database.write

    async def write(script: Any) -> Any:
        result = await real(script)
        if getattr(result, "deliveries", None):
            taken.set()
            await go_on.wait()
        return result

    other.parts.database.write = write  # type: ignore[method-assign]
    run = await other.submit(input="1")
    await taken.wait()
    heard = asyncio.Event()
    let_go = other.parts.outbox.let_go

    def listen(attempts: Any) -> None:
        let_go(attempts)
        heard.set()

    other.parts.outbox.let_go = listen  # type: ignore[method-assign]
    assert (await owner.engine.cancel_run(run.id)).state is RunState.CANCELLED
    async with asyncio.timeout(SOON):
        await heard.wait()
    go_on.set()
    await other.turns()
    assert worker.calls == []


async def test_an_attempt_that_was_rescued_while_its_server_connected_is_not_sent(owner: World, other: World) -> None:
    worker = await owner.worker("w", RETRIED, slots=8)
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    transport = other.parts.transport
    connecting, connected = asyncio.Event(), asyncio.Event()
    post: Callable[..., AbstractAsyncContextManager[Response]] = transport.post

    @asynccontextmanager
    async def slowly(*some: Any, **more: Any) -> AsyncIterator[Response]:
        connecting.set()
        await connected.wait()
        async with post(*some, **more) as response:
            yield response

    transport.post = slowly  # type: ignore[method-assign]
    run = await other.submit(input="1")
    await connecting.wait()
    cut = [True]

    def away(_: Any) -> None:
        if cut[0]:
            raise DatabaseTrouble("this server cannot reach the database")

    writes(other, away)
    other.parts.lease._until = 0.001
    await owner.change(f"UPDATE dispatcher SET lease_until = 1 WHERE id = '{other.parts.desk.me}'")
    await owner.tick(sweep=True)
    ended = await owner.ended(run)
    assert not other.parts.lease.holds()
    connected.set()
    cut[0] = False
    await other.until(lambda: other.parts.outbox.in_flight == 0)
    assert (ended.attempt, [call.attempt for call in worker.calls]) == (2, [2])


async def test_an_answer_is_kept_when_others_are_in_the_way_of_its_turn_again_and_again(world: World) -> None:
    worker = await world.worker()
    worker.work = worker.held
    run = await world.submit(input="1")
    await world.until(lambda: len(worker.open) == 1)
    left = [4]

    def clash(script: Any) -> None:
        if left[0] and script.__name__ == "turn" and any(isinstance(one, End) for one in world.parts.writer._current):
            left[0] -= 1
            raise Clash("deadlock detected")

    writes(world, clash)
    worker.gate.set()
    ended = await world.ended(run)
    assert (left, ended.state, ended.attempt) == ([0], RunState.COMPLETED, 1)


STALLS = """
CREATE OR REPLACE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  LOOP
    BEGIN
      IF pg_try_advisory_xact_lock_shared(42) THEN RETURN NULL; END IF;
      PERFORM pg_sleep(0.02);
    EXCEPTION WHEN query_canceled THEN NULL;
    END;
  END LOOP;
END $$;
CREATE CONSTRAINT TRIGGER stalls AFTER INSERT ON run DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION stall();
"""
"""Lets a commit stand still while somebody holds the lock, and not be cancelled, as when the disk does not answer."""

STANDING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')"
)
"""How many transactions stand still: in their commit, or behind another one."""


async def test_a_commit_that_was_given_up_and_takes_place_later_oversells_no_slot(
    owner: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await owner.worker("w", slots=1)
    worker.work = worker.held
    monkeypatch.setattr("hurlbat_dispatcher.store.postgres.TRANSACTION_SECONDS", 1.0)
    side = await asyncpg.connect(owner.settings.database_url.replace("+asyncpg", ""))
    try:
        await side.execute(STALLS)
        await side.execute("SELECT pg_advisory_lock(42)")
        problem = await refused(owner.submit(input="1"))
        assert isinstance(problem, Unavailable)
        assert problem.code == "outcome_unknown"
        later = asyncio.ensure_future(_in_the_end(owner, "2"))
        async with asyncio.timeout(SOON):
            while await side.fetchval(STANDING) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        await side.execute("SELECT pg_advisory_unlock(42)")
        second = await later
        await owner.until(lambda: len(worker.open) == 1)
        worker.gate.set()
        await owner.ended(second)
    finally:
        await side.execute("DROP TRIGGER IF EXISTS stalls ON run")
        await side.close()
    assert await owner.rows("SELECT count(*) FROM run WHERE state = 'completed'") == [(2,)]
    assert worker.peak == 1


async def _in_the_end(world: World, input: str) -> Run:
    async with asyncio.timeout(SOON):
        while True:
            with suppress(Unavailable):
                return await world.submit(input=input)
            await asyncio.sleep(0.05)


async def test_an_end_that_was_stored_without_anybody_knowing_is_told_once(world: World) -> None:
    worker = await world.worker()
    worker.work = worker.held
    run = await world.submit(input="1")
    await world.until(lambda: len(worker.open) == 1)
    real = world.parts.database.write
    left = [1]

    async def write(script: Any) -> Any:
        ends = script.__name__ == "turn" and any(
            isinstance(one, End) and one.ends for one in world.parts.writer._current
        )
        result = await real(script)
        if left[0] and ends:
            left[0] -= 1
            raise DatabaseTrouble("lost in the commit", unknown=True)
        return result

    world.parts.database.write = write  # type: ignore[method-assign]
    worker.gate.set()
    await world.until(lambda: left == [0] and world.parts.writer.trouble is None and not world.parts.writer.queued)
    await world.turns()
    found = await world.ended(run)
    assert [(entry.kind, entry.attempt) for entry in found.timeline] == [
        ("created", 0),
        ("started", 1),
        ("completed", 1),
    ]

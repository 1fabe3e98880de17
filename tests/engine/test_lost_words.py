"""Word that comes late, twice or never: it costs time, and no promise."""

import json

import httpx
import pytest

from hurlbat_dispatcher import Engine, Outside, RunState
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.workers import NOWHERE
from hurlbat_dispatcher.neighbours import Neighbours
from hurlbat_dispatcher.turn.operations import Beat, Freed, Signal
from tests.engine.far_side import Call, FakeWorker, accepted
from tests.engine.world import World

pytestmark = pytest.mark.anyio

AN_HOUR_MS = 3_600_000


class TurnedBack(SystemClock):
    """A host's clock that is set back by an hour when the test says so."""

    def __init__(self) -> None:
        self.back_ms = 0

    def now_ms(self) -> int:
        """Return what the host says."""
        return super().now_ms() - self.back_ms


async def test_a_late_word_of_a_freed_slot_does_not_free_the_slot_of_the_next_attempt(database_url: str) -> None:
    async with World(database_url) as world:
        worker = await world.worker("w", slots=1)
        worker.work = worker.held
        first, second = await world.submit(), await world.submit()
        await world.until(lambda: len(worker.open) == 1)
        world.parts.writer.put(Freed([(first.id, 0)]))  # it speaks of an attempt before this one
        await world.turns()
        assert await world.load() == 1
        assert (await world.engine.get_run(second.id)).state is RunState.QUEUED
        worker.gate.set()
        await world.all_ended([first, second])
        assert worker.peak == 1


async def test_a_clock_that_is_set_back_by_an_hour_stops_no_timer(sqlite_url: str) -> None:
    clock = TurnedBack()
    world = World(sqlite_url)
    world.engine = Engine(world.settings, Outside(clock=clock, network=world.network.transport()))
    async with world:
        await world.worker()
        await world.ended(await world.submit())
        clock.back_ms = AN_HOUR_MS
        delayed = await world.submit(delay=0.2)
        started = await world.until_run(delayed, lambda run: run.attempt == 1)
        assert started.created_at < started.due_at


async def test_a_worker_that_was_registered_elsewhere_unheard_is_found_by_the_sweep(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.assembly.SWEEP_SHARED", 3600.0)
    monkeypatch.setattr(Neighbours, "heard", lambda *_: None)
    async with World(postgres_url) as owner, World(postgres_url, owner.network) as other:
        fake = FakeWorker("w", [{"name": "echo"}])
        owner.network.workers["w"] = fake
        await other.register(fake)
        run = await other.submit()
        await owner.parts._sweep()
        assert (await owner.ended(run)).state is RunState.COMPLETED


async def test_an_attempt_in_nobodys_hands_is_rescued_by_the_sweep(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.writer.RECALL_AFTER", AN_HOUR_MS // 2)
    async with World(database_url) as world:
        worker = await world.worker("w", {"name": "echo", "retries": 1, "backoff": {"initial": 0, "strategy": "fixed"}})
        send, world.parts.outbox.send = world.parts.outbox.send, lambda deliveries: None  # type: ignore[method-assign]
        run = await world.submit(input="7")
        assert run.state is RunState.RUNNING
        world.parts.outbox.send = send  # type: ignore[method-assign]
        world.parts.writer.recall()
        await world.turns()
        assert (await world.engine.get_run(run.id)).attempt == 1  # it may still be handed over
        await world.change(f"UPDATE run SET started_at = started_at - {AN_HOUR_MS} WHERE id = '{run.id}'")
        world.parts.writer.recall()
        ended = await world.ended(run)
        assert (ended.state, ended.output, ended.attempt, ended.tries) == (RunState.COMPLETED, "7", 2, 2)
        assert [call.attempt for call in worker.calls] == [2]


async def test_a_heartbeat_that_is_answered_well_is_not_followed_by_the_end_of_its_lease(database_url: str) -> None:
    async with World(database_url) as world:
        worker = await world.worker()

        async def accepting(_: list[Call]) -> httpx.Response:
            return accepted()

        worker.answer = accepting
        run = await world.submit()
        await world.until_detached(run)
        await world.change(f"UPDATE run SET lease_until = lease_until - {AN_HOUR_MS} WHERE id = '{run.id}'")
        beat = Beat(run.id, 1)
        world.parts.writer._queue.append(beat)  # both in one turn, as when the lease ends while the beat is on its way
        await world.tick()
        found = await world.engine.get_run(run.id)
        assert (found.state, found.attempt) == (RunState.RUNNING, 1)


async def test_what_was_sent_together_halves_the_window_once(database_url: str) -> None:
    async with World(database_url) as world:
        await world.worker("w", slots=100)
        before = (await world.engine.get_worker("w")).window
        for _ in range(10):
            world.parts.writer.put(Signal("w", trouble=True))
        await world.turns()
        assert (await world.engine.get_worker("w")).window == before // 2


async def test_a_fault_on_our_side_leaves_the_window_alone(database_url: str) -> None:
    async with World(database_url) as world:
        await world.worker("w", slots=100)
        before = (await world.engine.get_worker("w")).window
        world.parts.writer.put(Signal("w", rest=AN_HOUR_MS))
        await world.turns()
        assert (await world.engine.get_worker("w")).window == before
        held = await world.submit()
        assert held.state is RunState.QUEUED


async def test_workers_that_come_and_go_leave_nothing_in_the_picture(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.assembly.SWEEP_SHARED", 3600.0)
    async with World(database_url) as world:
        await world.worker("stays", "echo")
        await world.ended(await world.submit())
        for number in range(20):
            await world.worker(f"goes-{number}", "echo")
            await world.engine.delete_worker(f"goes-{number}")
        picture = world.parts.desk.picture
        assert set(picture.slots) == {NOWHERE, "stays"}
        assert list(picture.pools) == [((("stays", 0),), 1)]
        assert json.loads((await world.ended(await world.submit(input="1"))).output or "") == 1


async def test_what_runs_on_a_worker_that_was_removed_counts_after_a_restart(database_url: str) -> None:
    rule = {"key": "'all'", "max_runs": 1}
    async with World(database_url) as world:
        worker = await world.worker("goes", {"name": "one", "concurrency": [rule]})
        worker.work = worker.held
        await world.submit("one")
        await world.until(lambda: len(worker.open) == 1)
        stays = await world.worker("stays", {"name": "one", "concurrency": [rule]})
        await world.engine.delete_worker("goes")
        world.parts.writer._stale = True
        second = await world.submit("one")
        await world.turns()
        assert (await world.engine.get_run(second.id)).state == "queued"
        assert not stays.calls
        worker.gate.set()
        await world.ended(second)
        assert next(iter(world.parts.desk.picture.groups.values())).used == 0

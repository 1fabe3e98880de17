"""Several servers share the sending: one starts the runs, each is sent by one of them, and by no two."""

import asyncio
import json
import math
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Run, RunState
from hurlbat_dispatcher.domain.senders import AHEAD
from hurlbat_dispatcher.neighbours import Neighbours
from hurlbat_dispatcher.turn.operations import Take
from tests.engine.far_side import Call, FakeWorker, marked
from tests.engine.scheduled import now_of
from tests.engine.world import SOON, World

pytestmark = pytest.mark.anyio

AN_HOUR_MS = 3_600_000


async def busy(owner: World, other: World, *, slots: int = 8, plain: bool = False) -> FakeWorker:
    """Register a worker at both servers that holds what it gets."""
    worker = await owner.worker("w", slots=slots, plain=plain)
    worker.work = worker.held
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    return worker


async def sender_of(world: World, run_id: str) -> object:
    """Return the server that a run's attempt was given to."""
    [(sender,)] = await world.rows(f"SELECT sender FROM run WHERE id = '{run_id}'")
    return sender


def code_of(run: Run) -> str:
    """Return the code of a run's error."""
    return str(json.loads(run.error or "{}").get("code"))


def deaf(world: World, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    """Let a server not hear one kind of message."""
    do = Neighbours._do

    def all_but(neighbours: Neighbours, said: dict[str, Any]) -> None:
        if neighbours is not world.parts.neighbours or word not in said:
            do(neighbours, said)

    monkeypatch.setattr(Neighbours, "_do", all_but)


async def test_whoever_took_a_run_in_sends_it_and_the_slot_comes_back(owner: World, other: World) -> None:
    worker = await busy(owner, other)
    runs = [await other.submit(input=str(n)) for n in range(4)] + [await owner.submit(input="4")]
    await owner.until(lambda: len(worker.open) == 5)
    assert [await sender_of(owner, run.id) for run in runs] == [other.parts.desk.me] * 4 + [owner.parts.desk.me]
    assert (other.parts.outbox.in_flight, owner.parts.outbox.in_flight) == (4, 1)
    assert await owner.load() == 5
    worker.gate.set()
    assert [run.output for run in await owner.all_ended(runs)] == ["0", "1", "2", "3", "4"]
    await owner.until(lambda: not owner.parts.desk.picture.running)
    assert sorted(call.attempt for call in worker.calls) == [1] * 5


async def test_an_attempt_whose_message_was_lost_is_sent_by_the_sweep_and_once(
    owner: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await busy(owner, other)
    deaf(other, monkeypatch, "started")
    run = await other.submit()
    await owner.until_run(run, lambda found: found.state is RunState.RUNNING)
    await other.turns()
    assert worker.calls == []
    other.parts.writer.recall()
    await other.turns()
    other.parts.writer.recall()
    other.parts.writer.put(Take([run.id]))
    await other.turns()
    await other.until(lambda: len(worker.open) == 1)
    worker.gate.set()
    ended = await owner.ended(run)
    assert (ended.state, ended.attempt, len(worker.calls)) == (RunState.COMPLETED, 1, 1)


async def test_what_was_taken_and_lost_is_rescued_though_it_came_from_another_server(
    owner: World, other: World
) -> None:
    worker = await busy(owner, other)
    other.parts.outbox.send = lambda deliveries: None  # type: ignore[method-assign]
    run = await other.submit()
    await owner.until_run(run, lambda found: found.state is RunState.RUNNING)
    await other.until(lambda: len(other.parts.taken.attempts) == 1)
    await owner.change(f"UPDATE run SET started_at = started_at - {AN_HOUR_MS} WHERE id = '{run.id}'")
    other.parts.writer.recall()
    ended = await owner.ended(run)
    assert (ended.state, code_of(ended)) == (RunState.FAILED, "unknown_outcome")
    assert worker.calls == []


async def test_a_server_that_stops_is_given_nothing_more(owner: World, other: World) -> None:
    """The owner knows nothing of it: only the row of the other server tells, and it is read in the same turn."""
    worker = await busy(owner, other)
    worker.gate.set()
    first = await other.submit(delay=3600)
    await owner.change(f"UPDATE run SET sender = '{other.parts.desk.me}' WHERE id = '{first.id}'")
    await other.change(f"UPDATE dispatcher SET stopping = 1 WHERE id = '{other.parts.desk.me}'")
    assert owner.parts.desk.peers == (other.parts.desk.me,)
    await owner.time_comes(first, "due_at")
    ended = await owner.ended(first)
    assert (ended.state, await sender_of(owner, first.id)) == (RunState.COMPLETED, owner.parts.desk.me)


async def test_a_server_that_stops_gives_back_uncharged_what_it_was_given_and_did_not_hear_of(
    owner: World, other: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await busy(owner, other)
    worker.gate.set()
    deaf(other, monkeypatch, "started")
    run = await other.submit(input="3")
    await owner.until_run(run, lambda found: found.state is RunState.RUNNING)
    await other.engine.stop(5)
    ended = await owner.ended(run)
    assert (ended.state, ended.output, ended.attempt, ended.tries) == (RunState.COMPLETED, "3", 2, 1)
    assert [call.attempt for call in worker.calls] == [2]


async def test_the_lanes_change_hands_while_the_server_that_had_them_still_waits_for_answers(
    owner: World, other: World
) -> None:
    worker = await busy(owner, other)
    slow = await owner.submit(input="1")
    await owner.until(lambda: len(worker.open) == 1)
    stopping = asyncio.ensure_future(owner.engine.stop(30))
    await other.until(lambda: other.parts.desk.owns)
    worker.work = None
    quick = await other.ended(await other.submit(input="2"))
    assert (quick.state, stopping.done()) == (RunState.COMPLETED, False)
    worker.gate.set()
    await stopping
    ended = await other.ended(slow)
    assert (ended.state, ended.attempt) == (RunState.COMPLETED, 1)


async def test_a_cancelled_attempt_is_let_go_by_the_server_that_sends_it(owner: World, other: World) -> None:
    worker = await busy(owner, other, plain=True)
    run = await other.submit()
    await other.until(lambda: len(worker.open) == 1)
    await owner.engine.cancel_run(run.id)
    await other.until(lambda: other.parts.outbox.in_flight == 0)
    await owner.until(lambda: not owner.parts.desk.picture.running)
    assert (await owner.engine.get_run(run.id)).state is RunState.CANCELLED


async def test_attempts_of_a_server_that_died_are_rescued_when_its_lease_is_over_without_a_sweep(
    owner: World, other: World
) -> None:
    worker = await busy(owner, other)
    run = await other.submit()
    await other.until(lambda: len(worker.open) == 1)
    dead = other.parts.desk.me
    await other.crash()
    async with asyncio.timeout(SOON):
        while (owner.parts.desk.orphans_at or math.inf) > await now_of(owner) + AN_HOUR_MS // 60:
            soon = await now_of(owner) + 500
            await owner.change(f"UPDATE dispatcher SET lease_until = {soon} WHERE id = '{dead}'")
            await owner.tick()  # it learns until when the other one lives
    ended = await owner.ended(run)
    assert (ended.state, code_of(ended)) == (RunState.FAILED, "unknown_outcome")


async def test_a_pile_of_runs_is_sent_by_both(owner: World, other: World) -> None:
    many = 4 * AHEAD
    worker = await busy(owner, other, slots=many)
    await owner.engine.pause_worker("w")
    runs = await owner.submit_all(many)
    await owner.change("UPDATE run SET ready = 0")  # as if they had come due
    owner.parts.writer._stale = True
    await owner.engine.update_worker("w", window=many)
    await owner.engine.resume_worker("w")
    await owner.tick()
    worker.gate.set()
    ended = await owner.all_ended(runs)
    assert {run.state for run in ended} == {RunState.COMPLETED}
    rows = await owner.rows("SELECT sender, count(*) FROM run GROUP BY sender")
    assert dict(rows).keys() == {owner.parts.desk.me, other.parts.desk.me}
    assert len(worker.calls) == many


async def test_an_unknown_word_of_another_server_is_left_alone(owner: World) -> None:
    for message in ("5", "[]", "{", '{"freed": 5}', '{"freed": [["a"]]}', '{"news": 1}', '{"for": null}'):
        owner.parts.neighbours.heard(message)
    await owner.worker()
    assert (await owner.ended(await owner.submit())).state is RunState.COMPLETED


async def test_what_lies_unsent_when_a_lease_runs_out_is_given_back_though_the_lease_is_renewed(owner: World) -> None:
    """Somebody else may have rescued it: to send it would be to start it twice."""
    worker = await owner.worker("w", slots=64, max_batch=1)
    worker.work = worker.held
    owner.parts.outbox._pump = lambda *_, **__: None  # type: ignore[method-assign]
    run = await owner.submit()
    await owner.turns()
    del owner.parts.outbox._pump
    owner.parts.lease._until = 0.001
    await owner.parts.lease.run_once()
    await owner.until(lambda: len(worker.open) == 1)
    worker.gate.set()
    ended = await owner.ended(run)
    assert (ended.attempt, ended.tries, [call.attempt for call in worker.calls]) == (2, 1, [2])


async def test_all_servers_obey_what_a_worker_told_one_of_them(owner: World, other: World) -> None:
    worker = await owner.worker("w", slots=8)
    await other.until(lambda: "echo" in other.parts.registry.tasks)

    async def full(_: list[Call]) -> httpx.Response:
        return marked(503, retry_after="600")

    worker.answer = full
    run = await other.submit()
    seen = [world.parts.desk.picture.slots["w"] for world in (owner, other)]
    await owner.until(lambda: all(slots.not_before > 0 for slots in seen))
    assert [slots.window.size for slots in seen] == [4, 4]
    assert all(
        slots.not_before > world.parts.desk.last_now + 500_000
        for slots, world in zip(seen, (owner, other), strict=True)
    )
    assert (await owner.engine.get_run(run.id)).state is RunState.QUEUED


async def test_good_answers_to_one_server_open_the_window_of_the_one_that_starts_the_runs(
    owner: World, other: World
) -> None:
    await owner.worker("w", slots=64)
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    await owner.all_ended([await other.submit(input=str(n)) for n in range(10)])
    await owner.until(lambda: owner.parts.desk.picture.slots["w"].window.size == 26)

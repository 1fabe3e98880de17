"""What flow control must not get wrong, found by those who tried to break it."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from hurlbat_dispatcher import Submission, Unavailable
from hurlbat_dispatcher.neighbours import Neighbours
from hurlbat_dispatcher.store.database import Clash
from hurlbat_dispatcher.store.statement import Write
from hurlbat_dispatcher.turn import crank
from hurlbat_dispatcher.turn.knowing import find_lanes
from hurlbat_dispatcher.turn.operations import Entry
from tests.engine.far_side import Call, marked
from tests.engine.world import World

pytestmark = pytest.mark.anyio


def ranked(strategy: str, **more: Any) -> dict[str, Any]:
    """Return a task of which one run of all lives at a time."""
    backoff = {"strategy": "fixed", "initial": 600, "jitter": False}
    rule = {"key": "'x'", "max_runs": 1, "strategy": strategy}
    return {"name": "echo", "retries": 3, "backoff": backoff, "concurrency": [rule], **more}


@pytest.mark.parametrize("heard", [True, False])
async def test_a_run_that_another_server_put_back_does_not_run(
    owner: World, other: World, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    if not heard:
        monkeypatch.setattr(Neighbours, "_do", _without("back"))
    worker = await owner.worker("w", ranked("CANCEL_NEWEST"), slots=8)
    worker.work = _fails
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    first = await other.submit(input="1")
    await other.put_back(first, "retry")
    await owner.until(lambda: not owner.parts.desk.picture.running)
    if heard:
        await owner.until(lambda: not owner.parts.desk.picture.members[first.id].running)

    kept = await owner.submit(input="2")

    assert (await owner.ended(kept)).state == "completed"


async def test_a_start_that_was_none_leaves_a_run_never_started_for_whoever_did_not_send_it(
    owner: World, other: World
) -> None:
    worker = await owner.worker("w", ranked("QUEUE_OLDEST_ONLY"), slots=8)

    async def refuses(_: list[Call]) -> Any:
        return marked(429, retry_after="600")

    worker.answer = refuses
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    first = await other.submit(input="1")
    await other.put_back(first, "pushed_back")
    await owner.until(lambda: not owner.parts.desk.picture.members[first.id].running)

    refused = await owner.submit(input="2")

    assert (await owner.ended(refused)).reason == "concurrency"


async def test_a_retry_that_could_not_be_sent_has_started_also_after_a_restart(local: World) -> None:
    worker = await local.worker("w", ranked("QUEUE_NEWEST_ONLY"), slots=8)
    worker.work = _fails
    first = await local.submit(input="1")
    await local.put_back(first, "retry")

    async def refuses(_: list[Call]) -> Any:
        return marked(429, retry_after="600")

    answered, worker.answer = worker.answer, refuses
    await local.time_comes(first, "due_at")
    await local.put_back(first, "pushed_back")
    local.parts.writer._stale = True  # it is read anew, as after a restart
    worker.answer = answered

    await local.submit(input="2")
    await local.turns()

    assert (await local.engine.get_run(first.id)).state == "queued"
    await local.engine.cancel_run(first.id)


async def test_a_replayed_run_that_could_not_be_sent_never_started(local: World) -> None:
    worker = await local.worker("w", ranked("QUEUE_NEWEST_ONLY"), slots=8)
    first = await local.ended(await local.submit(input="2"))

    async def refuses(_: list[Call]) -> Any:
        return marked(429, retry_after="600")

    answered, worker.answer = worker.answer, refuses
    await local.engine.replay_run(first.id)
    await local.put_back(first.id, "pushed_back")
    local.parts.writer._stale = True
    worker.answer = answered

    await local.submit(input="2")

    assert (await local.ended(first.id)).reason == "concurrency"


async def _fails(call: Call) -> Any:
    return call.failed("no") if call.input == 1 else json.dumps(call.input)


def _without(word: str) -> Any:
    do = Neighbours._do
    return lambda neighbours, said: do(neighbours, {kind: news for kind, news in said.items() if kind != word})


async def test_refused_newcomers_leave_nothing_behind_and_can_be_replayed_at_once(local: World) -> None:
    worker = await local.worker("w", ranked("CANCEL_NEWEST"), slots=8)
    worker.work = worker.held
    first = await local.submit(input="1")
    await local.until(lambda: len(worker.open) == 1)
    refused = await local.submit_all(30, "echo")
    [lane] = local.parts.desk.picture.lanes.values()
    assert (lane.gone, lane.heap) == (set(), [])
    worker.gate.set()
    await local.ended(first)
    await local.engine.replay_run(refused[3])
    assert (await local.ended(refused[3])).state == "completed"


BY_INPUT = {"name": "echo", "concurrency": [{"key": "string(input)", "max_runs": 1}]}


async def test_lanes_are_forgotten_between_turns_and_not_within_one(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.turn.desk.MOST_LANES", 3)
    await local.worker("w", BY_INPUT)
    first = await local.submit_all(2)
    more = await local.submit_all(6)
    last = await local.submit_all(2)
    assert [run.state for run in await local.all_ended([*first, *more, *last])] == ["completed"] * 10


async def test_two_servers_make_the_same_lanes_in_other_orders(owner: World, other: World) -> None:
    await owner.worker("w", BY_INPUT, slots=8)
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    bulk = [Submission("echo", str(n)) for n in range(300)]
    placed = await asyncio.gather(owner.engine.submit_many(bulk), other.engine.submit_many(bulk[::-1]))
    assert [one for outcomes in placed for one in outcomes if isinstance(one, Exception)] == []
    assert await owner.rows("SELECT count(*) FROM lane") == [(300,)]


async def test_new_lanes_are_made_in_one_order_by_all_servers(local: World) -> None:
    task: Any = SimpleNamespace(name="echo")
    asked: Any = None
    names = ["c", "a", "d", "b"]
    wanted = [Entry(name, 1, asked, task, "{}", name, name) for name in names]
    script = find_lanes(local.parts.desk, wanted, 1)
    next(script)
    made = script.send(())
    assert isinstance(made, Write)
    assert [row[3] for row in made.rows] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("clashes", [5, 6])
async def test_a_submit_that_clashes_is_put_off_and_refused_at_last(
    local: World, monkeypatch: pytest.MonkeyPatch, clashes: int
) -> None:
    """A turn is tried twice, and as often again each time it was put off."""
    await local.worker("w")
    left = [2 * clashes]

    def clash(desk: Any, entries: Any, now: int) -> Any:
        if left[0] and entries:
            left[0] -= 1
            raise Clash("deadlock detected")
        yield from find_lanes(desk, entries, now)

    monkeypatch.setattr(crank, "find_lanes", clash)
    asked = await asyncio.gather(local.submit(), return_exceptions=True)
    assert isinstance(asked[0], Unavailable) is (clashes == 6)
    assert local.parts.writer._entries == 0
    monkeypatch.undo()
    await local.ended(await local.submit())

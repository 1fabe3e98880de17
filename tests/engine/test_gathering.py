"""Debounce and batches: what one run takes in, when it starts, and what its submits are answered."""

import asyncio
import json
from typing import Any

import pytest

from hurlbat_dispatcher import Accepted, RunState, Submission
from hurlbat_dispatcher.domain.outcome import Succeeded
from hurlbat_dispatcher.turn.operations import AttemptEnd, Cancel, End, Move
from tests.engine.far_side import Call
from tests.engine.gathered import (
    BATCH,
    LEADING,
    TRAILING,
    count_runs,
    numbers,
    passes,
    policy,
    said,
    submit,
    submit_all,
)
from tests.engine.world import World

pytestmark = pytest.mark.anyio

# -- trailing ----------------------------------------------------------------------------------------------------------


async def test_the_newest_of_a_debounce_starts_when_none_has_come_for_its_period(world: World) -> None:
    worker = await world.worker("w", policy(**TRAILING))
    first = await submit(world, 1, priority=1, metadata='{"m": 1}')
    await passes(world, 700)
    second = await submit(world, 2, priority=3, metadata='{"m": 2}')
    assert (first.created, second.created, second.run.id) == (True, False, first.run.id)
    assert (second.run.input, second.run.metadata, second.run.priority) == ("null", '{"m": 2}', 3)
    assert (await world.engine.get_run(first.run.id)).input == said(2)
    await passes(world, 700)
    assert worker.calls == []
    await passes(world, 700)
    ended = await world.ended(first.run)
    assert [call.input for call in worker.calls] == [{"k": "a", "n": 2}]
    assert (ended.attempt, await count_runs(world)) == (1, 1)


async def test_a_debounce_is_put_off_no_longer_than_its_longest_wait(local: World) -> None:
    worker = await local.worker("w", policy(**TRAILING))
    runs = set()
    for n in range(4):
        runs.add((await submit(local, n)).run.id)
        await passes(local, 700)
    ended = await local.ended(next(iter(runs)))
    assert (len(runs), worker.calls[0].input["n"]) == (1, 3)
    next_one = await submit(local, 9)
    assert (next_one.created, next_one.run.id == ended.id) == (True, False)


async def test_each_key_has_a_run_of_its_own_and_null_has_none(local: World) -> None:
    worker = await local.worker("w", policy(**TRAILING))
    one, two = await submit(local, 1, "a"), await submit(local, 2, "b")
    assert (one.created, two.created) == (True, True)
    plain = await submit(local, 3, None)
    assert plain.run.state is RunState.RUNNING
    await local.ended(plain.run)
    assert [call.input["n"] for call in worker.calls] == [3]


async def test_submits_of_one_turn_gather_among_themselves(local: World) -> None:
    await local.worker("w", policy(**TRAILING))
    outcomes = await submit_all(local, range(5))
    assert [one.created for one in outcomes] == [True, False, False, False, False]
    assert {one.run.id for one in outcomes} == {outcomes[0].run.id}
    assert [one.run.input for one in outcomes] == [said(4), *["null"] * 4]
    assert await local.rows("SELECT submits FROM gathering") == [(5,)]


async def test_a_run_that_was_cancelled_or_is_due_takes_no_more(local: World) -> None:
    worker = await local.worker("w", policy(**TRAILING))
    first = await submit(local, 1)
    await local.engine.cancel_run(first.run.id)
    second = await submit(local, 2)
    assert second.created
    await local.engine.pause_worker("w")
    await passes(local, 1001)
    third = await submit(local, 3)
    assert third.created
    assert (await local.engine.get_run(second.run.id)).input == said(2)
    await local.engine.resume_worker("w")
    await local.ended(second.run)
    assert [call.input["n"] for call in worker.calls] == [2]


@pytest.mark.parametrize("at_once", [False, True])
async def test_the_lane_of_a_debounced_run_is_the_newest_ones(local: World, at_once: bool) -> None:
    rule = {"key": "input.user", "max_runs": 1}
    worker = await local.worker("w", policy(debounce={"period": 1000}, concurrency=[rule]))
    worker.work = worker.held
    asked = [Submission("echo", json.dumps({"user": user})) for user in "xy"]
    for some in [asked] if at_once else [asked[:1], asked[1:]]:
        await local.engine.submit_many(some)
    await passes(local, 1001)
    await local.until(lambda: len(worker.open) == 1)
    used = {group.value: group.used for group in local.parts.desk.picture.groups.values() if group.used}
    assert used == {"y": 1}
    worker.gate.set()
    await local.until(lambda: not worker.open)


async def test_a_debounced_run_can_be_moved_and_what_comes_after_moves_it_again(local: World) -> None:
    worker = await local.worker("w", policy(**TRAILING))
    first = await submit(local, 1)
    moved = await local.engine.move_run(first.run.id, first.run.due_at + 100_000)
    assert moved.due_at == first.run.due_at + 100_000
    second = await submit(local, 2)
    assert (second.run.id, second.run.due_at < moved.due_at) == (first.run.id, True)
    await local.engine.move_run(first.run.id, first.run.created_at)
    await local.ended(first.run)
    assert [call.input["n"] for call in worker.calls] == [2]


# -- leading -----------------------------------------------------------------------------------------------------------


async def test_the_first_of_a_leading_debounce_starts_at_once_and_those_that_follow_are_left_out(world: World) -> None:
    worker = await world.worker("w", policy(**LEADING))
    first = await submit(world, 1)
    await world.ended(first.run)
    for n in (2, 3, 4):
        await passes(world, 700)
        again = await submit(world, n)
        assert (again.created, again.run.id, again.run.state) == (False, first.run.id, RunState.COMPLETED)
    await passes(world, 1001)
    fresh = await submit(world, 5)
    await world.ended(fresh.run)
    assert (fresh.created, [call.input["n"] for call in worker.calls]) == (True, [1, 5])


async def test_a_leading_run_that_waits_or_runs_stays_as_it_is(local: World) -> None:
    worker = await local.worker("w", policy(**LEADING))
    worker.work = worker.held
    first, *others = await submit_all(local, range(3))
    assert [one.created for one in others] == [False, False]
    assert (await submit(local, 7, priority=9)).run.priority == first.run.priority
    worker.gate.set()
    await local.ended(first.run)
    assert [call.input["n"] for call in worker.calls] == [0]


async def test_a_leading_run_that_never_started_and_never_will_stands_for_nobody(local: World) -> None:
    await local.worker("w", policy(**LEADING))
    await local.engine.pause_worker("w")
    first = await submit(local, 1)
    assert not (await submit(local, 2)).created
    await local.engine.cancel_run(first.run.id)
    assert (await submit(local, 3)).created


# -- batches -----------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_run_with_the_list_of_all_inputs_in_their_order(local: World) -> None:
    worker = await local.worker("w", policy(**BATCH))
    first = await submit(local, 1)
    await passes(local, 700)
    second = await submit(local, 2)
    assert (first.created, second.created, second.run.id) == (True, False, first.run.id)
    assert (first.run.input, second.run.input) == (f"[{said(1)}]", "null")  # a thousand may be answered with it at once
    assert (await local.engine.get_run(first.run.id)).input == f"[{said(1)},{said(2)}]"
    assert worker.calls == []
    await passes(local, 700)
    await local.ended(first.run)
    assert list(map(numbers, worker.calls)) == [[1, 2]]


async def test_a_batch_that_is_full_starts_at_once_and_the_next_begins_another(local: World) -> None:
    worker = await local.worker("w", policy(**BATCH))
    runs = [await submit(local, n) for n in range(4)]
    assert [one.created for one in runs] == [True, False, False, True]
    await local.ended(runs[0].run)
    assert list(map(numbers, worker.calls)) == [[0, 1, 2]]


async def test_a_batch_of_one_is_a_list_and_so_is_what_is_not_gathered(local: World) -> None:
    worker = await local.worker("w", policy(**BATCH))
    await local.ended((await submit(local, 1, None)).run)
    alone = await submit(local, 2)
    await passes(local, 1001)
    await local.ended(alone.run)
    assert list(map(numbers, worker.calls)) == [[1], [2]]


async def test_many_submits_of_one_turn_fill_batch_after_batch(local: World) -> None:
    worker = await local.worker("w", policy(**BATCH))
    before = await submit(local, 0)
    outcomes = await submit_all(local, range(1, 8))
    assert len(outcomes) == 7
    ids = list(dict.fromkeys([before.run.id, *(one.run.id for one in outcomes)]))
    await passes(local, 1001)
    await local.all_ended(ids)
    assert sorted(map(numbers, worker.calls)) == [[0, 1, 2], [3, 4, 5], [6, 7]]


async def test_a_batch_keeps_the_text_of_its_inputs_and_its_highest_priority(world: World) -> None:
    await world.worker("w", policy(batch_size=10, batch_timeout=1000))
    texts = ['{"b": 1, "a": 2, "b": 3}', '"\\u0000 é 𝄞"', "1e308", "[ 1 ,\n2 ]"]
    for priority, text in enumerate(texts, 1):
        accepted = await world.engine.submit(Submission("echo", text, priority=priority % 4))
    kept = await world.engine.get_run(accepted.run.id)
    assert (kept.input, kept.priority) == (f"[{','.join(texts)}]", 3)
    [(size,)] = await world.rows("SELECT bytes FROM gathering")
    assert size == len(kept.input.encode())
    await passes(world, 1001)
    ended = await world.ended(accepted.run)
    assert json.loads(ended.output or "") == [json.loads(text) for text in texts]


async def test_a_batch_whose_list_would_be_too_long_starts_without_what_comes(local: World) -> None:
    worker = await local.worker("w", policy(batch_size=100, batch_timeout=1000))
    half = json.dumps("x" * 600_000)
    first = await local.engine.submit(Submission("echo", half))
    second = await local.engine.submit(Submission("echo", half))
    assert (second.created, second.run.id == first.run.id) == (True, False)
    await local.ended(first.run)
    assert [len(call.input) for call in worker.calls] == [1]
    outcomes = await local.engine.submit_many([Submission("echo", half), Submission("echo", half)])
    assert [isinstance(one, Accepted) and one.created for one in outcomes] == [True, True]


async def test_a_batch_gathers_only_what_draws_on_the_same(local: World) -> None:
    rule = {"key": "input.user", "max_runs": 1}
    worker = await local.worker("w", policy(batch_size=2, concurrency=[rule]))
    runs = [
        await local.engine.submit(Submission("echo", json.dumps({"user": user, "n": n})))
        for n, user in enumerate("abba")
    ]
    assert [one.created for one in runs] == [True, True, False, False]
    await local.all_ended([one.run for one in runs])
    assert sorted(map(numbers, worker.calls)) == [[0, 3], [1, 2]]


async def test_a_batch_that_a_worker_fails_is_tried_again_as_it_was(local: World) -> None:
    async def flaky(call: Call) -> Any:
        return call.failed() if call.attempt == 1 else json.dumps(len(call.input))

    retry = {"retries": 1, "backoff": {"strategy": "fixed", "initial": 0.01}}
    await local.worker("w", policy(**BATCH, **retry), work=flaky)
    runs = [await submit(local, n) for n in range(3)]
    ended = await local.ended(runs[0].run)
    assert (ended.output, ended.tries) == ("3", 2)
    assert (await submit(local, 9)).created


# -- what else happens in the same turn --------------------------------------------------------------------------------


async def test_a_leading_run_that_ends_in_this_very_turn_takes_what_follows(local: World) -> None:
    worker = await local.worker("w", policy(**LEADING))
    worker.work = worker.held
    first = await submit(local, 1)
    local.parts.writer.put(End([AttemptEnd(first.run.id, 1, Succeeded("7"))]))
    again = await submit(local, 2)
    assert (again.created, again.run.output) == (False, "7")


@pytest.mark.parametrize("way", [TRAILING, BATCH], ids=["trailing", "batch"])
async def test_a_run_that_is_cancelled_or_moved_in_this_very_turn_takes_no_more(
    local: World, way: dict[str, Any]
) -> None:
    await local.worker("w", policy(**way))
    for n in range(2):
        first = await submit(local, n)
        due_at = first.run.due_at + 5_000
        local.parts.writer.put(Move(first.run.id, due_at) if n else Cancel(first.run.id, "no"))
        assert (await submit(local, 9)).created
        found = await local.engine.get_run(first.run.id)
        assert (found.state, found.input) == ("queued" if n else "cancelled", first.run.input)
        assert found.due_at == due_at or not n
        await local.change("DELETE FROM gathering")


@pytest.mark.parametrize("way", [TRAILING, BATCH], ids=["trailing", "batch"])
async def test_a_run_that_gathers_and_is_moved_or_cancelled_in_one_turn_has_all_of_that(
    local: World, way: dict[str, Any]
) -> None:
    await local.worker("w", policy(**way | ({} if way is TRAILING else {"batch_size": 9})))
    first = await submit(local, 1)
    due_at = first.run.due_at + 5_000
    for n, then in enumerate((Move(first.run.id, due_at), Cancel(first.run.id, "no")), 2):
        more = asyncio.ensure_future(submit(local, n))
        await asyncio.sleep(0)
        local.parts.writer.put(then)
        assert not (await more).created
        await local.turns()
        found = await local.engine.get_run(first.run.id)
        assert said(n) in found.input
        assert (found.state, found.due_at == due_at) in (("queued", True), ("cancelled", way is BATCH))
    assert found.state is RunState.CANCELLED

"""Accepting runs: idempotency, bulk, payloads, and what is shown right after."""

import asyncio
import json
import uuid

import httpx
import pytest

from hurlbat.wire import write_line
from hurlbat_dispatcher import Accepted, Conflict, Invalid, NotFound, Problem, RunState, Submission
from hurlbat_dispatcher.loops.retention import Retention
from tests.engine.far_side import Call, marked
from tests.engine.world import LATER_MS, World, refused

pytestmark = pytest.mark.anyio

TRICKY = [
    '{"b": 1, "a": 2, "b": 3}',
    '"\\u0000 \\u00e9 é 𝄞 \\ud834\\udd1e"',
    "123456789012345678901234567890.000",
    '{ "spaces" :\t[ 1 ,\n2 ] }',
    "1e308",
    "-0.0",
    json.dumps("x" * 900_000),
]


@pytest.mark.parametrize("text", TRICKY, ids=range(len(TRICKY)))
async def test_payloads_come_back_as_the_text_that_came(world: World, text: str) -> None:
    async def answer(calls: list[Call]) -> httpx.Response:
        return marked(200, write_line(calls[0].completed(text)).encode(), content_type="application/json")

    worker = await world.worker("w", answer=answer)
    metadata = f'{{"m":{text}}}' if len(text) < 1000 else "{}"
    run = await world.ended(await world.submit("echo", text, metadata=metadata))
    assert (run.input, run.metadata, run.output) == (text, metadata, text)
    assert worker.calls[0].input == json.loads(text)


async def test_a_run_is_there_for_every_reader_the_moment_it_is_accepted(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    for n in range(20):
        accepted = await world.engine.submit(Submission("echo", str(n)))
        found = await world.engine.get_run(accepted.run.id)
        assert (found.input, found.state) == (str(n), RunState.QUEUED)
        assert (await world.engine.list_runs(limit=1)).items[0].id == found.id


async def test_a_run_that_finds_room_is_running_in_the_answer_to_its_submit(world: World) -> None:
    worker = await world.worker()
    worker.work = worker.held
    run = await world.submit()
    assert (run.state, run.attempt, run.tries, run.worker) == (RunState.RUNNING, 1, 1, "w")
    assert run.started_at == run.created_at
    assert uuid.UUID(run.id).version == 7
    worker.gate.set()
    await world.ended(run)


async def test_an_unknown_task_is_refused_and_named(world: World) -> None:
    problem = await refused(world.submit("nobody"))
    assert isinstance(problem, Invalid)
    assert (problem.code, problem.extra["field"]) == ("task_unknown", "task")


# -- idempotency -------------------------------------------------------------------------------------------------------


async def test_a_key_has_one_run_while_it_lasts(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    first = await world.engine.submit(Submission("echo", "1", idempotency_key="k"))
    again = await world.engine.submit(Submission("echo", "1", idempotency_key="k"))
    assert (first.created, again.created, again.run.id) == (True, False, first.run.id)
    other = await world.engine.submit(Submission("echo", "1", idempotency_key="other"))
    assert other.created


async def test_the_same_key_with_another_body_is_a_conflict_that_names_the_run(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    run = await world.submit("echo", "1", idempotency_key="k")
    for body in (
        Submission("echo", "2", idempotency_key="k"),
        Submission("echo", "1", metadata='{"a": 1}', idempotency_key="k"),
        Submission("echo", "1", priority=3, idempotency_key="k"),
    ):
        problem = await refused(world.engine.submit(body))
        assert isinstance(problem, Conflict)
        assert (problem.code, problem.extra["run_id"]) == ("idempotency_conflict", run.id)


async def test_a_key_belongs_to_its_task(world: World) -> None:
    await world.worker("w", "a", "b")
    first = await world.engine.submit(Submission("a", idempotency_key="k"))
    second = await world.engine.submit(Submission("b", idempotency_key="k"))
    assert (first.created, second.created) == (True, True)


async def test_a_key_without_a_ttl_lasts_until_its_run_ends(world: World) -> None:
    await world.worker()
    first = await world.ended(await world.submit("echo", "1", idempotency_key="k"))
    second = await world.engine.submit(Submission("echo", "2", idempotency_key="k"))
    assert second.created
    assert second.run.id != first.id


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_key_is_free_however_its_run_ends(world: World, how: str) -> None:
    await world.worker()
    run = await world.submit("echo", delay=7200.0, ttl=7200.0, idempotency_key="k")
    if how == "cancelled":
        await world.engine.cancel_run(run.id)
    else:
        await world.change(f"UPDATE run SET ttl_at = 5, expires_at = 5 WHERE id = '{run.id}'")
        await world.tick()
    await world.ended(run)
    assert (await world.engine.submit(Submission("echo", "2", idempotency_key="k"))).created


async def test_a_key_with_a_ttl_outlives_its_run_and_ends_with_its_time(world: World) -> None:
    await world.worker()
    asked = Submission("echo", "1", idempotency_key="k", idempotency_ttl=3600.0)
    first = await world.ended((await world.engine.submit(asked)).run)
    again = await world.engine.submit(asked)
    assert (again.created, again.run.id, again.run.state) == (False, first.id, RunState.COMPLETED)
    await world.change(f"UPDATE idempotency SET until = until - {LATER_MS}")
    later = await world.engine.submit(Submission("echo", "2", idempotency_key="k", idempotency_ttl=60.0))
    assert later.created


async def test_twenty_at_once_with_one_key_make_one_run(world: World) -> None:
    worker = await world.worker()
    accepted = await asyncio.gather(
        *(world.engine.submit(Submission("echo", "1", idempotency_key="k", idempotency_ttl=60.0)) for _ in range(20))
    )
    assert sum(one.created for one in accepted) == 1
    assert len({one.run.id for one in accepted}) == 1
    await world.ended(accepted[0].run)
    assert len(worker.calls) == 1


async def test_a_key_twice_in_one_bulk_makes_one_run(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    asked = [Submission("echo", text, idempotency_key="k") for text in ("1", "1", "2")]
    first, same, other = await world.engine.submit_many(asked)
    assert isinstance(first, Accepted)
    assert isinstance(same, Accepted)
    assert (first.created, same.created, same.run.id) == (True, False, first.run.id)
    assert isinstance(other, Conflict)


# -- bulk --------------------------------------------------------------------------------------------------------------


async def test_each_of_a_bulk_has_its_own_outcome_in_order(world: World) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    await world.submit("echo", "1", idempotency_key="used")
    outcomes = await world.engine.submit_many(
        [
            Submission("echo", "1"),
            Submission("nobody"),
            Submission("echo", "2", idempotency_key="used"),
            Submission("echo", "1", idempotency_key="used"),
            Submission("echo", "5", delay=60.0),
        ]
    )
    codes = [one.code if isinstance(one, Problem) else (one.created, one.run.input) for one in outcomes]
    assert codes == [(True, "1"), "task_unknown", "idempotency_conflict", (False, "1"), (True, "5")]
    assert [len(await world.rows("SELECT id FROM run"))] == [3]


async def test_a_thousand_runs_are_accepted_in_order_and_one_more_is_too_many(world: World) -> None:
    await world.worker("w", slots=1000)
    ids = await world.submit_all(1000)
    assert ids == sorted(ids)
    problem = await refused(world.engine.submit_many([Submission("echo")] * 1001))
    assert isinstance(problem, Invalid)
    assert problem.extra["limit"] == 1000
    assert await world.engine.submit_many([]) == []
    assert {run.state for run in await world.all_ended(ids)} == {RunState.COMPLETED}


# -- lists -------------------------------------------------------------------------------------------------------------


async def test_pages_show_every_run_once_the_newest_first(world: World) -> None:
    async def odd_ones_fail(call: Call) -> str:
        if call.input % 2:
            raise AssertionError
        return "0"

    await world.worker("w", "echo", "other")
    await world.engine.pause_worker("w")
    ids = await world.submit_all(7)
    others = await world.submit_all(3, "other")
    await world.engine.cancel_run(ids[2])
    for task, state, expected in (
        (None, None, [*ids, *others]),
        ("echo", None, ids),
        ("other", None, others),
        (None, RunState.QUEUED, [*ids[:2], *ids[3:], *others]),
        ("echo", RunState.CANCELLED, [ids[2]]),
        (None, RunState.CANCELLED, [ids[2]]),
        (None, RunState.RUNNING, []),
        ("echo", RunState.COMPLETED, []),
        ("nobody", None, []),
    ):
        seen, cursor = [], None
        for _ in range(10):
            page = await world.engine.list_runs(task=task, state=state, cursor=cursor, limit=2)
            seen += [run.id for run in page.items]
            assert all(run.timeline == () for run in page.items)
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == expected[::-1], (task, state)


@pytest.mark.parametrize("cursor", ["", "x", "0" * 36, "0" * 32 + "----", "0199A3C0-0000-7000-8000-00000000000G"])
async def test_a_cursor_that_is_none_is_refused(world: World, cursor: str) -> None:
    problem = await refused(world.engine.list_runs(cursor=cursor))
    assert isinstance(problem, Invalid)
    assert problem.code == "bad_cursor"


# -- retention ---------------------------------------------------------------------------------------------------------


async def test_retention_removes_what_finished_long_ago_with_all_that_belongs_to_it(world: World) -> None:
    worker = await world.worker("w", {"name": "echo", "retries": 1, "backoff": {"strategy": "fixed", "initial": 0}})
    done = [await world.submit("echo", idempotency_key=f"k{n}", idempotency_ttl=1.0) for n in range(3)]
    await world.all_ended(done)
    await world.engine.replay_run(done[0].id)  # leaves a row in its timeline
    await world.until_run(done[0], lambda found: found.is_final and found.attempt == 2)
    waiting = await world.submit("echo", delay=7200.0)
    kept = await world.ended(await world.submit("echo", idempotency_key="k", idempotency_ttl=7200.0))
    fresh = await world.ended(await world.submit())
    await world.change(f"UPDATE run SET finished_at = finished_at + {LATER_MS} WHERE id = '{fresh.id}'")
    await world.change(f"UPDATE run SET finished_at = finished_at - {LATER_MS} WHERE id <> '{fresh.id}'")
    await world.change("UPDATE idempotency SET until = 5 WHERE key <> 'k'")

    assert await _retain(world, 0.001) == 3

    assert {str(row[0]) for row in await world.rows("SELECT id FROM run")} == {waiting.id, kept.id, fresh.id}
    assert await world.rows("SELECT count(*) FROM timeline") == [(0,)]
    assert await world.rows("SELECT key FROM idempotency") == [("k",)]
    assert await _retain(world, 0.0) == 0
    assert len(worker.calls) == 6


async def test_a_key_that_still_holds_names_a_run_that_is_there(world: World) -> None:
    await world.worker()
    asked = Submission("echo", "1", idempotency_key="k", idempotency_ttl=7200.0)
    run = await world.ended((await world.engine.submit(asked)).run)
    await world.change("UPDATE run SET finished_at = 5")
    await _retain(world, 0.001)
    again = await world.engine.submit(asked)
    assert (again.created, again.run.id) == (False, run.id)


async def test_keys_go_when_their_time_is_over_also_where_runs_are_kept_for_ever(world: World) -> None:
    await world.worker()
    for number in range(3):
        await world.engine.submit(Submission("echo", "1", idempotency_key=f"k{number}", idempotency_ttl=7200.0))
    await world.engine.submit(Submission("echo", "1", idempotency_key="until its end", delay=3600.0))
    await world.change("UPDATE idempotency SET until = 5 WHERE key <> 'k0'")
    await world.change("UPDATE idempotency SET until = NULL WHERE key = 'until its end'")
    await _retain(world, 0)
    kept = await world.rows("SELECT key FROM idempotency ORDER BY key")
    assert [key for (key,) in kept] == ["k0", "until its end"]


async def _retain(world: World, seconds: float) -> int:
    return await Retention(1, world.parts.database, world.parts.clock, seconds=seconds).run_once()


async def test_waiting_for_a_run_that_is_not_there_is_not_found(world: World) -> None:
    assert isinstance(await refused(world.engine.wait("00000000-0000-7000-8000-000000000000", 1)), NotFound)

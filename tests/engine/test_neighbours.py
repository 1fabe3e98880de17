"""What a bad operation does to the others in its turn: nothing."""

import asyncio
from typing import Any

import pytest

from hurlbat_dispatcher import (
    Conflict,
    DatabaseTrouble,
    NotFound,
    Overloaded,
    Problem,
    RunState,
    Submission,
    Unavailable,
)
from hurlbat_dispatcher.turn import crank, submits
from hurlbat_dispatcher.turn.operations import Cancel, Note, Operation
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio


class Poison(Operation):
    """No turn knows it."""


async def test_an_operation_that_breaks_its_turn_fails_alone(world: World) -> None:
    worker = await world.worker("w")
    submits = [asyncio.ensure_future(world.submit("echo", str(n))) for n in range(11)]
    poison = asyncio.ensure_future(refused(world.do(Poison())))
    more = [asyncio.ensure_future(world.submit("echo", str(n))) for n in range(11, 20)]
    problem = await poison
    assert isinstance(problem, Unavailable)
    assert problem.code == "operation_failed"
    runs = await world.all_ended(await asyncio.gather(*submits, *more))
    assert [run.output for run in runs] == [str(n) for n in range(20)]
    assert len(worker.calls) == 20
    world.engine.ready()


@pytest.mark.parametrize("reason", ["nul \0 byte", "lone \ud800 surrogate"])
async def test_text_that_a_database_does_not_take_harms_nobody_else(world: World, reason: str) -> None:
    worker = await world.worker()
    worker.work = worker.held
    victim = await world.submit()
    submits = [asyncio.ensure_future(world.submit("echo", str(n))) for n in range(5)]
    bad = asyncio.ensure_future(asyncio.wait_for(_outcome(world.engine.cancel_run(victim.id, reason=reason)), SOON))
    more = [asyncio.ensure_future(world.submit("echo", str(n))) for n in range(5)]
    worker.gate.set()
    await world.all_ended(await asyncio.gather(*submits, *more))
    await bad
    world.engine.ready()


async def test_notes_that_no_database_takes_are_dropped_and_the_server_goes_on(world: World) -> None:
    await world.worker()
    run = await world.submit()
    await world.ended(run)
    world.parts.writer.put(Note([(run.id, 1 << 80, "log", {})]))
    assert (await world.ended(await world.submit())).state == "completed"
    world.engine.ready()


@pytest.mark.parametrize("run_id", ["x", "", "0199A3C0-0000-7000-8000-000000000000", "019-9a3c0", "\0", "0" * 36])
async def test_an_id_that_no_run_can_have_is_unknown_and_harms_nobody(world: World, run_id: str) -> None:
    await world.worker()
    ask = world.engine
    asked = [ask.get_run(run_id), ask.cancel_run(run_id), ask.replay_run(run_id), ask.wait(run_id, 1)]
    problems = await asyncio.gather(*map(refused, asked), world.submit())
    assert [type(problem) for problem in problems[:4]] == [NotFound] * 4
    world.engine.ready()


async def test_a_full_queue_refuses_with_its_limit(sqlite_url: str) -> None:
    async with World(sqlite_url, queue_limit=10) as world:
        await world.worker()
        first = asyncio.ensure_future(world.engine.submit_many([Submission("echo")] * 8))
        await asyncio.sleep(0)
        problem = await refused(world.engine.submit_many([Submission("echo")] * 3))
        assert isinstance(problem, Overloaded)
        assert (problem.code, problem.extra["limit"], problem.status) == ("overloaded", 10, 503)
        assert len(await first) == 8
        assert len(await world.engine.submit_many([Submission("echo")] * 10)) == 10


async def test_reports_and_cancels_are_taken_when_the_queue_is_full_of_submits(sqlite_url: str) -> None:
    async with World(sqlite_url, queue_limit=5) as world:
        await world.worker()
        run = await world.submit("echo", delay=3600.0)
        full = asyncio.ensure_future(world.engine.submit_many([Submission("echo")] * 5))
        await asyncio.sleep(0)
        assert (await world.engine.cancel_run(run.id)).state is RunState.CANCELLED
        await full


async def test_a_database_in_trouble_acknowledges_nothing_and_recovers_by_itself(local: World) -> None:
    worker = await local.worker()
    worker.work = worker.held
    running = await local.submit("echo", "1")
    await local.until(lambda: len(worker.open) == 1)
    database = local.parts.database
    write = database.write

    async def gone(script: Any) -> Any:
        script.close()
        raise DatabaseTrouble("the disk is full")

    database.write = gone  # type: ignore[method-assign]
    problem = await refused(local.submit("echo", "2"))
    assert isinstance(problem, Unavailable)
    assert (problem.code, problem.detail) == ("database_unavailable", "the disk is full")
    assert isinstance(await refused(local.submit("echo", "3")), Unavailable)
    assert isinstance(_ready(local), Unavailable)
    worker.gate.set()  # the answer comes while nothing can be stored
    await local.until(lambda: not worker.open)
    database.write = write  # type: ignore[method-assign]

    assert (await local.ended(running)).output == "1"
    await local.until(lambda: _ready(local) is None)
    assert (await local.ended(await local.submit("echo", "4"))).output == "4"
    assert await local.rows("SELECT input FROM run ORDER BY id") == [("1",), ("4",)]


async def test_an_answer_outlives_any_number_of_turns_that_fail(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await local.worker()
    worker.work = worker.held
    run = await local.submit("echo", "1")
    await local.until(lambda: len(worker.open) == 1)
    true = submits.answer_submits
    failures = [True] * 3

    def answer_submits(ledger: Any) -> None:
        if failures:
            failures.pop()
            raise DatabaseTrouble("no")
        true(ledger)

    monkeypatch.setattr(crank, "answer_submits", answer_submits)
    worker.gate.set()
    assert (await local.ended(run)).output == "1"
    assert failures == []


async def test_asking_twice_for_the_same_change_in_one_turn_is_no_conflict(world: World) -> None:
    await world.worker()
    run = await world.submit("echo", delay=3600.0)
    outcomes = await asyncio.gather(*(world.do(Cancel(run.id, "twice")) for _ in range(5)))
    assert outcomes == [None] * 5
    replays = await asyncio.gather(*(_outcome(world.engine.replay_run(run.id)) for _ in range(5)))
    assert sum(isinstance(outcome, Conflict) for outcome in replays) == 4


def _ready(world: World) -> Problem | None:
    try:
        world.engine.ready()
    except Problem as problem:
        return problem
    return None


async def _outcome(work: Any) -> Any:
    try:
        return await work
    except Problem as problem:
        return problem

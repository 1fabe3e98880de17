"""Many runs are cancelled or replayed by a filter: each once, while others go on, through crashes and races."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from hurlbat_dispatcher import (
    BulkOperation,
    Conflict,
    Invalid,
    NotFound,
    OperationKind,
    OperationState,
    Problem,
    RunFilter,
    RunState,
    Unavailable,
)
from hurlbat_dispatcher.domain.bulk import Part
from hurlbat_dispatcher.loops import bulk
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.turn.operations import Cancel, Operation, Replay
from tests.engine.far_side import Call
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

CANCEL, REPLAY = OperationKind.CANCEL, OperationKind.REPLAY
FUTURE = 1 << 50
NOBODY = "00000000-0000-7000-8000-000000000000"


async def fail(call: Call) -> Any:
    return call.failed()


async def waiting(world: World, *tasks: str) -> None:
    """Serve tasks of which nothing starts."""
    await world.worker("w", *tasks)
    await world.engine.pause_worker("w")


async def done(world: World, operation: BulkOperation) -> BulkOperation:
    """Wait for the end of an operation."""
    async with asyncio.timeout(SOON):
        while (found := await world.engine.bulk.get(operation.id)).state is not OperationState.DONE:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return found


async def states(world: World, runs: Sequence[str]) -> list[str]:
    return [(await world.engine.get_run(run)).state.value for run in runs]


def told(operation: BulkOperation) -> tuple[int, int, int]:
    return operation.matched, operation.done, operation.skipped


# -- what is meant -----------------------------------------------------------------------------------------------------


async def test_a_dry_run_counts_exactly_what_would_be_done_and_does_nothing(world: World) -> None:
    await waiting(world, "echo", "other")
    runs = await world.submit_all(3) + await world.submit_all(2, "other")
    await world.engine.cancel_run(runs[0])
    engine = world.engine.bulk

    counted = [
        await engine.count(CANCEL, RunFilter("echo")),
        await engine.count(CANCEL, RunFilter(states=(RunState.QUEUED, RunState.RUNNING))),
        await engine.count(CANCEL, RunFilter("other", (RunState.RUNNING,))),
        await engine.count(REPLAY, RunFilter("echo")),
        await engine.count(REPLAY, RunFilter("echo", (RunState.CANCELLED, RunState.FAILED))),
        await engine.count(REPLAY, RunFilter(ids=(runs[0],), states=(RunState.CANCELLED,))),
        await engine.count(CANCEL, RunFilter(ids=(*runs, NOBODY))),
        await engine.count(CANCEL, RunFilter("other", ids=tuple(runs))),
    ]

    assert counted == [2, 4, 0, 0, 1, 1, 4, 2]
    assert await states(world, runs) == ["cancelled", "queued", "queued", "queued", "queued"]
    assert (await engine.page()).items == []


async def test_a_window_is_from_its_first_millisecond_to_before_its_last(world: World) -> None:
    await waiting(world, "echo")
    [run] = await world.submit_all(1)
    at = (await world.engine.get_run(run)).created_at

    async def count(after: int | None, before: int | None) -> int:
        wanted = RunFilter(created_after=after, created_before=before)
        named = RunFilter(created_after=after, created_before=before, ids=(run,))
        found = [await world.engine.bulk.count(CANCEL, one) for one in (wanted, named)]
        assert found[0] == found[1]
        return found[0]

    assert [await count(at, at + 1), await count(at, None), await count(None, at + 1), await count(0, FUTURE)] == [
        1
    ] * 4
    assert [await count(at + 1, None), await count(None, at), await count(at + 1, FUTURE)] == [0] * 3


async def test_all_runs_of_a_filter_are_cancelled_and_no_others(world: World) -> None:
    await waiting(world, "echo", "other")
    runs, others = await world.submit_all(5), await world.submit_all(2, "other")

    begun = await world.engine.bulk.start(CANCEL, RunFilter("echo"), reason="withdrawn")
    ended = await done(world, begun)

    assert (begun.state, told(begun)) == (OperationState.RUNNING, (5, 0, 0))
    assert (ended.kind, told(ended), ended.reason) == (CANCEL, (5, 5, 0), "withdrawn")
    assert ended.filter == RunFilter("echo", (RunState.QUEUED, RunState.RUNNING, RunState.SUSPENDED))
    assert ended.finished_at is not None
    found = [await world.engine.get_run(run) for run in runs]
    assert {(run.state, run.reason) for run in found} == {(RunState.CANCELLED, "withdrawn")}
    assert await states(world, others) == ["queued"] * 2


async def test_a_few_among_many_others_are_found(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "LOOKED_AT", 2)
    await waiting(local, "echo", "other")
    await local.submit_all(45, "other")
    runs = await local.submit_all(2)
    await local.submit_all(45, "other")

    ended = await done(local, await local.engine.bulk.start(CANCEL, RunFilter("echo")))

    assert told(ended) == (2, 2, 0)
    assert await states(local, runs) == ["cancelled"] * 2


async def test_running_runs_are_cancelled_and_their_workers_told(local: World) -> None:
    worker = await local.worker("w", slots=2)
    worker.work = worker.held
    runs = await local.submit_all(3)
    await local.until(lambda: len(worker.open) == 2)

    ended = await done(local, await local.engine.bulk.start(CANCEL, RunFilter(states=(RunState.RUNNING,))))
    await local.until(lambda: len(worker.calls) == 3)  # the third has the slot of one that stopped

    assert told(ended) == (2, 2, 0)
    assert await states(local, runs) == ["cancelled", "cancelled", "running"]


async def test_failed_runs_are_replayed_once_each_and_those_that_fail_again_stay_failed(local: World) -> None:
    worker = await local.worker("w", "echo", "other", work=fail)
    runs = await local.submit_all(4)
    other = await local.submit("other")
    await local.all_ended([*runs, other])

    ended = await done(local, await local.engine.bulk.start(REPLAY, RunFilter("echo")))
    await local.until(lambda: len(worker.calls) == 9)
    found = await local.all_ended(runs)

    assert told(ended) == (4, 4, 0)
    assert ended.filter.states == (RunState.FAILED,)
    assert [(run.state, run.attempt, run.tries) for run in found] == [("failed", 2, 2)] * 4
    assert (await local.engine.get_run(other.id)).attempt == 1


async def test_what_comes_after_an_operation_was_accepted_is_none_of_its_business(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await waiting(local, "echo")
    before = await local.submit_all(2)
    monkeypatch.setattr(local.parts.bulk_work, "begin", lambda _: None)
    begun = await local.engine.bulk.start(CANCEL, RunFilter("echo"))
    monkeypatch.undo()
    after = await local.submit_all(2)

    local.parts.bulk_work.begin(begun.id)
    ended = await done(local, begun)

    assert told(ended) == (2, 2, 0)
    assert await states(local, before + after) == ["cancelled"] * 2 + ["queued"] * 2


async def test_where_nothing_is_meant_the_operation_is_done_at_once(local: World) -> None:
    begun = await local.engine.bulk.start(CANCEL, RunFilter("nobody-knows"))

    assert (begun.state, told(begun), begun.finished_at) == (OperationState.DONE, (0, 0, 0), begun.created_at)
    assert await local.engine.bulk.get(begun.id) == begun


# -- races -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
async def test_a_run_that_has_left_the_states_that_are_meant_is_passed_over(local: World, state: RunState) -> None:
    worker = await local.worker("w", slots=1)
    worker.work = worker.held
    [running, queued] = await local.submit_all(2)
    await local.until(lambda: len(worker.open) == 1)
    meant = Part(NOBODY, frozenset({state}), FUTURE)

    outcomes = [await refused_or_done(local, Cancel(run, "no", part=meant)) for run in (running, queued)]

    changed = state is RunState.QUEUED
    assert outcomes == (["run_changed", None] if changed else [None, "run_changed"])
    assert await states(local, [running, queued]) == (["running", "cancelled"] if changed else ["cancelled", "running"])


async def refused_or_done(world: World, operation: Operation) -> str | None:
    try:
        await world.do(operation)
    except Problem as problem:
        return problem.code
    return None


async def test_a_run_that_ended_since_is_not_replayed(local: World) -> None:
    await local.worker("w", work=fail)
    run = await local.ended(await local.submit())
    assert run.finished_at is not None

    failed = frozenset({RunState.FAILED})
    late = await refused_or_done(local, Replay(run.id, part=Part(NOBODY, failed, run.finished_at - 1)))
    in_time = await refused_or_done(local, Replay(run.id, part=Part(NOBODY, failed, run.finished_at)))

    assert (late, in_time) == ("run_changed", None)


async def test_runs_that_ended_meanwhile_are_counted_as_skipped(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await waiting(local, "echo")
    runs = await local.submit_all(3)
    monkeypatch.setattr(local.parts.bulk_work, "begin", lambda _: None)
    begun = await local.engine.bulk.start(CANCEL, RunFilter("echo"))
    monkeypatch.undo()
    await local.engine.cancel_run(runs[1], reason="mine")

    local.parts.bulk_work.begin(begun.id)

    assert told(await done(local, begun)) == (3, 2, 1)
    assert (await local.engine.get_run(runs[1])).reason == "mine"


async def test_no_more_than_a_chunk_of_it_waits_at_any_time_and_submits_go_on(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 5)
    monkeypatch.setattr(bulk, "LOOKED_AT", 12)
    await waiting(local, "echo", "other")
    await local.submit_all(40)
    most, put, out = 0, local.parts.writer.put, 0

    def counted(operation: Operation) -> None:
        nonlocal most, out
        assert operation.reply is not None
        out += 1
        most = max(most, out)

        def over(_: object) -> None:
            nonlocal out
            out -= 1

        operation.reply.add_done_callback(over)
        put(operation)

    monkeypatch.setattr(local.parts.bulk_work, "_put", counted)
    two = [
        await local.engine.bulk.start(CANCEL, RunFilter("echo")),
        await local.engine.bulk.start(CANCEL, RunFilter(states=(RunState.QUEUED,))),
    ]
    late = await local.submit("other")
    ended = [await done(local, one) for one in two]

    assert most == 5
    assert sum(one.done for one in ended) == 40
    assert (await local.engine.get_run(late.id)).state == "queued"


# -- crashes -----------------------------------------------------------------------------------------------------------


def held_at(world: World, script: str) -> asyncio.Event:
    """Let the work on operations come no further than where it would do this to the database; tell when it is there."""
    work, there = world.parts.bulk_work, asyncio.Event()
    database = work._database

    class Held:
        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

        async def write(self, asked: Any) -> Any:
            if asked.__name__ == script:
                asked.close()
                there.set()
                await asyncio.Event().wait()
            return await database.write(asked)

    work._database = Held()
    return there


@pytest.mark.parametrize("kind", [CANCEL, REPLAY])
@pytest.mark.parametrize("where", ["advance", "finish"])
async def test_what_a_killed_server_left_is_done_to_its_end_and_to_no_run_twice(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: OperationKind, where: str
) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 3)
    if kind is REPLAY:
        await world.worker("w", work=fail)
        runs = await world.submit_all(8)
        await world.all_ended(runs)
    else:
        await waiting(world, "echo")
        runs = await world.submit_all(8)
    there = held_at(world, where)
    begun = await world.engine.bulk.start(kind, RunFilter("echo"))
    async with asyncio.timeout(SOON):
        await there.wait()
    so_far = await world.engine.bulk.get(begun.id)
    if kind is REPLAY:
        await world.all_ended(runs)

    await world.crash()
    await world.restart()
    await world.change(f"UPDATE dispatcher SET lease_until = 1 WHERE id <> '{world.parts.desk.me}'")
    await world.change(f"UPDATE shard SET lease_until = 1 WHERE owner <> '{world.parts.desk.me}'")
    await world.parts.lease.run_once()
    await world.parts.bulk_work.run_once()
    ended = await done(world, begun)
    found = await world.all_ended(runs)

    assert told(so_far) == (8, 8 if where == "finish" else 3, 0)
    assert told(ended) == (8, 8, 0)
    if kind is REPLAY:
        assert [(run.state, run.attempt) for run in found] == [("failed", 2)] * 8
    else:
        assert [run.state for run in found] == ["cancelled"] * 8


async def test_a_server_that_stops_leaves_it_to_the_next(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK", 3)
    await waiting(local, "echo")
    await local.submit_all(8)
    there = held_at(local, "advance")
    begun = await local.engine.bulk.start(CANCEL, RunFilter("echo"))
    async with asyncio.timeout(SOON):
        await there.wait()

    await local.engine.stop(0)
    await local.restart()

    assert told(await done(local, begun)) == (8, 8, 0)


async def test_another_server_takes_up_what_a_dead_one_left_and_leaves_alone_what_goes_on(
    owner: World, other: World
) -> None:
    await waiting(owner, "echo")
    await owner.submit_all(3)
    there = held_at(owner, "advance")
    begun = await owner.engine.bulk.start(CANCEL, RunFilter("echo"))
    async with asyncio.timeout(SOON):
        await there.wait()

    await other.parts.bulk_work.run_once()
    [(mine,)] = await owner.rows("SELECT server FROM operation")
    await owner.crash()
    await other.change(f"UPDATE dispatcher SET lease_until = 1 WHERE id = '{mine}'")
    await other.parts.bulk_work.run_once()

    assert mine != other.parts.desk.me
    assert told(await done(other, begun)) == (3, 3, 0)


async def test_a_server_whose_operation_another_has_does_no_more_of_it(local: World) -> None:
    await waiting(local, "echo")
    await local.submit_all(2)
    work = local.parts.bulk_work
    begin = work.begin
    work.begin = lambda id_: None  # type: ignore[method-assign]
    begun = await local.engine.bulk.start(CANCEL, RunFilter("echo"))
    await local.change("UPDATE operation SET server = 'another'")
    begin(begun.id)

    await local.until(lambda: not work._at_work)

    assert told(await local.engine.bulk.get(begun.id)) == (2, 0, 0)


async def test_it_goes_on_when_the_database_is_back(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "AGAIN", 0.01)
    await waiting(local, "echo")
    await local.submit_all(3)
    work, troubles = local.parts.bulk_work, [DatabaseTrouble("away"), DatabaseTrouble("still away")]
    put = local.parts.writer.put

    def in_trouble(operation: Operation) -> None:
        if troubles:
            troubles.pop()
            raise Unavailable("database_unavailable", "the disk is full", retry_after=1)
        put(operation)

    monkeypatch.setattr(work, "_put", in_trouble)

    assert told(await done(local, await local.engine.bulk.start(CANCEL, RunFilter("echo")))) == (3, 3, 0)


# -- at the door -------------------------------------------------------------------------------------------------------


async def test_at_most_ten_are_at_work_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await waiting(world, "echo")
    await world.submit()
    monkeypatch.setattr(world.parts.bulk_work, "begin", lambda _: None)
    for _ in range(10):
        await world.engine.bulk.start(CANCEL, RunFilter("echo"))

    problem = await refused(world.engine.bulk.start(CANCEL, RunFilter("echo")))
    nothing = await world.engine.bulk.start(CANCEL, RunFilter("nobody-knows"))

    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra["limit"]) == ("too_many_operations", 10)
    assert "10 operations are at work" in problem.detail
    assert nothing.state is OperationState.DONE


async def test_operations_come_in_pages_the_newest_first_and_are_forgotten_in_time(world: World) -> None:
    bulks = world.engine.bulk
    begun = [await bulks.start(CANCEL, RunFilter(f"t{n}")) for n in range(3)]

    first = await bulks.page(limit=2)
    second = await bulks.page(limit=2, cursor=first.next_cursor)
    kept = world.parts.bulk_work._keep
    await world.change(f"UPDATE operation SET finished_at = finished_at - {kept} - 1 WHERE id = '{begun[0].id}'")
    await world.parts.bulk_work.run_once()

    assert (first.items, first.next_cursor) == ([begun[2], begun[1]], begun[1].id)
    assert (second.items, second.next_cursor) == ([begun[0]], None)
    assert (await bulks.page()).items == [begun[2], begun[1]]
    assert isinstance(await refused(bulks.get(begun[0].id)), NotFound)


BAD = [
    (CANCEL, RunFilter(), "filter", 'name the states: ["queued", "running", "suspended"'),
    (REPLAY, RunFilter(), "filter", "at least one of task, state, created_after, created_before and ids"),
    (CANCEL, RunFilter(states=(RunState.COMPLETED,)), "filter.state", "a completed run cannot be cancelled"),
    (REPLAY, RunFilter("t", (RunState.QUEUED,)), "filter.state", "a queued run cannot be replayed"),
    (CANCEL, RunFilter(ids=()), "filter.ids", "1 to 1000"),
    (CANCEL, RunFilter(ids=(NOBODY,) * 1001), "filter.ids", "1 to 1000"),
    (CANCEL, RunFilter(created_after=5, created_before=5), "filter.created_before", "later than created_after"),
]


async def test_a_filter_that_cannot_be_is_refused_by_name(local: World) -> None:
    for kind, wanted, field, sentence in BAD:
        for work in (local.engine.bulk.count(kind, wanted), local.engine.bulk.start(kind, wanted)):
            problem = await refused(work)
            assert isinstance(problem, Invalid)
            assert (problem.extra["field"], sentence in problem.detail) == (field, True), problem
    assert (await local.engine.bulk.page()).items == []

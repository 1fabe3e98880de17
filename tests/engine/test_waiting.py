"""Waiting for the end of a run: one look for many who wait, nothing left of those who go, and no word that is lost."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from hurlbat_dispatcher import NotFound, Run, Submission, Unavailable
from hurlbat_dispatcher.store import views
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.waiting import Waiting
from tests.engine.far_side import FakeWorker
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs of each read that somebody who waits has made."""
    made: list[list[str]] = []
    read = views.told_runs

    def counted(tenant: int, ids: list[str]) -> Any:
        made.append(ids)
        return read(tenant, ids)

    monkeypatch.setattr(views, "told_runs", counted)
    return made


async def held(world: World, count: int) -> tuple[FakeWorker, list[str]]:
    """Return a worker that does not let go of its runs, and as many of these."""
    worker = await world.worker(slots=count)
    worker.work = worker.held
    return worker, await world.submit_all(count)


async def queued(world: World, count: int) -> list[str]:
    """Return so many runs that wait and will not start."""
    await world.worker()
    await world.engine.pause_worker("w")
    return await world.submit_all(count)


async def test_those_whose_runs_end_together_are_read_together(world: World, reads: list[list[str]]) -> None:
    worker, ids = await held(world, 60)
    waiting = [asyncio.ensure_future(world.engine.wait(run_id, SOON)) for run_id in ids for _ in range(2)]
    await world.until(lambda: len(world.parts.waiters) == 60 and sum(map(len, reads)) >= 60)
    first = len(reads)
    worker.gate.set()
    ended = await asyncio.gather(*waiting)
    assert Counter(run.id for run in ended) == Counter([*ids, *ids])
    assert all(run.state == "completed" and run.timeline[-1].kind == "completed" for run in ended)
    assert first < 10
    assert len(reads) - first < 30  # a commit has ends of several deliveries


async def test_a_submit_that_waits_is_read_once_at_its_end(world: World, reads: list[list[str]]) -> None:
    await world.worker()
    ended = await world.engine.submit_and_wait(Submission("echo", '"x"'), SOON)
    assert (ended.state, ended.output, reads) == ("completed", '"x"', [[ended.id]])
    assert [entry.kind for entry in ended.timeline] == ["created", "started", "completed"]
    assert len(world.parts.waiters) == 0


async def test_a_repeated_submit_waits_for_the_run_that_was_there_before(world: World) -> None:
    worker, _ = await held(world, 1)
    worker.gate.clear()
    first = await world.submit("echo", idempotency_key="k")
    waiting = asyncio.ensure_future(world.engine.submit_and_wait(Submission("echo", idempotency_key="k"), SOON))
    await world.until(lambda: first.id in world.parts.waiters.awaited)
    worker.gate.set()
    assert ((await waiting).id, (await waiting).state) == (first.id, "completed")


async def test_a_submit_that_waited_long_enough_gets_the_run_as_it_is(world: World) -> None:
    await held(world, 0)
    found = await world.engine.submit_and_wait(Submission("echo", "1"), 0.02)
    assert (found.state, len(world.parts.waiters)) == ("running", 0)


async def test_who_goes_amid_the_read_leaves_it_to_the_next(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = await queued(local, 3)
    reading, go_on = asyncio.Event(), asyncio.Event()
    read = local.parts.database.read

    async def slow(script: Any) -> Any:
        reading.set()
        await go_on.wait()
        return await read(script)

    monkeypatch.setattr(local.parts.database, "read", slow)
    looks = local.parts.waiting.looks
    before = asyncio.all_tasks()
    first, second, third = (asyncio.ensure_future(looks.look(run_id)) for run_id in ids)
    await reading.wait()
    first.cancel()
    second.cancel()
    go_on.set()
    assert (await third).id == ids[2]
    assert (first.cancelled(), second.cancelled()) == (True, True)
    await local.nothing_left(before)
    assert (looks._asked, looks._reading) == ({}, False)


async def test_a_read_that_fails_fails_for_all_who_asked_and_not_for_the_next(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await queued(local, 2)
    read = local.parts.database.read

    async def broken(script: Any) -> Any:
        script.close()
        raise DatabaseTrouble("away")

    monkeypatch.setattr(local.parts.database, "read", broken)
    looks = local.parts.waiting.looks
    failed = await asyncio.gather(*map(looks.look, [*ids, *ids]), return_exceptions=True)
    assert [type(one) for one in failed] == [Unavailable] * 4
    monkeypatch.setattr(local.parts.database, "read", read)
    assert isinstance(await looks.look(ids[0]), Run)
    assert isinstance(await refused(looks.look("00000000-0000-7000-8000-000000000000")), NotFound)


async def test_nothing_is_left_of_two_thousand_who_waited(local: World) -> None:
    ids = await queued(local, 100)
    before = asyncio.all_tasks()
    waiting = [asyncio.ensure_future(local.engine.wait(run_id, SOON)) for run_id in ids for _ in range(20)]
    await local.until(lambda: len(local.parts.waiters) == 100 and not local.parts.waiting.looks._asked)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    await local.nothing_left(before)
    assert (local.parts.waiters._waiting, local.parts.waiting.looks._asked) == ({}, {})


@pytest.mark.usefixtures("nobody_looks_again")
async def test_an_end_of_which_no_word_came_is_found_with_one_look_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker, ids = await held(world, 40)
    waiting = [asyncio.ensure_future(world.engine.wait(run_id, SOON)) for run_id in ids]
    looks = world.parts.waiting.looks
    await world.until(lambda: len(world.parts.waiters) == 40 and not looks._asked and not looks._reading)
    monkeypatch.setattr(Waiting, "committed", lambda *_: None)
    monkeypatch.setattr(type(world.parts.waiters), "finished", lambda *_: None)
    worker.gate.set()
    await world.until(lambda: not worker.open)
    for run_id in ids:
        await world.until_run(run_id, lambda run: run.is_final)
    assert not any(task.done() for task in waiting)
    monkeypatch.undo()
    asked: list[str] = []
    read = world.parts.database.read

    async def counted(script: Any) -> Any:
        asked.append(script.__name__)
        return await read(script)

    monkeypatch.setattr(world.parts.database, "read", counted)
    await world.parts.waiting.look_again()
    assert asked.count("_over") == 1
    assert all(run.is_final for run in await asyncio.gather(*waiting))


async def test_a_server_that_stops_lets_nobody_wait(local: World) -> None:
    _, ids = await held(local, 1)
    waiting = asyncio.ensure_future(local.engine.wait(ids[0], SOON))
    submitted = asyncio.ensure_future(local.engine.submit_and_wait(Submission("echo"), SOON))
    await local.until(lambda: len(local.parts.waiters) == 2)
    await local.engine.stop(0)
    assert {(await waiting).state, (await submitted).state} <= {"running", "queued"}


async def test_the_end_of_a_run_is_heard_of_at_another_server(owner: World, other: World) -> None:
    worker, ids = await held(owner, 20)
    waiting = [asyncio.ensure_future(other.engine.wait(run_id, SOON)) for run_id in ids]
    await other.until(lambda: len(other.parts.waiters) == 20)
    worker.gate.set()
    assert {run.state for run in await asyncio.gather(*waiting)} == {"completed"}

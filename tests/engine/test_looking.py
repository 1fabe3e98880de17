"""How runs are looked at: together where many are asked for, and for as long as one is willing to wait."""

import asyncio
from typing import Any

import pytest

from hurlbat_dispatcher import Accepted, Submission
from hurlbat_dispatcher.store import views
from tests.engine.world import World

pytestmark = pytest.mark.anyio


async def test_runs_that_had_their_keys_before_are_read_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.worker()
    await world.engine.pause_worker("w")
    submissions = [Submission("echo", str(n), idempotency_key=f"k{n}") for n in range(20)]
    first = await world.engine.submit_many(submissions[::2])
    reads: list[str] = []
    read = world.parts.database.read

    async def counted(script: Any) -> Any:
        reads.append(script.__name__)
        return await read(script)

    monkeypatch.setattr(world.parts.database, "read", counted)
    second = await world.engine.submit_many(submissions)
    assert reads.count(views.many_runs.__name__) == 1
    assert not {views.told_runs.__name__, views.one_run.__name__} & set(reads)
    monkeypatch.undo()
    accepted = [one for one in (*first, *second) if isinstance(one, Accepted)]
    assert [one.created for one in accepted] == [True] * 10 + [False, True] * 10
    assert [one.run.id for one in accepted[10::2]] == [one.run.id for one in accepted[:10]]
    assert [one.run.input for one in accepted[10:]] == [str(n) for n in range(20)]


async def test_a_run_that_was_removed_since_fails_alone_in_its_bulk(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.worker()
    await local.engine.pause_worker("w")
    await local.submit("echo", idempotency_key="k")

    def none_left(tenant: int, ids: list[str]) -> Any:
        yield views.MANY.fetch(tenant, [])
        return {}

    monkeypatch.setattr(views, "many_runs", none_left)
    outcomes = await local.engine.submit_many([Submission("echo", idempotency_key="k"), Submission("echo")])
    assert [getattr(one, "code", "accepted") for one in outcomes] == ["run_unknown", "accepted"]


@pytest.mark.parametrize(("lines", "few"), [(300, True), (1, False)])
async def test_of_runs_with_long_timelines_fewer_are_read_at_once(
    local: World, monkeypatch: pytest.MonkeyPatch, lines: int, few: bool
) -> None:
    await local.worker()
    await local.engine.pause_worker("w")
    ids = await local.submit_all(120)
    await local.change(
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {lines}) "
        "INSERT INTO timeline (tenant, run, at, kind, attempt, detail) "
        """SELECT 1, id, 1, 'log', 1, '{"message": "said"}' FROM run, n"""
    )
    asked: list[int] = []
    told = views.told_runs

    def counted(tenant: int, some: list[str]) -> Any:
        asked.append(len(some))
        return told(tenant, some)

    monkeypatch.setattr(views, "told_runs", counted)
    found = await asyncio.gather(*(local.parts.waiting.looks.look(run_id) for run_id in ids))
    assert [run.id for run in found] == ids
    assert sum(asked) == len(ids)
    assert (max(asked) <= 10) == few


async def test_one_who_is_woken_early_waits_on_for_the_rest_of_his_time(local: World) -> None:
    worker = await local.worker()
    worker.work = worker.held
    run = await local.submit("echo", "1")
    waiting = asyncio.ensure_future(local.engine.wait(run.id, 20.0))
    for _ in range(5):  # each would have cost him five seconds
        await local.until(lambda: len(local.parts.waiters) == 1)
        local.parts.waiters.finished([run.id])
        await asyncio.sleep(0)
    await local.until(lambda: len(local.parts.waiters) == 1)
    assert not waiting.done()
    worker.gate.set()
    assert (await waiting).output == "1"


async def test_one_who_waited_long_enough_gets_the_run_as_it_is(local: World) -> None:
    worker = await local.worker()
    worker.work = worker.held
    run = await local.submit()
    assert (await local.engine.wait(run.id, 0.01)).state == "running"
    assert len(local.parts.waiters) == 0

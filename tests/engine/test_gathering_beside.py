"""Debounce and batches beside everything else: keys, limits, other ways to start runs, crashes, and other servers."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from hurlbat_dispatcher import Accepted, Conflict, EventSpec, Invalid, RunState, ScheduleSpec, Submission
from hurlbat_dispatcher.checkup import strict_checkup
from hurlbat_dispatcher.store.postgres import CHANNEL
from tests.engine.far_side import Call, FakeWorker
from tests.engine.gathered import BATCH, LEADING, TRAILING, count_runs, numbers, passes, policy, retain, said, submit
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

LONG_MS = 3_600_000
BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
WAYS = pytest.mark.parametrize("way", [TRAILING, LEADING, BATCH], ids=["trailing", "leading", "batch"])

# -- idempotency keys  ---------------------------------------------------------------------------------------------


@WAYS
async def test_a_key_that_was_used_is_absorbed_once_and_free_in_the_end(local: World, way: dict[str, Any]) -> None:
    await local.worker("w", policy(**way))
    for at, ttl in (("a", None), ("b", 5000.0)):
        await local.engine.pause_worker("w")
        first = await submit(local, 1, at)
        more: dict[str, Any] = {"idempotency_ttl": ttl}
        keyed = [await submit(local, 2, at, idempotency_key=f"k{at}", **more) for _ in range(3)]
        other = await submit(local, 2, at, idempotency_key=f"l{at}", **more)
        assert {(one.created, one.run.id) for one in (*keyed, other)} == {(False, first.run.id)}
        if way is BATCH:
            assert (await local.engine.get_run(other.run.id)).input == f"[{said(1, at)},{said(2, at)},{said(2, at)}]"
        assert other.run.idempotency_key == f"k{at}"
        problem = await refused(submit(local, 3, at, idempotency_key=f"l{at}", **more))
        assert isinstance(problem, Conflict)
        assert problem.extra["run_id"] == first.run.id
        await local.engine.resume_worker("w")
        await passes(local, 1001)
        await local.ended(first.run)
        assert await local.rows("SELECT count(*) FROM idempotency") == [(0 if ttl is None else 2,)]
    again = await submit(local, 2, at, idempotency_key=f"k{at}", **more)
    assert not again.created


@pytest.mark.parametrize("way", [TRAILING, LEADING], ids=["trailing", "leading"])
async def test_a_key_that_was_absorbed_with_the_very_first_is_free_in_the_end(
    local: World, way: dict[str, Any]
) -> None:
    worker = await local.worker("w", policy(**way))
    worker.work = worker.held
    outcomes = await local.engine.submit_many([Submission("echo", said(1), idempotency_key=key) for key in (None, "k")])
    [first, keyed] = [one for one in outcomes if isinstance(one, Accepted)]
    assert (keyed.created, keyed.run.id) == (False, first.run.id)
    assert await local.rows("SELECT key FROM idempotency") == [("k",)]
    await passes(local, 1001)
    worker.gate.set()
    await local.ended(first.run)
    assert await local.rows("SELECT key FROM idempotency") == []


async def test_a_key_without_a_time_names_no_run_that_has_ended_before(local: World) -> None:
    await local.worker("w", policy(**LEADING))
    first = await submit(local, 1)
    await local.ended(first.run)
    late = await submit(local, 2, idempotency_key="k")
    assert (late.created, late.run.id) == (False, first.run.id)
    assert await local.rows("SELECT count(*) FROM idempotency") == [(0,)]


async def test_a_key_whose_run_is_gone_is_free(world: World) -> None:
    await world.worker("w", policy(**LEADING))
    first = await submit(world, 1)
    await world.ended(first.run)
    for key in "kl":
        await submit(world, 2, idempotency_key=key, idempotency_ttl=9999.0)
    await world.change("UPDATE run SET finished_at = 5")
    await retain(world)
    assert await count_runs(world) == 1  # its own key promises it
    await world.change("UPDATE idempotency SET until = 5 WHERE key = 'k'")
    await retain(world)
    again = await submit(world, 2, idempotency_key="l", idempotency_ttl=9999.0)
    assert (again.created, await count_runs(world)) == (True, 1)
    await _is_as_it_should_be(world)


# -- flow control ------------------------------------------------------------------------------------------------------


async def test_a_debounced_run_joins_its_group_when_it_is_due(local: World) -> None:
    rule = {"key": "input.k", "max_runs": 1, "strategy": "CANCEL_IN_PROGRESS"}
    worker = await local.worker("w", policy(**TRAILING, concurrency=[rule]))
    worker.work = worker.held
    first = await submit(local, 1)
    await passes(local, 1001)
    await local.until_run(first.run, lambda found: found.state == "running")
    second = await submit(local, 2)
    assert (await local.engine.get_run(first.run.id)).state == "running"
    await submit(local, 3)
    await passes(local, 1001)
    assert (await local.ended(first.run)).reason == "concurrency"
    worker.gate.set()
    assert (await local.ended(second.run)).output == said(3)


async def test_a_leading_run_that_its_group_refused_stands_for_nobody(local: World) -> None:
    rule = {"key": '"all"', "max_runs": 1, "strategy": "CANCEL_NEWEST"}
    worker = await local.worker("w", policy(**LEADING, concurrency=[rule]))
    worker.work = worker.held
    running = await submit(local, 1, "a")
    refused_one = await submit(local, 2, "b")
    assert (await local.ended(refused_one.run)).reason == "concurrency"
    worker.gate.set()
    await local.ended(running.run)
    again = await submit(local, 3, "b")
    assert again.created
    assert (await local.ended(again.run)).state is RunState.COMPLETED


async def test_a_batch_takes_the_units_of_one_run(local: World) -> None:
    await local.engine.limits.put("cdn", 1, LONG_MS)
    worker = await local.worker("w", policy(**BATCH, rate_limits=[{"key": "cdn"}]))
    runs = [await submit(local, n) for n in range(3)]
    await local.ended(runs[0].run)
    later = await submit(local, 9)
    await passes(local, 1001)
    found = await local.engine.explain(later.run.id)
    assert "rate limit cdn is used up" in found.summary
    assert len(worker.calls) == 1


@WAYS
async def test_a_paused_task_holds_what_has_gathered(local: World, way: dict[str, Any]) -> None:
    worker = await local.worker("w", policy(**way))
    await local.engine.limits.pause_task("echo")
    first = await submit(local, 1)
    await submit(local, 2)
    await passes(local, 1001)
    assert (worker.calls, (await submit(local, 3)).created) == ([], True)
    await local.engine.limits.resume_task("echo")
    await local.ended(first.run)
    assert len(worker.calls) >= 1


async def test_what_runs_out_counts_from_the_first_and_a_run_that_is_over_takes_no_more(local: World) -> None:
    await local.worker("w", policy(debounce={"period": 1000}, schedule_timeout=60))
    first = await submit(local, 1, ttl=1200.0)
    assert (first.run.expires_at or 0) - first.run.created_at == 1_060_000
    await passes(local, 700)
    second = await submit(local, 2)
    created_at = second.run.created_at
    assert (second.run.due_at - created_at > 1_600_000, second.run.expires_at) == (True, created_at + 1_200_000)
    await local.change("UPDATE run SET expires_at = 1, ttl_at = 1")
    third = await submit(local, 3)
    assert third.created
    await local.tick()
    assert (await local.ended(first.run)).state is RunState.CANCELLED


# -- other ways to start runs ------------------------------------------------------------------------------------------


async def test_events_are_gathered_and_each_tells_the_run_that_has_it(world: World) -> None:
    worker = await world.worker("w", policy(**BATCH, on_events=["paid"]))
    specs = [EventSpec("paid", said(n), id=f"e{n}") for n in range(2)]
    published = [await world.engine.events.publish(spec) for spec in [*specs, specs[0]]]
    outcomes = await world.engine.events.publish_many([EventSpec("paid", said(n)) for n in (2, 3)])
    assert len(outcomes) == 2
    starts = [start for one in published for start in (await world.engine.events.get(one.event.id)).starts]
    assert {(start.outcome, start.run) for start in starts} == {("started", starts[0].run)}
    await world.ended(starts[0].run or "")
    assert list(map(numbers, worker.calls)) == [[0, 1, 2]]
    assert await count_runs(world) == 2


async def test_schedules_are_gathered_and_told_the_run_that_took_them_in(local: World) -> None:
    await local.worker("w", policy(debounce={"period": 1000}))
    later = local.parts.desk.last_now + LONG_MS
    spec = ScheduleSpec("echo", "s", run_at=later, input="7")
    await local.engine.schedules.create(spec)
    first = await local.engine.submit(Submission("echo", "1"))
    by_hand = await local.engine.schedules.trigger("s")
    assert (by_hand.id, by_hand.input) == (first.run.id, "7")
    assert '"schedule":"s"' in (by_hand.trigger or "")
    await local.change("UPDATE schedule SET next_at = created_at, input = '8'")
    await local.tick()
    fires = (await local.engine.schedules.fires("s")).items
    assert {fire.run for fire in fires} == {first.run.id}
    assert (await local.engine.get_run(first.run.id)).input == "8"


async def test_calls_for_failures_are_gathered(local: World) -> None:
    async def work(call: Call) -> Any:
        return call.failed() if call.task == "echo" else json.dumps(len(call.input))

    await local.worker("w", {"name": "echo", "on_failure": "clean"}, {"name": "clean", "batch_size": 3}, work=work)
    failed = [await local.submit("echo", str(n)) for n in range(3)]
    await local.all_ended(failed)
    await local.turns()
    [run] = (await local.engine.list_runs(task="clean")).items
    ended = await local.ended(run)
    assert ended.output == "3"
    assert {item["run"]["id"] for item in json.loads(ended.input)} == {one.id for one in failed}


# -- a policy that changes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [TRAILING, BATCH], ids=["trailing", "batch"])
async def test_what_has_gathered_starts_by_its_time_whatever_the_policy_says_then(
    local: World, way: dict[str, Any]
) -> None:
    worker = await local.worker("w", policy())
    policies: dict[str, dict[str, Any]] = {"none": {}, "lead": LEADING, "trail": TRAILING, "less": {"batch_size": 2}}
    for key, then in policies.items():
        await _says(local, worker, way)
        first = await submit(local, 1, key)
        await submit(local, 2, key)
        await _says(local, worker, then)
        await submit(local, 3, key)
        await passes(local, 1001)
        await local.ended(first.run)
        gathered = [1, 2] if way is BATCH else [3 if key == "trail" else 2]
        runs = [call.input if isinstance(call.input, list) else [call.input] for call in worker.calls]
        mine = [[item["n"] for item in items] for items in runs if items[0]["k"] == key]
        assert gathered in mine
        assert 3 in [n for numbers in mine for n in numbers]


async def _says(world: World, worker: FakeWorker, more: dict[str, Any]) -> None:
    """Let the task have another policy."""
    worker.tasks[:] = [policy(**more)]
    await world.engine.sync_worker("w")


# -- crashes and other servers -----------------------------------------------------------------------------------------


@WAYS
async def test_what_has_gathered_is_there_after_a_crash_and_takes_more(local: World, way: dict[str, Any]) -> None:
    worker = await local.worker("w", policy(**way))
    first = await submit(local, 1)
    if way is LEADING:
        await local.ended(first.run)
    await submit(local, 2)
    await local.crash()
    await local.restart()
    assert not (await submit(local, 3)).created
    await passes(local, 1001)
    await local.ended(first.run)
    [found] = [call.input if isinstance(call.input, list) else [call.input] for call in worker.calls]
    expected = [3] if way is TRAILING else [1] if way is LEADING else [1, 2, 3]
    assert [item["n"] for item in found] == expected


async def test_two_servers_gather_into_one_run(owner: World, other: World) -> None:
    worker = await owner.worker("w", policy(batch_size=10, batch_timeout=1000))
    await owner.until(lambda: "echo" in other.parts.registry.tasks)
    worlds = [owner, other]
    accepted = await asyncio.gather(*(submit(worlds[n % 2], n) for n in range(40)))
    assert len({one.run.id for one in accepted}) == 4
    await owner.all_ended(list({one.run.id for one in accepted}))
    assert sorted(n for call in worker.calls for n in numbers(call)) == list(range(40))
    assert [len(call.input) for call in worker.calls] == [10] * 4


async def test_who_fills_a_batch_tells_the_server_that_starts_the_runs(owner: World, other: World) -> None:
    worker = await owner.worker("w", policy(batch_size=2, batch_timeout=1000))
    await owner.until(lambda: "echo" in other.parts.registry.tasks)
    first = await submit(owner, 1)
    heard: list[str] = []
    side = await asyncpg.connect(owner.settings.database_url.replace("+asyncpg", ""))
    try:
        await side.add_listener(CHANNEL, lambda *said: heard.append(str(said[-1])))
        assert not (await submit(other, 2)).created
        await owner.until(lambda: any('"queued"' in said for said in heard))
    finally:
        await side.close()
    await owner.ended(first.run)
    assert list(map(numbers, worker.calls)) == [[1, 2]]


async def test_of_two_servers_that_begin_at_once_one_makes_the_run_and_the_other_joins(
    owner: World, other: World
) -> None:
    await owner.worker("w", policy(batch_size=10, batch_timeout=1000))
    await owner.until(lambda: "echo" in other.parts.registry.tasks)
    begun = await _held(owner, "LOCK TABLE gathering IN SHARE MODE", [submit(owner, 1), submit(other, 2)])
    assert len({one.run.id for one in begun}) == 1
    more = await _held(owner, "SELECT * FROM gathering FOR UPDATE", [submit(owner, 3), submit(other, 4)])
    assert [one.created for one in (*begun, *more)].count(True) == 1
    [(text,)] = await owner.rows("SELECT input FROM run")
    assert sorted(item["n"] for item in json.loads(text)) == [1, 2, 3, 4]
    assert await owner.rows("SELECT submits, bytes FROM gathering") == [(4, len(text))]


async def _held(world: World, lock: str, asked: Any) -> list[Accepted]:
    """Let submits come to a lock of the database, both, before it is given up."""
    side = await asyncpg.connect(world.settings.database_url.replace("+asyncpg", ""))
    try:
        async with side.transaction():
            await side.execute(lock)
            tasks = [asyncio.ensure_future(one) for one in asked]
            async with asyncio.timeout(SOON):
                while await side.fetchval(BLOCKED) < len(tasks):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        return list(await asyncio.gather(*tasks))
    finally:
        await side.close()


# -- throttles ---------------------------------------------------------------------------------------------------------


async def test_a_throttle_lets_so_many_start_in_its_period_for_each_value_of_its_key(local: World) -> None:
    throttle = {"limit": 2, "period": 3600, "key": "input.k"}
    worker = await local.worker("w", policy(throttle=throttle), {"name": "other", "throttle": throttle | {"limit": 1}})
    runs = [await submit(local, n, key) for key in "ab" for n in range(3)]
    await local.submit("other", said(0))
    await local.until(lambda: len(worker.calls) == 5)
    await local.turns()
    held = [one.run for one in runs if (await local.engine.get_run(one.run.id)).state is RunState.QUEUED]
    assert [json.loads(run.input) for run in held] == [{"k": "a", "n": 2}, {"k": "b", "n": 2}]

    found = await local.engine.explain(held[0].id)
    assert found.summary.startswith("The throttle of task echo for 'a' is used up: 2 of 2 runs in 3600 s.")
    shown = {one.key: one for one in (await local.engine.limits.dynamic_page()).items}
    assert list(shown) == ["echo:throttle:a", "echo:throttle:b", "other:throttle:a"]
    assert (shown["echo:throttle:a"].limit, shown["echo:throttle:a"].used, shown["echo:throttle:a"].waiting) == (
        2,
        2,
        1,
    )


async def test_a_throttle_without_a_key_is_the_tasks_own_and_its_key_may_be_long(world: World) -> None:
    name = "t" * 128
    await world.worker(
        "w",
        {"name": name, "throttle": {"limit": 1, "period": 3600, "key": "input"}},
        policy(throttle={"limit": 1, "period": 3600}),
    )
    key = json.dumps("k" * 256)
    await world.ended(await world.submit(name, key))
    await world.ended(await world.submit("echo"))
    held = [await world.submit(name, key), await world.submit("echo")]
    for run, words in zip(
        held, [f"for '{'k' * 256}'", "The throttle of task echo is used up: 1 of 1 run"], strict=True
    ):
        assert words in (await world.engine.explain(run.id)).summary
    assert await world.rows("SELECT count(*) FROM rate_use") == [(2,)]


async def test_a_throttle_holds_after_a_restart(local: World) -> None:
    await local.worker("w", policy(throttle={"limit": 1, "period": 3600}))
    await local.ended(await local.submit())
    await local.crash()
    await local.restart()
    run = await local.submit()
    await local.turns()
    assert (await local.engine.get_run(run.id)).state is RunState.QUEUED


async def test_gatherings_that_are_over_are_forgotten(world: World) -> None:
    await world.worker("w", policy(**TRAILING))
    await submit(world, 1, "a")
    await passes(world, 1100)
    await submit(world, 1, "b")
    await retain(world)
    assert await world.rows("SELECT key FROM gathering") == [("trailing:b",)]


async def test_a_key_that_fails_stores_nothing(local: World) -> None:
    await local.worker("w", policy(**TRAILING))
    problem = await refused(local.submit("echo", "{}"))
    assert isinstance(problem, Invalid)
    assert (problem.code, problem.extra["policy"]) == ("expression_failed", "debounce.key")
    assert await count_runs(local) == 0


@WAYS
async def test_a_run_with_several_keys_is_as_it_should_be(local: World, way: dict[str, Any]) -> None:
    await local.worker("w", policy(**way))
    first = await submit(local, 1)
    for key, ttl in (("k", None), ("l", 5000.0), ("m", None)):
        await submit(local, 2, idempotency_key=key, idempotency_ttl=ttl)
    await _is_as_it_should_be(local)
    await passes(local, 1001)
    await local.ended(first.run)
    await _is_as_it_should_be(local)


async def _is_as_it_should_be(world: World) -> None:
    found = await world.parts.database.read(strict_checkup())
    assert [finding.sentence for finding in found] == []

"""Events: who gets a run of one, which filters let it pass, and that it is stored once, with its runs or not at all."""

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import asyncpg
import pytest

from hurlbat_dispatcher import (
    AcceptedEvent,
    Conflict,
    Event,
    EventSpec,
    Invalid,
    NotFound,
    Overloaded,
    Problem,
    RunState,
    Start,
    Unavailable,
)
from hurlbat_dispatcher.loops.retention import Retention
from hurlbat_dispatcher.turn.operations import Operation, Publish
from tests.engine.published import count, filters, listens, outcomes, publish, runs_of, started
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio


# -- who listens -------------------------------------------------------------------------------------------------------


async def test_an_event_starts_one_run_of_each_task_that_listens(world: World) -> None:
    worker = await world.worker(
        "w", listens("mail", "user.created", "user.*"), listens("count", "*"), listens("bill", "user.paid"), "echo"
    )

    event = await publish(world, "user.created", {"id": 7}, scope="eu", metadata='{"by": "ada"}')
    runs = await runs_of(world, event)

    assert [(start.task, start.filter, start.outcome, start.reason) for start in event.starts] == [
        ("count", None, "started", None),
        ("mail", None, "started", None),
    ]
    assert [(run.task, run.input, run.metadata) for run in runs] == [
        ("count", '{"id": 7}', '{"by": "ada"}'),
        ("mail", '{"id": 7}', '{"by": "ada"}'),
    ]
    trigger = {
        "type": "event",
        "event": event.id,
        "key": "user.created",
        "scope": "eu",
        "filter": None,
        "payload": None,
    }
    assert [json.loads(run.trigger or "") for run in runs] == [trigger, trigger]
    assert [call.body["trigger"] for call in worker.calls] == [trigger, trigger]
    assert await world.engine.events.get(event.id) == event


async def test_of_six_events_one_starts_a_run(local: World) -> None:
    chosen = filters({"expression": "input.score > 5", "scope": "s"})
    await local.worker("w", listens("judge", "scored", filters=chosen))

    events = [
        await publish(local, "scored", {"score": 9}),
        await publish(local, "scored", {"score": 1}),
        await publish(local, "scored", {"score": 9}, scope="s"),
        await publish(local, "scored", {"score": 1}, scope="s"),
        await publish(local, "unknown", {"score": 9}),
        await publish(local, "unknown", {"score": 9}, scope="s"),
    ]

    assert [started(event) for event in events] == [[], [], ["judge"], [], [], []]
    assert await count(local) == 1
    assert outcomes(events[0]) == [
        ("input.score > 5", "filtered", "no filter of the task is for an event without a scope")
    ]
    assert outcomes(events[3]) == [("input.score > 5", "filtered", None)]
    assert outcomes(events[4]) == []


async def test_a_pattern_starts_a_run_for_each_key_that_it_stands_for(local: World) -> None:
    await local.worker("w", listens("renew", "subscription:*"))

    events = [await publish(local, key) for key in ("subscription:1", "subscription:2", "foobar", "my-subscription:3")]

    assert [started(event) for event in events] == [["renew"], ["renew"], [], []]
    assert await count(local) == 2


async def test_a_hundred_events_of_two_scopes_start_one_run_each(world: World) -> None:
    chosen = filters({"scope": "a", "payload": {"for": "a"}}, {"scope": "b", "payload": {"for": "b"}})
    worker = await world.worker("w", listens("tick", "tick", filters=chosen), slots=100)

    specs = [EventSpec("tick", str(n), scope="ab"[n % 2]) for n in range(100)]
    found = [cast(AcceptedEvent, one).event for one in await world.engine.events.publish_many(specs)]
    for event in found:
        await runs_of(world, event)

    assert sorted((call.input, call.body["trigger"]["payload"]["for"]) for call in worker.calls) == [
        (n, "ab"[n % 2]) for n in range(100)
    ]


async def test_who_listens_is_known_anew_after_every_registration(local: World) -> None:
    worker = await local.worker("w", listens("echo", "one"))
    before = [started(await publish(local, key)) for key in ("one", "two")]

    worker.tasks[:] = [listens("echo", "t*")]
    await local.engine.sync_worker("w")

    assert before == [["echo"], []]
    assert [started(await publish(local, key)) for key in ("one", "two")] == [[], ["echo"]]


async def test_a_task_that_no_worker_serves_any_more_listens_to_nothing(local: World) -> None:
    worker = await local.worker("w", listens("old", "key"))
    await local.worker("other", listens("stays", "key"))
    worker.tasks[:] = [listens("new", "key")]
    await local.engine.sync_worker("w")
    await local.engine.pause_worker("other")

    assert started(await publish(local, "key")) == ["new", "stays"]


# -- what a run of an event is ----------------------------------------------------------------------------------------


async def test_a_run_has_the_priority_of_its_event_or_else_of_its_task(local: World) -> None:
    await local.worker("w", listens("echo", "key", priority=7))
    events = [await publish(local, "key", priority=priority) for priority in (None, 0, -3)]
    assert [run.priority for event in events for run in await runs_of(local, event)] == [7, 0, -3]


async def test_a_paused_task_holds_the_runs_of_events(local: World) -> None:
    worker = await local.worker("w", listens("echo", "key"))
    await local.engine.limits.pause_task("echo")

    events = [await publish(local, "key", n) for n in range(3)]
    held = [(await local.engine.get_run(start.run or "")).state for event in events for start in event.starts]
    await local.engine.limits.resume_task("echo")
    for event in events:
        await runs_of(local, event)

    assert held == [RunState.QUEUED] * 3
    assert [call.input for call in worker.calls] == [0, 1, 2]


async def test_a_run_that_is_refused_is_recorded_and_the_others_start(local: World) -> None:
    rule = {"concurrency": [{"key": "input.user"}]}
    await local.worker("w", listens("each", "key", **rule), listens("free", "key"))

    event = await publish(local, "key", {"nobody": 1})

    assert event.starts[0] == Start(
        "each", None, event.starts[0].outcome, None, "concurrency[0].key: input has no member user; send one"
    )
    assert [start.outcome for start in event.starts] == ["failed", "started"]
    assert await count(local) == 1


async def test_events_that_are_gathered_into_one_run_all_name_it(local: World) -> None:
    worker = await local.worker("w", listens("echo", "key", batch_size=3))

    events = [await publish(local, "key", n) for n in range(3)]
    [run] = {start.run for event in events for start in event.starts}

    assert (await local.ended(run or "")).input == "[0,1,2]"
    assert [start.outcome for event in events for start in event.starts] == ["started"] * 3
    assert [call.input for call in worker.calls] == [[0, 1, 2]]


# -- once --------------------------------------------------------------------------------------------------------------


async def test_a_known_id_with_the_same_content_is_the_event_that_was(world: World) -> None:
    await world.worker("w", listens("echo", "key"))
    first = await world.engine.events.publish(EventSpec("key", "1", id="order/7 é", scope="s", metadata='{"a":1}'))
    again = await world.engine.events.publish(EventSpec("key", "1", id="order/7 é", scope="s", metadata='{"a":1}'))

    assert (first.created, again.created) == (True, False)
    assert again.event == first.event
    assert (await count(world), await count(world, "event")) == (1, 1)


async def test_a_known_id_with_another_content_is_refused(local: World) -> None:
    await local.worker("w", listens("echo", "*"))
    spec = EventSpec("key", "1", id="e1")
    await local.engine.events.publish(spec)

    for other in ({"key": "yek"}, {"payload": "2"}, {"scope": "s"}, {"metadata": '{"a":1}'}, {"priority": 2}):
        problem = await refused(local.engine.events.publish(replace(spec, **cast(dict[str, Any], other))))
        assert isinstance(problem, Conflict)
        assert (problem.code, problem.extra) == ("event_conflict", {"event": "e1"})
    assert (await count(local), await count(local, "event")) == (1, 1)


async def test_of_many_the_bad_ones_stay_out_and_the_others_go_in(world: World) -> None:
    await world.worker("w", listens("echo", "key"))
    specs = [
        EventSpec("key", "1", id="a"),
        EventSpec("", "2"),
        EventSpec("key", "1", id="a"),
        EventSpec("key", "3", id="a"),
        EventSpec("key", "4", scope="x" * 257),
        EventSpec("key", "5"),
    ]

    found = await world.engine.events.publish_many(specs)

    assert [one.code if isinstance(one, Problem) else one.created for one in found] == [
        True,
        "member_invalid",
        False,
        "event_conflict",
        "member_invalid",
        True,
    ]
    problems = [one.extra["field"] for one in found if isinstance(one, Invalid)]
    assert problems == ["key", "scope"]
    assert (await count(world), await count(world, "event")) == (2, 2)
    assert await world.engine.events.publish_many([]) == []
    assert isinstance(await refused(world.engine.events.publish_many([EventSpec("key")] * 1001)), Invalid)


async def test_many_events_that_many_listen_to_go_in_by_portions(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.events.MAX_ROWS", 6)
    await local.worker("w", listens("a", "key"), listens("b", "key"))
    put = local.parts.writer.put
    taken: list[int] = []

    def counted(operation: Operation) -> None:
        if isinstance(operation, Publish):
            if len(taken) == 3:
                raise Overloaded("overloaded", "too many wait", retry_after=1)
            taken.append(len(operation.events))
        put(operation)

    monkeypatch.setattr(local.engine.events, "_put", counted)
    found = await local.engine.events.publish_many([EventSpec("key" if n != 1 else "", str(n)) for n in range(8)])
    refusal = await refused(local.engine.events.publish_many([EventSpec("key")] * 3))

    assert taken == [2, 2, 2]
    assert [one.event.payload if isinstance(one, AcceptedEvent) else one.code for one in found] == [
        *("0", "member_invalid", "2", "3", "4", "5", "6"),
        "overloaded",
    ]
    assert isinstance(refusal, Overloaded)
    assert (await count(local), await count(local, "event")) == (12, 6)


async def test_an_event_is_stored_with_its_runs_or_not_at_all(world: World) -> None:
    await world.worker("w", listens("echo", "key"))
    before = await count(world), await count(world, "event")

    await world.change("ALTER TABLE event_start RENAME TO elsewhere")
    try:
        problem = await refused(publish(world, "key", id="e1"))
    finally:
        await world.change("ALTER TABLE elsewhere RENAME TO event_start")

    assert isinstance(problem, Unavailable)
    assert (await count(world), await count(world, "event")) == before == (0, 0)
    await world.until(lambda: world.parts.writer.trouble is None)
    assert started(await publish(world, "key", id="e1")) == ["echo"]
    assert (await count(world), await count(world, "event")) == (1, 1)


async def test_what_was_published_survives_a_kill(world: World) -> None:
    worker = await world.worker("w", listens("echo", "key"))
    worker.work = worker.held
    event = await publish(world, "key", 5)
    await world.crash()
    worker.work = None
    await world.restart()
    await world.tick(sweep=True)

    assert await world.engine.events.get(event.id) == event
    again = await world.engine.events.publish(EventSpec("key", "5", id=event.id))
    assert (again.created, await count(world)) == (False, 1)


async def test_two_servers_that_take_in_an_event_at_once_store_it_once(owner: World, other: World) -> None:
    await owner.worker("w", listens("echo", "key"), slots=10)
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    side = await asyncpg.connect(owner.settings.database_url.replace("+asyncpg", ""))
    spec = EventSpec("key", "1", id="e1")
    try:
        held = side.transaction()
        await held.start()
        await side.execute(
            "INSERT INTO event (tenant, id, key, payload, metadata, digest, created_at) "
            "VALUES (1, 'e1', 'key', '1', '{}', 'another', 1)"
        )
        both = [asyncio.ensure_future(world.engine.events.publish(spec)) for world in (owner, other)]
        async with asyncio.timeout(SOON):  # both have seen that it is new, and wait for the row
            while await side.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await held.rollback()
        found = await asyncio.gather(*both)
    finally:
        await side.close()

    assert sorted(one.created for one in found) == [False, True]
    assert found[0].event == found[1].event
    assert (await count(owner), await count(owner, "event"), await count(owner, "event_start")) == (1, 1, 1)
    assert len(await runs_of(owner, found[0].event)) == 1


# -- looking back ------------------------------------------------------------------------------------------------------


async def test_an_event_is_replayed_as_a_new_one_to_those_who_listen_now(world: World) -> None:
    worker = await world.worker("w", listens("one", "key"))
    old = await publish(world, "key", {"n": 1}, id="e1", scope="s", metadata='{"a":1}', priority=3)
    worker.tasks[:] = [listens("one", "key"), listens("two", "key", filters=filters("input.n == 2"))]
    await world.engine.sync_worker("w")

    new = await world.engine.events.replay("e1")
    newest = await world.engine.events.replay(new.id)

    assert new._replace(id=old.id, created_at=old.created_at, replay_of=None, starts=old.starts) == old
    assert (new.replay_of, newest.replay_of) == ("e1", new.id)
    assert len({old.id, new.id, newest.id}) == 3
    assert [(start.task, start.outcome) for start in new.starts] == [("one", "started"), ("two", "filtered")]
    assert [run.priority for run in await runs_of(world, newest)] == [3]
    assert isinstance(await refused(world.engine.events.replay("e2")), NotFound)


async def test_events_are_listed_the_newest_first_by_key_and_scope(world: World) -> None:
    specs = [EventSpec("ab"[n % 2], str(n), id=f"{n}é{'x' * 250}", scope=("s", None, "t")[n % 3]) for n in range(12)]
    await world.engine.events.publish_many(specs[:6])  # these are of one and the same time
    await world.engine.events.publish_many(specs[6:])

    async def pages(**wanted: Any) -> list[int]:
        found: list[Event] = []
        cursor = None
        while True:
            page = await world.engine.events.page(cursor=cursor, limit=5, **wanted)
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
            assert len(page.items) == 5
        assert all(event.starts == () for event in found)
        assert [(event.created_at, event.id) for event in found] == sorted(
            ((event.created_at, event.id) for event in found), reverse=True
        )
        return sorted(int(event.payload) for event in found)

    assert await pages() == list(range(12))
    assert await pages(key="a") == [0, 2, 4, 6, 8, 10]
    assert await pages(scope="s") == [0, 3, 6, 9]
    assert await pages(key="b", scope="t") == [5, 11]
    assert await pages(key="c") == []
    for cursor in ("x", "MTIzNDU2", "LTE6YQ==", "eHg6YQ=="):
        assert isinstance(await refused(world.engine.events.page(cursor=cursor)), Invalid)


async def test_old_events_go_and_their_ids_are_free_again(world: World) -> None:
    await world.worker("w", listens("echo", "key"))
    old, new = [await publish(world, "key", id=name) for name in ("old", "new")]
    await runs_of(world, old)
    await world.change("UPDATE event SET created_at = created_at - 7200000 WHERE id = 'old'")
    retention = Retention(1, world.parts.database, world.parts.clock, seconds=3600)

    await retention.run_once()

    assert isinstance(await refused(world.engine.events.get("old")), NotFound)
    assert await world.engine.events.get("new") == new
    assert await world.rows("SELECT event FROM event_start") == [("new",)]
    assert (await world.engine.events.publish(EventSpec("key", "9", id="old"))).created

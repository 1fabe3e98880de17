"""Filters of events: of policies and made by hand, what they read, and what comes of one that fails."""

import asyncio
import json

import asyncpg
import pytest

from hurlbat_dispatcher import (
    Conflict,
    EventSpec,
)
from tests.engine.published import count, filters, listens, outcomes, publish, runs_of, started
from tests.engine.world import SOON, World

pytestmark = pytest.mark.anyio


# -- filters -----------------------------------------------------------------------------------------------------------


async def test_two_filters_that_are_true_start_two_runs_that_see_their_own_payloads(local: World) -> None:
    chosen = filters(
        {"expression": "input.level >= payload.least", "payload": {"least": 1, "to": "log"}},
        {"expression": "input.level >= payload.least", "payload": {"least": 5, "to": "pager"}},
        {"expression": "input.level >= payload.least", "payload": {"least": 9, "to": "everybody"}},
    )
    worker = await local.worker("w", listens("alert", "alarm", filters=chosen))

    event = await publish(local, "alarm", {"level": 6})
    runs = await runs_of(local, event)

    assert [start.outcome for start in event.starts] == ["started", "started", "filtered"]
    assert sorted(call.body["trigger"]["payload"]["to"] for call in worker.calls) == ["log", "pager"]
    assert [json.loads(run.trigger or "")["filter"] for run in runs] == ["input.level >= payload.least"] * 2
    assert [run.input for run in runs] == ['{"level": 6}'] * 2


TRUE = [
    "input.n == 1",
    "input.n == payload.n",
    'metadata.by == "ada"',
    'event.key == "key" && event.id == "e1" && event.scope == "s"',
    'event.key.startsWith("k") && input.n in [1, 2]',
    "true",
    "payload.yes",
]


async def test_a_filter_reads_the_event_and_its_own_payload(local: World) -> None:
    chosen = [{"expression": one, "payload": {"n": 1, "yes": True}} for one in TRUE]
    await local.worker("w", listens("echo", "key", filters=chosen))

    event = await publish(local, "key", {"n": 1}, id="e1", scope="s", metadata='{"by": "ada"}')

    assert outcomes(event) == [(expression, "started", None) for expression in TRUE]


FAILING = [
    ("input.user.vip", "the filter: input has no member user; send one"),
    ("input.n", "the filter: true or false is wanted; this is int 3"),
    ("input.n == 3 && input.missing", "the filter: there is no member"),
    ("input.text > 2", "the filter: "),
]


async def test_a_filter_that_fails_is_recorded_and_the_others_go_on(local: World) -> None:
    chosen = filters(*(expression for expression, _ in FAILING), "input.n == 3")
    await local.worker("w", listens("a", "key", filters=chosen), listens("b", "key"))

    event = await publish(local, "key", {"n": 3, "text": "x"})

    *failed, last, other = event.starts
    for start, (expression, reason) in zip(failed, FAILING, strict=True):
        assert (start.filter, start.outcome, start.run) == (expression, "failed", None)
        assert (start.reason or "").startswith(reason)
    assert [(one.filter, one.outcome) for one in (last, other)] == [("input.n == 3", "started"), (None, "started")]


async def test_the_payload_of_an_event_may_be_anything_and_is_given_on_as_it_came(world: World) -> None:
    worker = await world.worker("w", listens("echo", "key", filters=filters("input.n == 1", {"scope": "s"})))
    texts = ['{ "n" : 1.0, "n": 1 }', "null", '"\\u0000 \\ud834\\udd1e"', "[1, [2]]", "12345678901234567890123"]

    events = [(await world.engine.events.publish(EventSpec("key", text, scope="s"))).event for text in texts]
    runs = [run for event in events for run in await runs_of(world, event)]

    assert [event.payload for event in events] == texts
    assert [[start.outcome for start in event.starts] for event in events] == [["started"] * 2] + [
        ["failed", "started"]
    ] * 4
    assert [run.input for run in runs] == [texts[0], *texts]
    assert sorted(map(repr, (call.input for call in worker.calls))) == sorted(
        map(repr, map(json.loads, [texts[0], *texts]))
    )


# -- filters that are made by hand -------------------------------------------------------------------------------------


async def test_a_filter_made_by_hand_counts_beside_those_of_the_policy(local: World) -> None:
    worker = await local.worker("w", listens("echo", "key", filters=filters("input.n == 1")))
    made = await local.engine.events.filters.create("echo", expression="input.n > 0", payload='{"by": "hand"}')

    both = await publish(local, "key", {"n": 1})
    one = await publish(local, "key", {"n": 2})
    await local.engine.events.filters.update("echo", made.filter.id, expression=None, scope="s")
    scoped = [await publish(local, "key", {"n": 1}, scope=scope) for scope in ("s", "t")]
    await local.engine.events.filters.delete("echo", made.filter.id)
    gone = await publish(local, "key", {"n": 2}, scope="s")

    assert outcomes(both) == [("input.n == 1", "started", None), ("input.n > 0", "started", None)]
    assert outcomes(one) == [("input.n == 1", "filtered", None), ("input.n > 0", "started", None)]
    assert [outcomes(event) for event in scoped] == [
        [("input.n == 1", "started", None), (None, "started", None)],
        [("input.n == 1", "started", None)],
    ]
    assert outcomes(gone) == [("input.n == 1", "filtered", None)]
    await runs_of(local, one)
    assert {"by": "hand"} in [call.body["trigger"]["payload"] for call in worker.calls]


async def test_the_last_free_place_for_a_filter_is_given_away_once(owner: World, other: World) -> None:
    await owner.worker("w", listens("echo", "key"))
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    rows = ",".join(f"(1, 'echo', '{n}', NULL, 's{n}', '{{}}', {n})" for n in range(63))
    await owner.change(
        f"INSERT INTO event_filter (tenant, task, id, expression, scope, payload, created_at) VALUES {rows}"
    )
    side = await asyncpg.connect(owner.settings.database_url.replace("+asyncpg", ""))
    try:
        held = side.transaction()
        await held.start()
        await side.execute("SELECT name FROM task FOR UPDATE")
        both = [
            asyncio.ensure_future(world.engine.events.filters.create("echo", scope=scope))
            for world, scope in ((owner, "a"), (other, "b"))
        ]
        async with asyncio.timeout(SOON):
            while await side.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await held.rollback()
        found = await asyncio.gather(*both, return_exceptions=True)
    finally:
        await side.close()

    [problem] = [one for one in found if isinstance(one, Exception)]
    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra["limit"]) == ("too_many_filters", 64)
    assert await count(owner, "event_filter") == 64


async def test_a_filter_made_at_one_server_holds_at_the_other(owner: World, other: World) -> None:
    await owner.worker("w", listens("echo", "key"))
    await other.until(lambda: "echo" in other.parts.registry.tasks)

    made = await owner.engine.events.filters.create("echo", expression="input.n == 1")

    assert await other.engine.events.filters.get("echo", made.filter.id) == made
    await other.until(lambda: bool(other.parts.registry.filters))
    assert [started(await publish(other, "key", {"n": n})) for n in (0, 1)] == [[], ["echo"]]

"""Rate limits and pauses as both databases keep them, and which runs draw on a key."""

import json
from dataclasses import replace

import pytest
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.domain.policies import Draws, GroupDraw, RateDraw, name_lane
from hurlbat_dispatcher.store import limits
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.limits import PauseRow, name_of
from hurlbat_dispatcher.store.runs import NewRun
from hurlbat_dispatcher.store.schema import lane, rate_pause
from hurlbat_dispatcher.store.statement import Prepared, Script, Statement, bind
from hurlbat_dispatcher.store.workers import all_registered, declare_tasks
from tests.store.rows import FIRST, insert, new_run, tell

pytestmark = pytest.mark.anyio

FAR = 1 << 50
INSERT_LANE = Statement(
    lane.insert()
    .values({name: bind(name, lane.c[name].type) for name in ("id", "tenant", "draws", "digest")})
    .values(task="echo", used_at=0),
    ("id", "tenant", "draws", "digest"),
)


def run_id(n: int) -> str:
    return f"0199a3c0-0000-7000-8000-{n:012x}"


def run_in(lane_id: int, n: int, **more: object) -> NewRun:
    return new_run(run_id(n), **({"lane": lane_id} | more))


def lanes(*draws: Draws) -> Script[None]:
    """Make lanes 1, 2, … with these draws."""
    yield INSERT_LANE.write([(at, 1, *name_lane(one)) for at, one in enumerate(draws, 1)])


def on(*keys: str) -> Draws:
    return Draws(rates=tuple(RateDraw(key, 1) for key in keys))


def known() -> Script[limits.Limited]:
    return (yield from limits.all_limited())


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_a_limit_is_put_changed_and_forgotten(store: Database) -> None:
    made = [await store.write(limits.put_limit(1, "cdn", most, 1_000)) for most in (10, 0)]
    await store.write(limits.put_limit(1, "api", 5, 10))
    [api, cdn], _ = await store.read(known())
    await store.write(limits.delete_limit(1, "cdn"))
    left, _ = await store.read(known())

    assert made == [True, False]
    assert ((api.key, api.most, api.duration), (cdn.key, cdn.most)) == (("api", 5, 10), ("cdn", 0))
    assert api.updated_at > 0
    assert [row.key for row in left] == ["api"]


async def test_a_forgotten_limit_forgets_that_it_was_paused(store: Database) -> None:
    for key in ("cdn", "api"):
        await store.write(limits.put_limit(1, key, 1, 1_000))
        await store.write(limits.pause_key(1, name_of(key)))

    await store.write(limits.delete_limit(1, "cdn"))

    assert (await store.read(known()))[1] == [PauseRow(1, "static:api", None)]


# -- pauses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [(FAR, FAR + 1, FAR + 1), (FAR + 1, FAR, FAR + 1), (FAR, None, None), (None, FAR, None), (None, None, None)],
)
async def test_of_two_pauses_the_longer_one_holds(
    store: Database, first: int | None, second: int | None, held: int | None
) -> None:
    await store.write(limits.pause_key(1, "static:cdn", first))
    await store.write(limits.pause_key(1, "static:cdn", second))

    assert (await store.read(known()))[1] == [PauseRow(1, "static:cdn", held)]


async def test_a_key_is_resumed_and_another_of_that_name_is_not(store: Database) -> None:
    await store.write(limits.pause_key(1, name_of("k")))
    await store.write(limits.pause_key(1, name_of("k", dynamic=True)))

    await store.write(limits.resume_key(1, name_of("k")))

    assert (await store.read(known()))[1] == [PauseRow(1, "dynamic:k", None)]


async def test_a_pause_that_is_over_is_not_read_and_goes_with_the_next(store: Database) -> None:
    await store.write(limits.pause_key(1, "dynamic:old", 1))
    _, unread = await store.read(known())
    await store.write(limits.pause_key(1, "dynamic:new", FAR))

    async def stored() -> list[str]:
        def script() -> Script[list[str]]:
            rows = yield Statement(rate_pause.select()).fetch()
            return [row[1] for row in rows]

        return await store.read(script())

    assert unread == []
    assert await stored() == ["dynamic:new"]


async def test_a_paused_task_stays_so_when_it_is_declared_anew(store: Database) -> None:
    await store.write(declare_tasks(1, {"echo": "{}", "other": "{}"}, {}, 1))
    await store.write(limits.pause_task(1, "echo", True))
    await store.write(declare_tasks(1, {"echo": '{"retries": 1}', "other": "{}"}, {}, 2))
    _, paused = await store.read(all_registered())
    await store.write(limits.pause_task(1, "echo", False))
    _, resumed = await store.read(all_registered())

    assert [(row.name, row.version, row.paused) for row in paused] == [("echo", 2, 1), ("other", 1, 0)]
    assert [row.paused for row in resumed] == [0, 0]


# -- who draws on a key ------------------------------------------------------------------------------------------------


async def test_runs_that_have_not_ended_draw_on_their_keys(store: Database) -> None:
    await store.write(lanes(on("cdn"), on("api", "cdn"), on("api"), Draws()))
    running = {"state": "running", "worker": "w", "sender": FIRST}
    await store.write(
        insert(
            run_in(1, 1),
            run_in(2, 2, ready=0, due_at=FAR),
            run_in(2, 3, **running),
            run_in(1, 4, state="completed"),
            run_in(3, 5),
            run_in(3, 6, state="failed", ready=0),
            run_in(4, 7),
        )
    )

    found = {key: await store.read(limits.drawing_on(1, key)) for key in ("cdn", "api", "none")}

    assert found == {"cdn": [run_id(1), run_id(2), run_id(3)], "api": [run_id(2), run_id(3), run_id(5)], "none": []}


async def test_a_few_of_many_are_named(store: Database) -> None:
    await store.write(lanes(on("cdn")))
    await store.write(insert(*(run_in(1, n, ready=n % 2) for n in range(20))))

    assert len(set(await store.read(limits.drawing_on(1, "cdn")))) == limits.MAX_SHOWN


async def test_what_only_looks_like_a_draw_is_none(store: Database) -> None:
    tricks = [
        Draws(rates=(RateDraw("a_b", 1, 5, 1_000),)),  # a dynamic one
        on("axb"),
        on("A_B"),
        on("a_b.c"),
        Draws(groups=(GroupDraw("name:a_b", "a_b"),), rates=(RateDraw("x", 1),)),
        Draws(groups=(GroupDraw('["a_b",1,0,0]', '"rates":[["a_b",1,0,0]]'),)),
    ]
    await store.write(lanes(*tricks))
    await store.write(insert(*(run_in(at, at) for at in range(1, len(tricks) + 1))))

    assert await store.read(limits.drawing_on(1, "a_b")) == []
    assert await store.read(limits.drawing_on(1, "axb")) == [run_id(2)]


async def test_what_lanes_draw_is_told_with_how_many_wait(store: Database) -> None:
    dynamic = RateDraw('say "hi" / 100%_é', 2, 5, 1_000)
    await store.write(lanes(on("cdn", "api"), on("cdn"), Draws(rates=(dynamic,)), Draws()))
    await store.write(insert(run_in(1, 1), run_in(1, 2), run_in(2, 3), run_in(2, 4, ready=0), run_in(3, 5)))

    every = await store.read(limits.draws_on_rates(1))
    one = await store.read(limits.draws_on_rates(1, "api"))

    assert every == {RateDraw("cdn", 1): 3, RateDraw("api", 1): 2, dynamic: 1}
    assert one[RateDraw("api", 1)] == 2


# -- and what it costs -------------------------------------------------------------------------------------------------

PLANS = {
    "WAITING_IN": (limits.WAITING_IN, "run_waiting"),
    "DELAYED_IN": (limits.DELAYED_IN, "run_delayed"),
    "RUNNING_IN": (limits.RUNNING_IN, "run_running"),
    "COUNT_WAITING": (limits.COUNT_WAITING, "run_waiting"),
}


class _Explained(Statement):
    """A statement that is explained instead of executed."""

    def __init__(self, statement: Statement) -> None:
        super().__init__(statement.clause, statement.names)
        self._of = statement

    def prepared(self, dialect: Dialect) -> Prepared:
        prepared = self._of.prepared(dialect)
        words = "EXPLAIN QUERY PLAN" if dialect.name == "sqlite" else "EXPLAIN"
        return replace(prepared, sql=f"{words} {prepared.sql}")


async def _plan(store: Database, statement: Statement) -> str:
    given = {"lanes": [3], "most": 5}

    def script() -> Script[str]:
        rows = yield _Explained(statement).fetch(*(given[name] for name in statement.names))
        return json.dumps([tuple(row) for row in rows])

    return await store.read(script())


@pytest.mark.parametrize("name", PLANS)
async def test_only_runs_of_those_lanes_are_read_on_sqlite(sqlite_url: str, name: str) -> None:
    store = database(sqlite_url, SystemClock())
    await store.open()
    await store.migrate()
    statement, index = PLANS[name]

    plan = await _plan(store, statement)
    await store.close()

    found = [step for step in plan.split('"') if step.startswith(("SEARCH", "SCAN")) and "json_each" not in step]
    assert len(found) == 1, plan
    assert f"INDEX {index}" in found[0], plan
    assert found[0].startswith("SEARCH") or name == "RUNNING_IN", plan  # there are never more of these than slots


@pytest.mark.parametrize("name", ["WAITING_IN", "COUNT_WAITING"])
async def test_so_are_they_on_postgresql_where_many_wait_in_others(postgres_url: str, name: str) -> None:
    store = database(postgres_url, SystemClock())
    await store.open()
    await store.migrate()
    await store.write(insert(*(run_in(1 if n % 100 else 3, n) for n in range(5_000))))
    await store.write(tell("ANALYZE run"))

    plan = await _plan(store, PLANS[name][0])
    await store.close()

    assert "run_waiting" in plan, plan

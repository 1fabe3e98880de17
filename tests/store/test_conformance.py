"""What both databases promise to the engine, by one suite."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store import runs, views
from hurlbat_dispatcher.store.database import CannotOpen, Clash, Database, DatabaseTrouble
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import FIRST, ask, insert, new_run, tell

pytestmark = pytest.mark.anyio

TEXTS = {
    "key order and duplicate keys": '{"b": 1, "a": 2, "b": 3}',
    "escapes": r'"\u0000\u0001\ud834\udd1e\/\n"',
    "beyond the basic plane": '"𝄞😀é\u2028\ufeff"',
    "big numbers": "[123456789012345678901234567890, 0.1000000000000000055511151231257827, -0.0, 1E+2]",
    "spaces": "{\t}\r\n",
    "a mebibyte": json.dumps("x" * 1_048_576),
    "what SQL would quote": json.dumps("'; DROP TABLE run; -- \\ % :name ?"),
}


def add_one(seconds: list[float]) -> Script[int]:
    """Read, decide, write."""
    rows = yield from ask("SELECT epoch FROM shard")
    yield from tell(f"UPDATE shard SET epoch = {rows[0][0] + 1}")
    return int(rows[0][0])


async def test_concurrent_scripts_come_one_after_the_other(store: Database) -> None:
    seen = await asyncio.gather(*(store.write(add_one([])) for _ in range(4)))
    assert sorted(seen) == [0, 1, 2, 3]
    assert await store.read(ask("SELECT epoch FROM shard")) == [(4,)]


async def test_concurrent_transactions_of_sqlalchemy_lose_no_update(store: Database) -> None:
    """The driver's own transactions begin late: all four would read the same, or be refused when they write."""
    engine: AsyncEngine = store._engine  # type: ignore[attr-defined]  # both have one
    everyone_read = asyncio.Barrier(4) if store.shared else None

    async def add() -> None:
        async with engine.begin() as connection:
            lock = " FOR UPDATE" if everyone_read else ""
            if everyone_read:
                await everyone_read.wait()
            epoch = (await connection.execute(sa.text(f"SELECT epoch FROM shard{lock}"))).scalar_one()
            await asyncio.sleep(0)
            await connection.execute(sa.text(f"UPDATE shard SET epoch = {epoch + 1}"))

    await asyncio.gather(*(add() for _ in range(4)))
    assert await store.read(ask("SELECT epoch FROM shard")) == [(4,)]


async def test_a_script_that_raises_writes_nothing(store: Database) -> None:
    def script() -> Script[None]:
        yield runs.INSERT.write([new_run()])
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await store.write(script())
    assert await store.read(ask("SELECT id FROM run")) == []
    await store.write(insert(new_run()))  # and nothing is left in the way


async def test_a_statement_that_fails_takes_the_whole_script_back(store: Database) -> None:
    with pytest.raises(Clash):
        await store.write(insert(new_run(), new_run()))
    assert await store.read(ask("SELECT id FROM run")) == []


@pytest.mark.parametrize(
    "bad",
    [{"state": "running"}, {"tries": 1}, {"tries": -1}, {"task": None}],
    ids=["running without a worker", "more tries than attempts", "fewer than none", "no task"],
)
async def test_what_must_never_be_stored_is_not(store: Database, bad: dict[str, Any]) -> None:
    with pytest.raises(Clash):
        await store.write(insert(new_run(**bad)))


async def test_a_script_is_closed_whatever_happens(store: Database) -> None:
    closed = []

    def script() -> Iterator[Any]:
        try:
            yield runs.INSERT.write([new_run(), new_run()])
        finally:
            closed.append(True)

    with pytest.raises(Clash):
        await store.write(script())  # type: ignore[arg-type]
    assert closed == [True]


async def test_a_reader_sees_every_acknowledged_write_at_once(store: Database) -> None:
    for n in range(50):
        await store.write(tell(f"UPDATE shard SET epoch = {n}"))
        assert await store.read(ask("SELECT epoch FROM shard")) == [(n,)]


async def test_a_reader_sees_one_moment_however_long_it_reads(store: Database) -> None:
    def script() -> Script[tuple[Any, Any]]:
        first = yield from ask("SELECT epoch FROM shard")
        second = yield from ask("SELECT epoch FROM shard")
        return first, second

    writes = [asyncio.ensure_future(store.write(add_one([]))) for _ in range(30)]
    for first, second in await asyncio.gather(*(store.read(script()) for _ in range(30))):
        assert first == second
    await asyncio.gather(*writes)


async def test_a_reader_cannot_write(store: Database) -> None:
    with pytest.raises(DatabaseTrouble):
        await store.read(tell("UPDATE shard SET epoch = 9"))
    assert await store.read(ask("SELECT epoch FROM shard")) == [(0,)]


async def test_a_closed_database_is_in_trouble_and_may_be_closed_again(store: Database) -> None:
    await store.close()
    await store.close()
    for work in (store.write(add_one([])), store.read(ask("SELECT 1"))):
        with pytest.raises(DatabaseTrouble):
            await work


@pytest.mark.parametrize("name", TEXTS)
async def test_payloads_are_kept_as_the_text_that_came(store: Database, name: str) -> None:
    text = TEXTS[name]
    await store.write(insert(new_run(input=text, metadata=text)))
    found = await store.read(views.one_run(1, FIRST))
    assert found is not None
    assert (found.input.encode(), found.metadata) == (text.encode(), text)


async def test_values_that_a_database_does_not_take_are_no_trouble_of_its_own(store: Database) -> None:
    for bad in ({"created_at": 1 << 70}, {"input": "\ud800"}):
        with pytest.raises(Exception, match=r".") as refused:
            await store.write(insert(new_run(**bad)))
        assert not isinstance(refused.value, DatabaseTrouble | Clash)
    await store.write(insert(new_run()))


async def test_the_database_tells_the_time_anew_in_each_statement(store: Database) -> None:
    def script() -> Script[tuple[int, int]]:
        first = yield from runs.database_now()
        for _ in range(100_000):
            second = yield from runs.database_now()
            if second > first:
                break
        return first, second

    first, second = await store.write(script())
    assert abs(first - SystemClock().now_ms()) < 60_000
    assert first < second


async def test_an_empty_list_of_rows_writes_nothing(store: Database) -> None:
    await store.write(insert())
    assert await store.read(views.many_runs(1, [])) == {}


async def test_a_list_is_one_parameter_of_any_length(store: Database) -> None:
    ids = [f"0199a3c0-0000-7000-8000-{n:012x}" for n in range(2_000)]
    await store.write(insert(*(new_run(run_id) for run_id in ids)))
    assert sorted(await store.read(views.many_runs(1, ids))) == ids
    assert await store.read(views.many_runs(2, ids)) == {}


@pytest.mark.parametrize("url", ["mysql+aiomysql://root@localhost/x", "oracle://x"])
def test_an_unknown_kind_of_database_is_refused_in_a_sentence(url: str) -> None:
    with pytest.raises(CannotOpen, match="must be SQLite or PostgreSQL"):
        database(url, SystemClock())

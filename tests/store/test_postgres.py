"""What only PostgreSQL has: connections that die, and other servers."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from hurlbat_dispatcher.clock import AgreedClock, SystemClock
from hurlbat_dispatcher.loops.lease import Lease
from hurlbat_dispatcher.store import postgres
from hurlbat_dispatcher.store.database import Clash, DatabaseTrouble
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.postgres import PostgresDatabase
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import ask, insert, new_run, tell

pytestmark = pytest.mark.anyio

LONG = 120.0
"""Seconds that nothing takes, however long a machine stands still."""


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    opened = PostgresDatabase(postgres_url, stall=LONG)
    await opened.open()
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
async def other(postgres_url: str, store: PostgresDatabase) -> AsyncIterator[PostgresDatabase]:
    opened = PostgresDatabase(postgres_url, stall=LONG)
    await opened.open()
    yield opened
    await opened.close()


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(LONG):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_the_writing_connection_killed_within_a_transaction_is_trouble_and_the_next_write_works(
    store: PostgresDatabase, other: PostgresDatabase
) -> None:
    assert store._writer is not None
    pid = store._writer.get_server_pid()

    def script() -> Script[None]:
        yield from insert(new_run())
        other_is_done.set()
        for _ in range(10_000):
            yield from ask("SELECT pg_sleep(0.001)")

    other_is_done = asyncio.Event()
    writing = asyncio.ensure_future(store.write(script()))
    await other_is_done.wait()
    await other.write(ask(f"SELECT pg_terminate_backend({pid})"))
    with pytest.raises(DatabaseTrouble) as trouble:
        await writing
    assert not trouble.value.unknown
    assert await store.read(ask("SELECT id FROM run")) == []
    await store.write(insert(new_run()))
    assert await store.read(ask("SELECT count(*) FROM run")) == [(1,)]


async def test_readers_that_were_killed_are_replaced(store: PostgresDatabase, other: PostgresDatabase) -> None:
    await asyncio.gather(*(store.read(ask("SELECT pg_sleep(0.05)")) for _ in range(4)))
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    await other.write(ask(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"))

    async def reads() -> bool:
        try:
            return await store.read(ask("SELECT 1")) == [(1,)]
        except DatabaseTrouble:
            return False

    assert any([await reads() for _ in range(10)])
    assert all([await reads() for _ in range(10)])


async def test_a_commit_whose_answer_never_came_is_of_unknown_outcome(
    store: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = asyncpg.Connection.execute

    async def dies_at_commit(self: asyncpg.Connection, query: str, *arguments: object, **more: object) -> object:
        if query == "COMMIT":
            self.terminate()
        return await execute(self, query, *arguments, **more)

    monkeypatch.setattr(asyncpg.Connection, "execute", dies_at_commit)
    with pytest.raises(DatabaseTrouble) as trouble:
        await store.write(insert(new_run()))
    assert trouble.value.unknown


async def test_a_cancelled_write_leaves_nothing_for_the_next_one(store: PostgresDatabase) -> None:
    begun = asyncio.Event()

    def script() -> Script[None]:
        yield from insert(new_run())
        begun.set()
        yield from ask("SELECT pg_sleep(60)")

    writing = asyncio.ensure_future(store.write(script()))
    await begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await store.write(insert(new_run()))
    assert await store.read(ask("SELECT count(*) FROM run")) == [(1,)]


async def test_two_that_wait_for_each_other_clash_and_one_of_them_goes_on(
    store: PostgresDatabase, other: PostgresDatabase
) -> None:
    first, second = (f"0199a3c0-0000-7000-8000-{n:012x}" for n in (1, 2))
    await store.write(insert(new_run(first), new_run(second)))
    both = asyncio.Barrier(2)

    async def take(database: PostgresDatabase, one: str, two: str) -> bool:
        locked = asyncio.Event()

        def script() -> Script[None]:
            yield from ask(f"SELECT 1 FROM run WHERE id = '{one}' FOR UPDATE")
            locked.set()
            while not met.done():
                yield from ask("SELECT pg_sleep(0.005)")
            yield from ask(f"SELECT 1 FROM run WHERE id = '{two}' FOR UPDATE")

        async def meet() -> None:
            await locked.wait()
            await both.wait()

        met = asyncio.ensure_future(meet())
        try:
            await database.write(script())
        except Clash:
            return False
        return True

    outcomes = await asyncio.gather(take(store, first, second), take(other, second, first))
    assert sorted(outcomes) == [False, True]


async def test_what_one_notifies_the_others_hear_and_it_does_not_itself(
    store: PostgresDatabase, other: PostgresDatabase
) -> None:
    heard: list[str] = []
    own: list[str] = []
    await store.listen(own.append)
    await other.listen(heard.append)
    await asyncio.gather(*(store.notify(str(n)) for n in range(100)))
    await until(lambda: len(heard) == 100)
    assert sorted(heard, key=int) == [str(n) for n in range(100)]
    assert own == []


async def test_a_listener_whose_connection_died_comes_back_when_asked_again(
    store: PostgresDatabase, other: PostgresDatabase
) -> None:
    heard: list[str] = []
    await store.listen(lambda _: None)
    await other.listen(heard.append)
    listener = other._listener
    assert listener is not None
    await store.write(ask(f"SELECT pg_terminate_backend({listener.get_server_pid()})"))
    await until(listener.is_closed)
    await other.listen(heard.append)
    await store.notify("back")
    await until(lambda: heard == ["back"])


async def test_a_notifier_whose_connection_died_speaks_again(store: PostgresDatabase, other: PostgresDatabase) -> None:
    heard: list[str] = []
    await store.listen(lambda _: None)
    await other.listen(heard.append)
    assert store._listener is not None
    store._listener.terminate()
    await store.notify("still here")
    await until(lambda: heard == ["still here"])


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a backend hang as on a machine that is gone: its connection stays open and nothing answers."""
    with continued(pid):
        os.kill(pid, signal.SIGSTOP)
        yield


@contextmanager
def continued(pid: int) -> Iterator[None]:
    """Let a backend that the test stops go on at the end."""
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("at", ["BEGIN", "COMMIT"])
async def test_a_backend_that_does_not_answer_is_given_up(
    store: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    first = store._writer
    assert first is not None
    pid = first.get_server_pid()

    def script() -> Script[None]:
        yield from insert(new_run())
        if at == "COMMIT":
            os.kill(pid, signal.SIGSTOP)
            monkeypatch.setattr(postgres, "TRANSACTION_SECONDS", 0.3)

    if at == "BEGIN":
        monkeypatch.setattr(postgres, "TRANSACTION_SECONDS", 0.3)
    with stopped(pid) if at == "BEGIN" else continued(pid):
        async with asyncio.timeout(LONG):
            with pytest.raises(DatabaseTrouble, match="does not answer") as trouble:
                await store.write(script())
        monkeypatch.undo()
        assert first.is_closed()
        assert trouble.value.unknown == (at == "COMMIT")
        await store.write(tell("SELECT 1"))  # on a new connection


async def test_a_reader_that_does_not_answer_is_given_up_and_replaced(
    store: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(pid,)] = await store.read(ask("SELECT pg_backend_pid()"))
    monkeypatch.setattr(postgres, "TRANSACTION_SECONDS", 0.2)
    with stopped(pid):
        async with asyncio.timeout(LONG):
            with pytest.raises(DatabaseTrouble, match="does not answer"):
                await store.read(ask("SELECT 1"))
            monkeypatch.undo()
            assert await store.read(ask("SELECT 1")) == [(1,)]


async def test_notifications_do_not_pile_up_behind_a_connection_that_does_not_answer(
    store: PostgresDatabase, other: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    await store.listen(lambda _: None)
    await other.listen(heard.append)
    assert store._listener is not None
    monkeypatch.setattr(postgres, "TALK_SECONDS", 1.5)
    with stopped(store._listener.get_server_pid()):
        async with asyncio.timeout(LONG):  # each of a hundred would wait for its own 1.5 s
            telling = [asyncio.ensure_future(store.notify(str(n))) for n in range(1_000)]
            await asyncio.sleep(0)
            assert store._waiting == postgres.MAX_NOTIFICATIONS
            await asyncio.gather(*telling)
        monkeypatch.undo()
        await store.notify("again")
        await until(lambda: heard == ["again"])


async def test_a_server_that_is_not_there_is_trouble_in_a_sentence() -> None:
    store = PostgresDatabase("postgresql+asyncpg://nobody@127.0.0.1:1/nothing")
    with pytest.raises(DatabaseTrouble, match=r"PostgreSQL at 127\.0\.0\.1 cannot be reached"):
        await store.open()


async def test_a_transaction_that_idles_is_ended_by_the_database(postgres_url: str) -> None:
    """Or a server that hangs in the middle of a turn would hold its locks beyond its lease."""
    usual = PostgresDatabase(postgres_url)
    await usual.open()
    try:
        [(timeout,)] = await usual.write(ask("SELECT current_setting('idle_in_transaction_session_timeout')"))
    finally:
        await usual.close()
    assert timeout == "10s"


@pytest.mark.parametrize(("lease", "left_alone"), [(3.0, "3s"), (15.0, "10s")])
async def test_a_server_that_stands_still_in_a_transaction_holds_up_others_for_less_than_its_lease(
    postgres_url: str, lease: float, left_alone: str
) -> None:
    store = database(postgres_url, SystemClock(), lease)
    await store.open()
    try:
        [(timeout,)] = await store.write(ask("SELECT current_setting('idle_in_transaction_session_timeout')"))
    finally:
        await store.close()
    assert timeout == left_alone


def hasty(url: str) -> PostgresDatabase:
    """Return a database that gives others little time to stand still, and itself as much as it needs."""
    made = PostgresDatabase(url, stall=0.2)
    made._settings["idle_in_transaction_session_timeout"] = "0"
    return made


async def test_who_stands_still_in_the_middle_of_a_statement_is_cut_off_by_who_waits(
    postgres_url: str, store: PostgresDatabase
) -> None:
    stopped = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await stopped.execute("BEGIN")
    await stopped.execute("SELECT * FROM shard FOR UPDATE")
    await stopped.prepare("SELECT 4711")  # parsed and never bound: the backend waits for us, and is not idle
    waiting = hasty(postgres_url)
    await waiting.open()
    try:
        async with asyncio.timeout(LONG):
            await waiting.write(tell("UPDATE shard SET epoch = 8"))
        assert await store.read(ask("SELECT epoch FROM shard")) == [(8,)]
        assert stopped.is_closed()
    finally:
        await waiting.close()
        stopped.terminate()


async def test_who_stands_still_in_the_middle_of_a_turn_loses_the_lanes_though_nobody_waits_for_it(
    postgres_url: str, store: PostgresDatabase
) -> None:
    await store.write(tell("UPDATE shard SET owner = 'stopped', epoch = 7, lease_until = 1"))
    stopped = await asyncpg.connect(
        postgres_url.replace("+asyncpg", ""), server_settings={"application_name": "hurlbat"}
    )
    await stopped.execute("BEGIN")
    await stopped.execute("SELECT * FROM shard FOR UPDATE")
    await stopped.prepare("SELECT 4711")
    next_one = hasty(postgres_url)
    await next_one.open()
    owners: list[str | None] = []
    lease = Lease(
        "next",
        next_one,
        AgreedClock(SystemClock()),
        seconds=3.0,
        held=lambda ownership, _: owners.append(ownership.owner),
        handed_over=lambda: None,
    )
    try:
        async with asyncio.timeout(LONG):
            while "next" not in owners:
                await lease.run_once()
        assert owners[0] == "stopped", "it was not locked"
        assert (await store.read(ask("SELECT owner, epoch FROM shard"))) == [("next", 8)]
        assert stopped.is_closed()
    finally:
        await next_one.close()
        stopped.terminate()


async def test_who_stands_still_while_it_migrates_holds_up_nobody_for_ever(
    postgres_url: str, store: PostgresDatabase
) -> None:
    stopped = await asyncpg.connect(
        postgres_url.replace("+asyncpg", ""), server_settings={"application_name": "hurlbat"}
    )
    await stopped.execute("BEGIN")
    await stopped.fetchval(str(postgres._ONE_AT_A_TIME.compile(compile_kwargs={"literal_binds": True})))
    await stopped.prepare("SELECT 4711")
    next_one = hasty(postgres_url)
    await next_one.open()
    try:
        async with asyncio.timeout(LONG):
            await next_one.migrate()
        assert stopped.is_closed()
    finally:
        await next_one.close()
        stopped.terminate()


async def test_a_database_that_stands_still_before_it_tells_its_version_is_trouble(
    postgres_url: str, store: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "STATEMENT_SECONDS", 0.5)
    holding = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await holding.execute("BEGIN")
    await holding.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
    waiting = PostgresDatabase(postgres_url)
    await waiting.open()
    try:
        async with asyncio.timeout(LONG):
            with pytest.raises(DatabaseTrouble, match="does not answer"):
                await waiting.prepare()
        await holding.execute("ROLLBACK")
        monkeypatch.undo()
        await waiting.prepare()
    finally:
        await waiting.close()
        holding.terminate()


async def test_who_is_asked_to_cut_off_others_leaves_those_alone_that_only_read_or_have_just_spoken(
    postgres_url: str, store: PostgresDatabase
) -> None:
    url, ours = postgres_url.replace("+asyncpg", ""), {"application_name": "hurlbat"}
    reading = await asyncpg.connect(url, server_settings=ours)
    foreign = await asyncpg.connect(url)
    busy = await asyncpg.connect(url, server_settings=ours)
    at_once, patient = PostgresDatabase(postgres_url, stall=0), PostgresDatabase(postgres_url, stall=LONG)
    await at_once.open()
    await patient.open()
    try:
        await reading.execute("BEGIN")
        await reading.execute("SELECT * FROM shard")
        await foreign.execute("BEGIN")
        await foreign.execute("SELECT pg_current_xact_id()")  # as whoever locks a row has
        await at_once.cut_off()
        await busy.execute("BEGIN")
        await busy.execute("SELECT pg_current_xact_id()")
        await patient.cut_off()
        assert [await one.fetchval("SELECT 1") for one in (reading, foreign, busy)] == [1, 1, 1]
    finally:
        await at_once.close()
        await patient.close()
        for one in (reading, foreign, busy):
            one.terminate()


async def test_who_listens_and_reads_nothing_is_cut_off(postgres_url: str, store: PostgresDatabase) -> None:
    deaf = await asyncpg.connect(postgres_url.replace("+asyncpg", ""), server_settings={"application_name": "hurlbat"})
    await deaf.add_listener("hurlbat", lambda *_: None)
    deaf._transport.pause_reading()
    at_once = PostgresDatabase(postgres_url, stall=0)
    await at_once.open()
    shout = "SELECT pg_notify('hurlbat', repeat('x', 7000) || n) FROM generate_series(1, 2000) n"  # all must differ
    find = f"SELECT wait_event FROM pg_stat_activity WHERE pid = {deaf.get_server_pid()}"
    try:
        async with asyncio.timeout(LONG):
            while await store.read(ask(find)) != [("ClientWrite",)]:
                await store.write(ask(shout))
            await at_once.cut_off()
            while await store.read(ask(find)):  # noqa: ASYNC110  # a backend sets no event
                await asyncio.sleep(0.01)
    finally:
        await at_once.close()
        deaf.terminate()

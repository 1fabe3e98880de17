"""PostgreSQL in trouble: what is told of a commit is true, and what takes writes is found again."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
import structlog.testing

from hurlbat_dispatcher.store import dial, postgres
from hurlbat_dispatcher.store.database import CannotOpen, Clash, DatabaseTrouble
from hurlbat_dispatcher.store.postgres import PostgresDatabase
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import FIRST, ask, insert, new_run, tell
from tests.support.postgres import Cluster
from tests.trouble.proxy import Mode, Proxy, proxy_to

pytestmark = pytest.mark.anyio

SECOND = FIRST[:-1] + "2"
IDS = "SELECT id FROM run ORDER BY id"


PATIENCE = 120.0
"""Seconds, far more than anything here takes: who stands still in between is not given up for it."""


@pytest.fixture(autouse=True)
def _no_rest_and_no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each attempt be one, and take its time, but where a test says otherwise."""
    monkeypatch.setattr(dial, "REST_SECONDS", 0.0)
    monkeypatch.setattr(dial, "CONNECT_SECONDS", PATIENCE)
    for limit in ("READER_SECONDS", "TRANSACTION_SECONDS", "TALK_SECONDS"):
        monkeypatch.setattr(postgres, limit, PATIENCE)


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[PostgresDatabase]:
    opened = PostgresDatabase(postgres_url, stall=PATIENCE)
    await opened.open()
    await opened.migrate()
    yield opened
    await opened.close()


@pytest.fixture
def proxy(postgres_cluster: Cluster) -> Iterator[Proxy]:
    with proxy_to(postgres_cluster.port) as carrying:
        yield carrying


@pytest.fixture
async def behind(postgres_url: str, store: PostgresDatabase, proxy: Proxy) -> AsyncIterator[PostgresDatabase]:
    """The same database, reached through the proxy."""
    opened = PostgresDatabase(by_way_of(proxy.port, postgres_url), stall=PATIENCE)
    await opened.open()
    yield opened
    await opened.close()


def numbered(number: int) -> str:
    """Return the id of a run."""
    return f"{FIRST[:-4]}{number:04x}"


def by_way_of(port: int, url: str) -> str:
    return f"postgresql+asyncpg://postgres@127.0.0.1:{port}/{url.rpartition('/')[2]}"


# -- commits -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cut", "stored"), [(Mode.CUT_BEFORE, []), (Mode.CUT_AFTER, [(FIRST,)])])
async def test_a_commit_whose_answer_is_lost_is_of_unknown_outcome_stored_or_not(
    behind: PostgresDatabase, store: PostgresDatabase, proxy: Proxy, cut: Mode, stored: list[Any]
) -> None:
    proxy.mode = cut
    with pytest.raises(DatabaseTrouble) as trouble:
        await behind.write(insert(new_run()))
    assert (trouble.value.unknown, proxy.cuts) == (True, 1)
    assert await store.read(ask(IDS)) == stored
    await behind.write(insert(new_run(SECOND)))
    assert await behind.read(ask(IDS)) == [*stored, (SECOND,)]


async def test_a_connection_lost_before_the_commit_has_stored_nothing_and_that_is_known(
    behind: PostgresDatabase, proxy: Proxy
) -> None:
    def script() -> Script[None]:
        yield from insert(new_run())
        proxy.cut_all()
        yield from ask("SELECT pg_sleep(5)")

    with pytest.raises(DatabaseTrouble) as trouble:
        await behind.write(script())
    assert not trouble.value.unknown
    assert await behind.read(ask(IDS)) == []


MAY_PASS = {
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "57P01": "admin shutdown, but as an ERROR, which has rolled back",
    "58030": "I/O error",
    "XX000": "internal error",
}
AT_COMMIT: dict[str, tuple[type[Exception], bool]] = dict.fromkeys(MAY_PASS, (DatabaseTrouble, False)) | {
    "40003": (DatabaseTrouble, True),  # completion unknown: said by relatives of PostgreSQL that are spread
    "40001": (Clash, False),
    "40P01": (Clash, False),
    "23505": (Clash, False),
}


async def test_an_error_at_commit_has_stored_nothing_and_that_is_known(store: PostgresDatabase) -> None:
    await store.write(
        tell(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = NEW.task; END $$",
            "CREATE CONSTRAINT TRIGGER fails AFTER INSERT ON run DEFERRABLE INITIALLY DEFERRED "
            "FOR EACH ROW WHEN (NEW.task <> 'echo') EXECUTE FUNCTION fail()",
        )
    )
    found: dict[str, tuple[type[Exception], bool]] = {}
    for code in AT_COMMIT:
        with pytest.raises((DatabaseTrouble, Clash)) as error:
            await store.write(insert(new_run(task=code)))
        found[code] = type(error.value), getattr(error.value, "unknown", False)
        assert await store.read(ask(IDS)) == []
    assert found == AT_COMMIT
    await store.write(insert(new_run()))


async def test_an_error_in_the_middle_is_trouble_that_passes(store: PostgresDatabase) -> None:
    def script(code: str) -> Script[None]:
        yield from insert(new_run())
        yield from tell(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$")

    for code in MAY_PASS:
        with pytest.raises(DatabaseTrouble, match="PostgreSQL: no") as trouble:
            await store.write(script(code))
        assert not trouble.value.unknown
    await store.write(insert(new_run(SECOND)))
    assert await store.read(ask(IDS)) == [(SECOND,)]


async def test_a_commit_that_no_standby_has_confirmed_is_not_taken_for_done(own_cluster: Cluster) -> None:
    """PostgreSQL calls it done, with a warning, when the wait for the standby is cancelled."""
    store = PostgresDatabase(own_cluster.url("postgres"))
    await store.open()
    await store.migrate()
    own_cluster.query("ALTER SYSTEM SET synchronous_standby_names = 'somebody'")
    own_cluster.query("SELECT pg_reload_conf()")
    numbers = itertools.count()
    writing = asyncio.ensure_future(store.write(insert(new_run(numbered(next(numbers))))))
    waiting = "wait_event = 'SyncRep' AND application_name = 'hurlbat'"
    while own_cluster.query(f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}") != "1":
        await asyncio.sleep(0.02)
        if writing.done():  # PostgreSQL had not heard of its new setting yet
            await writing
            writing = asyncio.ensure_future(store.write(insert(new_run(numbered(next(numbers))))))
    own_cluster.query(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {waiting}")
    with pytest.raises(DatabaseTrouble, match="canceling wait for synchronous replication") as trouble:
        await writing
    assert trouble.value.unknown
    await store.close()


@pytest.mark.parametrize(
    ("default", "used"), [("off", "on"), ("local", "on"), ("on", "on"), ("remote_apply", "remote_apply")]
)
async def test_commits_are_synced_whatever_the_default_is(
    postgres_cluster: Cluster, postgres_url: str, default: str, used: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_cluster.query(f"ALTER DATABASE {name} SET synchronous_commit = {default}")
    store = PostgresDatabase(f"{postgres_url}?synchronous_commit={default}")
    await store.open()
    for _ in range(2):
        assert await store.write(ask("SHOW synchronous_commit")) == [(used,)]
        assert store._writer is not None
        store._writer.terminate()  # and on every connection that takes its place
    await store.close()


@pytest.mark.parametrize(("fsync", "warnings"), [("off", 1), ("on", 0)])
async def test_a_server_that_does_not_sync_is_warned_of(fsync: str, warnings: int) -> None:
    class Connection:
        async def fetchval(self, query: str, *, timeout: float) -> str:
            assert query == "SHOW fsync"
            return fsync

    with structlog.testing.capture_logs() as logs:
        await postgres._warn_of_lost_writes(Connection())
    assert ["fsync=off" in entry["event"] for entry in logs] == [True] * warnings


# -- finding what takes writes -------------------------------------------------------------------------------------


async def test_a_host_that_takes_no_writes_any_longer_is_left_and_found_again(
    postgres_cluster: Cluster, postgres_url: str, store: PostgresDatabase
) -> None:
    heard: list[str] = []
    await store.listen(heard.append)
    await store.read(ask("SELECT 1"))
    name = postgres_url.rpartition("/")[2]
    await store.write(tell("SET default_transaction_read_only = on"))  # as after a failover: this connection, at once
    postgres_cluster.query(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    for said in ("cannot execute INSERT in a read-only transaction", r"PostgreSQL at 127\.0\.0\.1 is read-only"):
        with pytest.raises(DatabaseTrouble, match=said) as trouble:
            await store.write(insert(new_run()))
        assert not trouble.value.unknown
    assert store._listener is not None
    assert store._listener.is_closed()
    with pytest.raises(DatabaseTrouble, match="is read-only"):  # it may be behind by now
        await store.read(ask("SELECT 1"))

    postgres_cluster.query(f"ALTER DATABASE {name} RESET default_transaction_read_only")

    await store.write(insert(new_run()))
    assert await store.read(ask(IDS)) == [(FIRST,)]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://me:p%40ss@one:1,two:2,[::1]:3/hurlbat?sslmode=require",
        "postgresql+asyncpg://me:p%40ss@/hurlbat?sslmode=require&host=one:1&host=two:2&host=[::1]:3",
        "postgresql+asyncpg://me:p%40ss@/hurlbat?sslmode=require&host=one,two,[::1]&port=1,2,3",
    ],
)
async def test_hosts_may_be_told_in_any_of_the_usual_ways(url: str) -> None:
    asked: list[Any] = []

    async def connect(dsn: str, *, target_session_attrs: str, **_: object) -> None:
        addresses, parameters = asyncpg.connect_utils._parse_connect_dsn_and_args(
            dsn=dsn, target_session_attrs=target_session_attrs, **dict.fromkeys(_PARSED)
        )
        assert (parameters.user, parameters.password, parameters.database) == ("me", "p@ss", "hurlbat")
        assert (parameters.sslmode.name, parameters.target_session_attrs.value) == ("require", "read-write")
        asked.extend(addresses)
        raise ConnectionRefusedError("nobody there")

    with pytest.MonkeyPatch.context() as patched, pytest.raises(DatabaseTrouble) as trouble:
        patched.setattr(asyncpg, "connect", connect)
        await dial.Dial(url).connect({})
    assert [(host.strip("[]"), port) for host, port in asked] == [("one", 1), ("two", 2), ("::1", 3)]
    assert str(trouble.value).count("cannot be reached: nobody there") == 3


_PARSED = (
    *("host", "port", "user", "password", "passfile", "database", "ssl", "service", "servicefile", "direct_tls"),
    *("server_settings", "krbsrvname", "gsslib"),
)


async def test_a_host_that_is_silent_and_one_that_is_gone_do_not_hide_the_one_that_answers(
    postgres_cluster: Cluster,
    postgres_url: str,
    store: PostgresDatabase,
    proxy: Proxy,
    free_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    proxy.mode = Mode.HANG
    monkeypatch.setattr(dial, "CONNECT_SECONDS", 6.0)
    hosts = ",".join(f"127.0.0.1:{port}" for port in (proxy.port, free_port, postgres_cluster.port))
    several = PostgresDatabase(f"postgresql+asyncpg://postgres@{hosts}/{postgres_url.rpartition('/')[2]}")
    async with asyncio.timeout(PATIENCE):  # for as often as somebody stands still; one try is enough otherwise
        while not await opens_in_time(several):
            await several.close()
    monkeypatch.setattr(dial, "CONNECT_SECONDS", PATIENCE)
    await several.write(insert(new_run()))
    await several.close()
    assert await store.read(ask(IDS)) == [(FIRST,)]


async def opens_in_time(store: PostgresDatabase) -> bool:
    """Open it; tell whether a host that is silent has had its share of the time and no more."""
    began = asyncio.get_running_loop().time()
    with suppress(DatabaseTrouble):
        await store.open()
        return asyncio.get_running_loop().time() - began < dial.CONNECT_SECONDS - 0.5
    return False


@pytest.mark.parametrize(
    ("attributes", "found"), [("", "first"), ("?target_session_attrs=any", "second")], ids=["read-write", "any"]
)
async def test_of_several_hosts_the_one_is_used_that_takes_writes(
    postgres_cluster: Cluster, own_cluster: Cluster, attributes: str, found: str
) -> None:
    own_cluster.query("ALTER SYSTEM SET default_transaction_read_only = on")
    own_cluster.query("SELECT pg_reload_conf()")
    ports = {"first": postgres_cluster.port, "second": own_cluster.port}
    hosts = f"127.0.0.1:{ports['second']},127.0.0.1:{ports['first']}"
    store = PostgresDatabase(f"postgresql+asyncpg://postgres@{hosts}/postgres{attributes}")
    await store.open()
    for way in (store.write, store.read):
        assert await way(ask("SHOW port")) == [(str(ports[found]),)]
    await store.close()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("postgresql+asyncpg://postgres@no-such-host.invalid/hurlbat", "no-such-host.invalid cannot be reached: "),
        (f"postgresql+asyncpg://postgres@{'a' * 70}.invalid/hurlbat", "cannot be reached: "),
        ("postgresql+asyncpg://postgres@127.0.0.1:{port}/nowhere", 'refuses the connection: database "nowhere" does'),
        ("postgresql+asyncpg://nobody@127.0.0.1:{port}/postgres", 'refuses the connection: role "nobody" does not'),
        ("postgresql+asyncpg://postgres@127.0.0.1:{port}/postgres?oops=1", "refuses the connection: unrecognized"),
    ],
)
async def test_why_a_connection_cannot_be_had_is_said_and_may_pass(
    postgres_cluster: Cluster, url: str, sentence: str
) -> None:
    store = PostgresDatabase(url.format(port=postgres_cluster.port))
    with pytest.raises(DatabaseTrouble) as trouble:
        await store.open()
    assert sentence in str(trouble.value)


@pytest.mark.parametrize("mode", ["prefer", "disable"])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", b""])
async def test_what_is_no_postgresql_is_trouble_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, answer: bytes, mode: str
) -> None:
    monkeypatch.setattr(dial, "CONNECT_SECONDS", 1.0)

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(say, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        store = PostgresDatabase(f"postgresql+asyncpg://postgres@127.0.0.1:{port}/hurlbat?sslmode={mode}")
        with pytest.raises(DatabaseTrouble, match=r"127\.0\.0\.1"):
            await store.open()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://postgres@127.0.0.1:port/hurlbat",
        "postgresql+asyncpg://postgres@127.0.0.1/hurlbat?sslmode=perhaps",
        "postgresql+asyncpg://postgres@127.0.0.1/hurlbat?target_session_attrs=best",
    ],
)
async def test_a_url_that_no_retry_can_mend_is_refused_at_once(url: str) -> None:
    with pytest.raises(CannotOpen, match="the URL of the database cannot be"):
        await PostgresDatabase(url).open()


async def test_too_many_connections_are_trouble_for_reads_and_writes_alike(
    postgres_cluster: Cluster, postgres_url: str, store: PostgresDatabase
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_cluster.query("CREATE ROLE plain LOGIN")
    try:
        postgres_cluster.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO plain", name)
        plain = PostgresDatabase(postgres_url.replace("postgres@", "plain@"))
        await plain.open()
        postgres_cluster.query("ALTER ROLE plain CONNECTION LIMIT 0")
        assert plain._writer is not None
        plain._writer.terminate()
        for way in (plain.read, plain.write):
            with pytest.raises(DatabaseTrouble, match='refuses the connection: too many connections for role "plain"'):
                await way(ask("SELECT 1"))
        postgres_cluster.query("ALTER ROLE plain CONNECTION LIMIT 10")
        assert await plain.read(ask(IDS)) == []
        await plain.write(ask("SELECT 1"))
        await plain.close()
    finally:
        postgres_cluster.query("DROP OWNED BY plain", name)
        postgres_cluster.query("DROP ROLE plain")


async def test_a_database_that_goes_away_while_the_schema_is_made_is_no_reason_to_give_up(
    postgres_url: str, proxy: Proxy
) -> None:
    store = PostgresDatabase(by_way_of(proxy.port, postgres_url))
    await store.open()
    proxy.mode = Mode.REFUSE
    with pytest.raises(DatabaseTrouble):
        await store.prepare()
    proxy.mode = Mode.CUT_BEFORE
    with pytest.raises(DatabaseTrouble):
        await store.prepare()
    assert proxy.cuts == 1
    await store.prepare()
    await store.write(insert(new_run()))
    await store.close()


async def test_a_connection_lost_while_the_schema_is_looked_at_is_no_reason_to_give_up(
    store: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(_: object) -> None:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(postgres, "check_version", lose)
    with pytest.raises(DatabaseTrouble, match="PostgreSQL: reset by peer"):
        await store.prepare()


async def test_many_who_want_to_read_are_no_storm_on_a_database_that_is_away(
    behind: PostgresDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "REST_SECONDS", 3600.0)
    proxy.mode = Mode.REFUSE
    for _ in range(50):
        with pytest.raises(DatabaseTrouble, match="cannot be reached"):
            await behind.read(ask("SELECT 1"))
    assert proxy.connections <= 1 + 2 * 1  # the writer's; and one attempt, which asks twice: with TLS and without
    monkeypatch.setattr(dial, "REST_SECONDS", 0.0)
    behind._dial._rests_until = 0.0
    proxy.mode = Mode.PASS
    assert await behind.read(ask("SELECT 1")) == [(1,)]


# -- silence -------------------------------------------------------------------------------------------------------


async def test_every_connection_notices_a_host_that_is_gone(store: PostgresDatabase) -> None:
    await store.listen(lambda _: None)
    assert store._readers is not None
    async with store._readers.acquire() as reader:
        connections: list[Any] = [store._writer, store._listener, reader._con]
        for connection in connections:
            ours = connection._transport.get_extra_info("socket")
            assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
            idle, every, count = (
                ours.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + every * count == 5


async def test_a_network_that_swallows_everything_is_given_up_for_writes_and_reads(
    behind: PostgresDatabase, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    await behind.read(ask("SELECT 1"))
    proxy.mode = Mode.HANG
    with monkeypatch.context() as impatient:
        impatient.setattr(postgres, "TRANSACTION_SECONDS", 0.3)
        impatient.setattr(dial, "CONNECT_SECONDS", 1.0)
        async with asyncio.timeout(PATIENCE):
            for way in (behind.write, behind.read):
                for _ in range(2):  # on the connection that it has, and on a new one
                    with pytest.raises(DatabaseTrouble, match="does not answer") as trouble:
                        await way(ask("SELECT 1"))
                    assert not trouble.value.unknown
    proxy.mode = Mode.PASS
    await behind.write(insert(new_run()))
    assert await behind.read(ask(IDS)) == [(FIRST,)]


async def test_the_backend_ends_a_statement_before_we_turn_away_from_it(store: PostgresDatabase) -> None:
    """Or it would hold its locks for as long as it likes."""
    for way in (store.write, store.read):
        assert await way(ask("SHOW statement_timeout")) == [("25s",)]
    assert postgres.STATEMENT_SECONDS > 25

    def script() -> Script[None]:
        yield from tell("SET LOCAL statement_timeout = 200")
        yield from ask("SELECT pg_sleep(60)")

    writer = store._writer
    with pytest.raises(DatabaseTrouble, match="canceling statement due to statement timeout") as trouble:
        await store.write(script())
    assert not trouble.value.unknown
    await store.write(insert(new_run()))
    assert store._writer is writer


async def test_a_migration_takes_the_time_that_it_takes(store: PostgresDatabase) -> None:
    connection: asyncpg.Connection = await store._dial.connect(postgres._MIGRATING)
    assert await connection.fetchval("SHOW statement_timeout") == "0"
    await connection.close()

"""The checkup finds each broken promise in the rows of either database, and nothing where all is well."""

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import CannotOpen, Finding, Severity, examine
from hurlbat_dispatcher.checkup import Code, gathered, strict_checkup
from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.beside import is_served
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.migrate import scripts
from tests.engine.far_side import Call
from tests.engine.planted import (
    DELAYED,
    FAILED,
    IN_LANE_7,
    LATER,
    LONG_AGO,
    ME,
    NOW,
    OF_THE_DATABASE,
    OVERDUE,
    PLANTS,
    RUNS,
    WAITS,
    lane,
    limit,
    put,
    task,
    use,
    well,
    worker,
)
from tests.engine.world import World, settings_for
from tests.store.rows import insert, new_run, tell
from tests.support.postgres import Cluster

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Database]:
    """A healthy database that a server holds open."""
    opened = database(database_url, SystemClock())
    await opened.open()
    await opened.migrate()
    await opened.write(well())
    yield opened
    await opened.write(well())
    await opened.close()


def forget_lock(store: Database) -> None:
    """Take a SQLite file's lock away, as if nobody had opened it."""
    if store.file is not None:
        Path(f"{store.file}.lock").unlink()


async def found_in(url: str, **more: Any) -> list[Finding]:
    """Return what the doctor finds."""
    return list((await examine(settings_for(url), **more)).findings)


# -- what is found ---------------------------------------------------------------------------------------------------


async def test_nothing_is_found_where_all_is_well(store: Database, database_url: str) -> None:
    found = await examine(settings_for(database_url))

    assert found.findings == ()
    assert await store.read(strict_checkup()) == []
    [only] = found.servers
    assert (only.id, only.alive, only.owner, found.epoch) == (ME, True, True, 3)
    assert (found.runs, found.whole, found.running) == (9, True, 2)
    assert found.waits[0] == "1 run waits for room: 1 of echo (w is 2 of 2 slots used)."
    assert re.fullmatch(r"1 run waits for a time; the first is due in \d+ s\.", found.waits[1])


async def test_each_broken_promise_is_found_alone_and_told(store: Database, database_url: str) -> None:
    for planted in PLANTS:
        await store.write(well())
        await store.write(tell(*planted.sql))

        [finding] = [one for one in await found_in(database_url) if one.severity is Severity.VIOLATION]

        assert (finding.code, finding.subject) == (planted.code, planted.subject)
        assert planted.words in finding.sentence
        assert [one.code for one in await store.read(strict_checkup())] == [planted.code]


async def test_what_should_have_happened_is_found_alone_and_is_a_warning(store: Database, database_url: str) -> None:
    for planted in OVERDUE:
        await store.write(well())
        await store.write(tell(*planted.sql))

        [finding] = await found_in(database_url)

        assert (finding.code, finding.subject, finding.severity) == (planted.code, planted.subject, Severity.WARNING)
        assert planted.words in finding.sentence


def test_everything_that_can_be_found_is_planted_here() -> None:
    assert {planted.code for planted in PLANTS + OVERDUE} | OF_THE_DATABASE == set(Code)


async def test_nobody_is_blamed_for_being_late_where_no_server_is_alive(store: Database, database_url: str) -> None:
    await store.write(tell(put(DELAYED, due_at=LONG_AGO), f"UPDATE dispatcher SET lease_until = {LONG_AGO}"))
    forget_lock(store)
    found = await examine(settings_for(database_url))
    assert ([server.alive for server in found.servers], found.findings) == ([False], ())


async def test_what_was_started_before_a_limit_was_lowered_is_no_fault(store: Database, database_url: str) -> None:
    rule = '{"concurrency":[{"key":"input","max_runs":1,"name":"one"}]}'
    await store.write(tell(task("echo", rule, NOW), lane(7, '{"groups":[["name:one","a"]]}'), IN_LANE_7))
    await store.write(tell(limit(4, NOW), use("static:slow", 5)))
    assert await found_in(database_url) == []


async def test_what_may_wait_for_a_key_is_not_late(store: Database, database_url: str) -> None:
    await store.write(tell(worker("idle"), lane(7, '{"rates":[["a",1,3,60000]]}'), put(WAITS, due_at=LONG_AGO, lane=7)))
    assert await found_in(database_url) == []


async def test_a_strict_checkup_takes_lowered_slots_for_a_broken_promise(store: Database) -> None:
    await store.write(tell(f"UPDATE worker SET slots = 1, updated_at = {LATER}"))
    assert [one.code for one in await store.read(strict_checkup())] == [Code.SLOTS_OVERSOLD]


async def test_of_a_large_database_what_is_under_way_or_late_is_still_looked_at(
    store: Database, database_url: str
) -> None:
    newest = [f"0199a3c0-0000-7000-8000-0000000001{n:02}" for n in range(20)]
    await store.write(insert(*(new_run(run_id, created_at=NOW, due_at=NOW) for run_id in newest)))
    await store.write(
        tell(put(RUNS, finished_at=NOW), put(newest[9], ready=0, due_at=LONG_AGO), put(FAILED, lease_until=LATER))
    )

    found = await examine(settings_for(database_url), most=5)

    assert {one.code for one in found.findings} == {Code.OPEN_WITH_END, Code.DUE_NOT_SEEN}
    assert (found.whole, found.waits[0].partition(" ")[0]) == (False, "20")
    assert {one.code for one in await found_in(database_url)} == {
        Code.OPEN_WITH_END,
        Code.DUE_NOT_SEEN,
        Code.ENDED_WITH_LEASE,
    }


def test_of_many_findings_of_a_kind_some_are_shown_and_the_others_counted() -> None:
    many = [Finding(Code.TOLD_AHEAD, Severity.VIOLATION, str(n), f"run {n}") for n in range(25)]
    shown = gathered([*many, Finding(Code.CLOCK_OFF, Severity.WARNING, None, "off")])
    assert [finding.subject for finding in shown[:10]] == [str(n) for n in range(10)]
    assert [finding.sentence for finding in shown[10:]] == ["and 15 more of this kind (told_ahead)", "off"]


# -- a live engine ---------------------------------------------------------------------------------------------------


async def test_a_life_with_retries_cancels_and_replays_breaks_nothing(world: World) -> None:
    often = {"name": "often", "retries": 2, "backoff": {"strategy": "fixed", "initial": 0, "jitter": False}}
    worker = await world.worker("w", "echo", often, slots=4)

    async def fail_first(call: Call) -> str | FailedLine:
        return call.failed() if call.task == "often" and call.attempt < 3 else "1"

    worker.work = fail_first
    ended = await world.ended(await world.submit("often", idempotency_key="k", idempotency_ttl=3600.0))
    await world.ended((await world.engine.replay_run(ended.id)).id)
    await world.submit("echo", delay=3600.0, idempotency_key="delayed")
    worker.work = worker.held
    held = await world.submit("echo")
    await world.until(lambda: (held.id, 1) in worker.open)
    worker.stops = False
    stopping = await world.submit("echo")
    await world.until(lambda: (stopping.id, 1) in worker.open)
    await world.engine.cancel_run(stopping.id)

    found = await examine(world.settings)

    assert found.findings == ()
    assert (found.runs, found.running, [server.alive for server in found.servers]) == (4, 1, [True])
    worker.gate.set()
    await world.ended(held)


# -- the database itself ---------------------------------------------------------------------------------------------


class Skewed(SystemClock):
    """A clock that is wrong by so many ms."""

    def __init__(self, by: int) -> None:
        self._by = by

    def now_ms(self) -> int:
        return super().now_ms() + self._by


@pytest.mark.parametrize(("by", "words"), [(-3_600_000, "3600 s ahead of this"), (3_600_000, "3600 s behind this")])
async def test_a_clock_that_is_off_is_told_with_its_direction(postgres_url: str, by: int, words: str) -> None:
    [finding] = await found_in(postgres_url, clock=Skewed(by))
    assert (finding.code, finding.severity) == (Code.CLOCK_OFF, Severity.WARNING)
    assert words in finding.sentence
    assert await found_in(postgres_url, clock=Skewed(2_000)) == []


async def test_a_database_that_acknowledges_what_is_not_on_disk_is_warned_of(
    postgres_cluster: Cluster, postgres_url: str
) -> None:
    name = postgres_url.rpartition("/")[2]
    postgres_cluster.query(f"ALTER DATABASE {name} SET synchronous_commit = off", name)
    try:
        [finding] = await found_in(postgres_url)
    finally:
        postgres_cluster.query(f"ALTER DATABASE {name} RESET synchronous_commit", name)
    assert (finding.code, finding.severity) == (Code.NOT_DURABLE, Severity.WARNING)
    assert "synchronous_commit off" in finding.sentence


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("9999", "version 9999) is newer"),
        (scripts().get_base(), "is older than this version"),
        (None, "it has no schema"),
    ],
)
async def test_a_schema_of_another_version_is_not_looked_at(
    store: Database, database_url: str, version: str | None, words: str
) -> None:
    change = (
        "DELETE FROM alembic_version" if version is None else f"UPDATE alembic_version SET version_num = '{version}'"
    )
    await store.write(tell(change))
    try:
        with pytest.raises(CannotOpen, match=words.replace(")", r"\)")):
            await found_in(database_url)
    finally:
        await store.write(tell("DELETE FROM alembic_version"))
        await store.write(tell(f"INSERT INTO alembic_version (version_num) VALUES ('{scripts().get_current_head()}')"))


async def test_an_empty_database_has_no_schema_and_is_left_without_one(
    postgres_cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "empty.db").touch()
    with postgres_cluster.database() as name:
        for url in (postgres_cluster.url(name), f"sqlite+aiosqlite:///{tmp_path / 'empty.db'}"):
            with pytest.raises(CannotOpen, match="it has no schema; start a server on it to make one"):
                await found_in(url)
        assert postgres_cluster.query("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", name) == "0"
    assert (tmp_path / "empty.db").stat().st_size == 0


# -- a file ----------------------------------------------------------------------------------------------------------


def files_in(folder: Path) -> dict[str, str]:
    """Return the files of a folder with the digests of what is in them."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(CannotOpen, match="there is no database at"):
        await found_in(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}")
    assert files_in(tmp_path) == {}


async def test_something_else_than_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("dear diary " * 100)
    with pytest.raises(CannotOpen, match="file is not a database"):
        await found_in(f"sqlite+aiosqlite:///{tmp_path / 'text.db'}")


async def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(CannotOpen, match="in memory"):
        await found_in("sqlite+aiosqlite:///:memory:")


async def test_a_file_whose_server_stopped_is_read_and_nothing_is_left_beside_it(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with World(sqlite_url) as world:
        await world.worker()
        await world.ended(await world.submit())
    before = files_in(tmp_path)
    found = await examine(settings_for(sqlite_url))
    assert (found.runs, found.findings, found.servers) == (1, (), ())
    assert files_in(tmp_path) == before
    assert "hurlbat.db-wal" not in before


async def test_a_file_whose_server_works_is_read_as_it_is_now_and_the_server_keeps_its_lock(
    local: World, tmp_path: Path
) -> None:
    path = str(tmp_path / "hurlbat.db")
    await local.worker()
    for count in (1, 2):
        await local.ended(await local.submit())
        assert (await examine(local.settings)).runs == count
    assert is_served(path) is True
    await local.engine.stop(0)
    assert is_served(path) is False
    await local.restart()


async def test_a_script_that_takes_too_long_is_given_up(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(sqlite_url):
        monkeypatch.setattr("hurlbat_dispatcher.examination.LOOK_SECONDS", -1.0)
        monkeypatch.setattr("hurlbat_dispatcher.store.beside.STEPS", 1)
        with pytest.raises(Exception, match="took longer than"):
            await found_in(sqlite_url)

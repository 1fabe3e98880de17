"""SQLite in trouble: full, busy, read-only, removed. What fails is not there, unless it says that it may be."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.store.sqlite import SqliteDatabase, transact
from tests.store.rows import FIRST, ask, insert, new_run
from tests.support.processes import ROOT

pytestmark = pytest.mark.anyio

SECOND, THIRD = (FIRST[:-1] + last for last in "23")
IDS = "SELECT id FROM run ORDER BY id"
LARGE = '"' + "x" * 200_000 + '"'


@pytest.fixture
async def store(sqlite_url: str) -> AsyncIterator[SqliteDatabase]:
    opened = SqliteDatabase(sqlite_url, SystemClock())
    await opened.open()
    await opened.migrate()
    yield opened
    await opened.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size: the kernel refuses it as it does on a quota."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_database_is_trouble_that_is_known_and_passes(store: SqliteDatabase) -> None:
    await store.write(insert(new_run()))
    thread = store._write_thread
    assert thread is not None
    [(pages,)] = await store.read(ask("PRAGMA page_count"))
    await thread.execute(f"PRAGMA max_page_count={pages + 2}")

    with pytest.raises(DatabaseTrouble, match="SQLite: database or disk is full") as trouble:
        await store.write(insert(new_run(SECOND), new_run(THIRD, input=LARGE)))

    assert not trouble.value.unknown
    assert await store.read(ask(IDS)) == [(FIRST,)]
    await thread.execute("PRAGMA max_page_count=1000000")
    await store.write(insert(new_run(SECOND)))
    assert await store.read(ask(IDS)) == [(FIRST,), (SECOND,)]


async def test_a_commit_that_the_disk_does_not_take_is_trouble_that_is_known_and_passes(
    store: SqliteDatabase, tmp_path: Path
) -> None:
    await store.write(insert(new_run()))
    with largest_file((tmp_path / "hurlbat.db-wal").stat().st_size + 4096):
        with pytest.raises(DatabaseTrouble, match="SQLite: disk I/O error") as trouble:
            await store.write(insert(new_run(SECOND, input=LARGE)))

        assert not trouble.value.unknown
        assert await store.read(ask(IDS)) == [(FIRST,)]
    await store.write(insert(new_run(THIRD)))
    assert await store.read(ask(IDS)) == [(FIRST,), (THIRD,)]


async def test_what_a_full_disk_refused_is_not_there_after_a_crash_either(sqlite_url: str, tmp_path: Path) -> None:
    code = (
        "import asyncio, os, resource, signal\n"
        "from hurlbat_dispatcher.clock import SystemClock\n"
        "from hurlbat_dispatcher.store.database import DatabaseTrouble\n"
        "from hurlbat_dispatcher.store.sqlite import SqliteDatabase\n"
        "from tests.store.rows import insert, new_run\n"
        "async def main():\n"
        f"    store = SqliteDatabase({sqlite_url!r}, SystemClock())\n"
        "    await store.open()\n"
        "    await store.migrate()\n"
        "    await store.write(insert(new_run()))\n"
        f"    size = os.stat({str(tmp_path / 'hurlbat.db-wal')!r}).st_size\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4096, size + 4096))\n"
        "    try:\n"
        f"        await store.write(insert(new_run({SECOND!r}, input='\"' + 'x' * 200_000 + '\"')))\n"
        "    except DatabaseTrouble as trouble:\n"
        "        print(trouble, trouble.unknown, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        text=True,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("SQLite: disk I/O error False\n", -signal.SIGKILL), done.stderr

    found = sqlite3.connect(tmp_path / "hurlbat.db")
    assert found.execute(IDS).fetchall() == [(FIRST,)]
    found.close()


class Disk(sqlite3.Connection):
    """A connection whose next commit fails with a code, as SQLite says it."""

    fails_with: str | None = None
    rollback_fails = False

    def execute(self, sql: str, *more: Any) -> sqlite3.Cursor:
        if sql == "ROLLBACK" and self.rollback_fails:
            self.rollback_fails = False
            raise _error("SQLITE_IOERR_READ")
        if sql == "COMMIT" and self.fails_with is not None:
            code, self.fails_with = self.fails_with, None
            raise _error(code)
        return super().execute(sql, *more)


def _error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = getattr(sqlite3, name)
    return error


@pytest.fixture
def disk(store: SqliteDatabase, tmp_path: Path) -> Iterator[Disk]:
    connection = sqlite3.connect(tmp_path / "hurlbat.db", factory=Disk, isolation_level=None)
    yield connection
    connection.close()


@pytest.mark.parametrize(
    ("code", "unknown"),
    [
        ("SQLITE_IOERR_FSYNC", True),  # the commit stands in the file, and may be found there after a crash
        ("SQLITE_IOERR_DIR_FSYNC", True),
        ("SQLITE_IOERR", True),
        ("SQLITE_IOERR_WRITE", False),
        ("SQLITE_FULL", False),
        ("SQLITE_BUSY", False),
    ],
)
async def test_a_failed_commit_is_of_unknown_outcome_only_where_it_may_be_found_later(
    store: SqliteDatabase, disk: Disk, code: str, unknown: bool
) -> None:
    disk.fails_with = code
    dialect = store._engine_or_trouble().dialect

    with pytest.raises((DatabaseTrouble, sqlite3.OperationalError)) as error:
        transact(disk, dialect, insert(new_run()), "BEGIN IMMEDIATE", "COMMIT")

    assert getattr(error.value, "unknown", False) == unknown
    assert not disk.in_transaction
    assert await store.read(ask(IDS)) == []


async def test_a_rollback_that_fails_is_made_up_for(store: SqliteDatabase, disk: Disk) -> None:
    disk.fails_with, disk.rollback_fails = "SQLITE_IOERR_WRITE", True
    dialect = store._engine_or_trouble().dialect
    with pytest.raises(sqlite3.OperationalError):
        transact(disk, dialect, insert(new_run()), "BEGIN IMMEDIATE", "COMMIT")
    assert disk.in_transaction

    transact(disk, dialect, insert(new_run(SECOND)), "BEGIN IMMEDIATE", "COMMIT")

    assert await store.read(ask(IDS)) == [(SECOND,)]


async def test_a_file_made_read_only_is_trouble_that_passes(store: SqliteDatabase) -> None:
    thread = store._write_thread
    assert thread is not None
    await thread.execute("PRAGMA query_only=on")
    with pytest.raises(DatabaseTrouble, match="attempt to write a readonly database") as trouble:
        await store.write(insert(new_run()))
    assert not trouble.value.unknown
    await thread.execute("PRAGMA query_only=off")
    await store.write(insert(new_run()))


@pytest.mark.parametrize("lost", ["hurlbat.db", "hurlbat.db-wal"])
async def test_nothing_is_written_to_a_file_that_was_removed(store: SqliteDatabase, tmp_path: Path, lost: str) -> None:
    """Its space is given back when the process ends, and with it whatever was acknowledged."""
    await store.write(insert(new_run()))
    (tmp_path / lost).rename(tmp_path / "elsewhere")
    with pytest.raises(DatabaseTrouble, match=f"{lost} was moved or removed; put it back, or restart"):
        await store.write(insert(new_run(SECOND)))
    (tmp_path / lost).write_bytes(b"")
    with pytest.raises(DatabaseTrouble, match="was moved or removed"):
        await store.write(insert(new_run(SECOND)))

    (tmp_path / "elsewhere").replace(tmp_path / lost)

    await store.write(insert(new_run(THIRD)))
    assert await store.read(ask(IDS)) == [(FIRST,), (THIRD,)]


async def test_trouble_while_the_schema_is_made_is_no_reason_to_give_up(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.store.sqlite._PRAGMAS", ("journal_mode=wal", "busy_timeout=1"))
    store = SqliteDatabase(sqlite_url, SystemClock())
    await store.open()
    other = sqlite3.connect(tmp_path / "hurlbat.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseTrouble, match="SQLite: database is locked"):
        await store.prepare()
    other.execute("ROLLBACK")
    other.close()
    await store.prepare()
    await store.write(insert(new_run()))
    await store.close()


async def test_no_room_for_the_file_is_trouble_and_no_reason_to_give_up(sqlite_url: str) -> None:
    store = SqliteDatabase(sqlite_url, SystemClock())
    with largest_file(1), pytest.raises(DatabaseTrouble, match="cannot be opened: disk I/O error"):
        await store.open()
    await store.open()
    await store.prepare()
    await store.close()

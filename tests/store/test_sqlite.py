"""What only SQLite has: a file with a lock, and settings that make a commit durable."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hurlbat_dispatcher.clock import SystemClock
from hurlbat_dispatcher.store.database import CannotOpen, DatabaseTrouble
from hurlbat_dispatcher.store.sqlite import SqliteDatabase
from hurlbat_dispatcher.store.statement import Script
from tests.store.rows import ask, tell

pytestmark = pytest.mark.anyio


async def opened(url: str) -> SqliteDatabase:
    store = SqliteDatabase(url, SystemClock())
    await store.open()
    await store.migrate()
    return store


async def test_a_commit_is_synced_and_the_journal_is_written_ahead(sqlite_url: str) -> None:
    store = await opened(sqlite_url)
    for thread in (store._write_thread, store._read_thread):
        assert thread is not None
        settings = {}
        for name in ("synchronous", "journal_mode", "foreign_keys", "busy_timeout"):
            async with thread.execute(f"PRAGMA {name}") as cursor:
                row = await cursor.fetchone()
                assert row is not None
                settings[name] = row[0]
        assert settings == {"synchronous": 2, "journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
    await store.close()


async def test_a_second_server_is_refused_and_the_file_is_free_after_the_first(sqlite_url: str) -> None:
    first, second = await opened(sqlite_url), SqliteDatabase(sqlite_url, SystemClock())
    with pytest.raises(CannotOpen, match=r"another server uses .*; stop it, or let several servers share a PostgreSQL"):
        await second.open()
    await first.close()
    await second.open()
    await second.close()


async def test_the_lock_dies_with_its_process_however_that_ends(sqlite_url: str) -> None:
    code = (
        "import asyncio, os, signal\n"
        "from hurlbat_dispatcher.clock import SystemClock\n"
        "from hurlbat_dispatcher.store.sqlite import SqliteDatabase\n"
        f"asyncio.run(SqliteDatabase({sqlite_url!r}, SystemClock()).open())\n"
        "print('locked', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"locked\n", -9)
    await (await opened(sqlite_url)).close()


async def test_the_lock_is_for_its_owner_alone(sqlite_url: str, tmp_path: Path) -> None:
    store = await opened(sqlite_url)
    assert stat.S_IMODE(os.stat(tmp_path / "hurlbat.db.lock").st_mode) == 0o600
    await store.close()


async def test_a_file_that_is_no_database_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "hurlbat.db").write_bytes(b"this is no database at all, " * 100)
    store = SqliteDatabase(f"sqlite+aiosqlite:///{tmp_path / 'hurlbat.db'}", SystemClock())
    with pytest.raises(CannotOpen, match="cannot be opened: file is not a database"):
        await store.open()


async def test_a_folder_that_cannot_be_made_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteDatabase(f"sqlite+aiosqlite:///{tmp_path / 'file' / 'hurlbat.db'}", SystemClock())
    with pytest.raises(CannotOpen, match="cannot be written"):
        await store.open()


async def test_another_program_that_holds_the_file_is_trouble_that_passes(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.store.sqlite._PRAGMAS", ("journal_mode=wal", "busy_timeout=1"))
    store = await opened(sqlite_url)
    intruder = SqliteDatabase(sqlite_url, SystemClock(), lock=False)
    await intruder.open()
    assert intruder._write_thread is not None
    await intruder._write_thread.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseTrouble, match="locked"):
        await store.write(tell("UPDATE shard SET epoch = 1"))
    await intruder._write_thread.execute("ROLLBACK")
    await intruder.close()
    await store.write(tell("UPDATE shard SET epoch = 2"))
    assert await store.read(ask("SELECT epoch FROM shard")) == [(2,)]
    await store.close()


async def test_a_script_has_the_file_to_itself_from_its_first_read_on(sqlite_url: str, tmp_path: Path) -> None:
    """Or what it decides from could be changed before it writes."""
    store = await opened(sqlite_url)
    intruder = sqlite3.connect(tmp_path / "hurlbat.db", timeout=0, isolation_level=None, check_same_thread=False)

    def script() -> Script[None]:
        yield from ask("SELECT epoch FROM shard")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            intruder.execute("BEGIN IMMEDIATE")

    await store.write(script())
    intruder.execute("BEGIN IMMEDIATE")
    intruder.close()
    await store.close()


async def test_the_time_is_the_injected_clocks(sqlite_url: str) -> None:
    class Standing(SystemClock):
        def now_ms(self) -> int:
            return 42

    store = SqliteDatabase(sqlite_url, Standing())
    await store.open()
    assert await store.read(ask("SELECT hurlbat_now()")) == [(42,)]
    await store.close()

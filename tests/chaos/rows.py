"""What the database says, read with SQL from outside and with none of the product's own code."""

import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg

from tests.chaos.history import CHARGED, MAY_HAVE_RUN, NEVER_RAN, REPLAYED, Ending, Row, Run

_FINAL: Final = "state IN ('completed', 'failed', 'cancelled', 'skipped')"
_ENDINGS: Final = f"SELECT id, state, finished_at FROM run WHERE {_FINAL}"
_OPEN: Final = f"SELECT state, count(*) FROM run WHERE NOT {_FINAL} GROUP BY state"
_RUNS: Final = """SELECT id, task, state, attempt, tries, max_attempts, created_at, finished_at, input, output, error
    FROM run ORDER BY id"""
_TIMELINE: Final = "SELECT run, at, kind, attempt, detail FROM timeline ORDER BY n"
_OWNER: Final = "SELECT owner FROM shard"
_KINDS: Final = MAY_HAVE_RUN | NEVER_RAN | {CHARGED, REPLAYED}

Record = tuple[Any, ...]
PATIENCE: Final = 90.0
"""Seconds until a database that is there, and stands still, counts as away."""


class Away(Exception):
    """The database does not answer now."""


class Rows(Protocol):
    """A way to ask the database. Raises `Away`."""

    async def ask(self, sql: str) -> list[Record]:
        """Return the rows."""
        ...


class PostgresRows:
    """A PostgreSQL; `url` is asked for at every question, as a restart may move it."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    async def ask(self, sql: str) -> list[Record]:
        """Return the rows, by a connection of its own."""
        try:
            connection = await asyncpg.connect(self._url().replace("+asyncpg", ""), timeout=PATIENCE)
            try:
                return [tuple(record) for record in await connection.fetch(sql, timeout=PATIENCE)]
            finally:
                await connection.close(timeout=PATIENCE)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Away(str(error)) from error


class SqliteRows:
    """A SQLite file that a server may be writing to."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def ask(self, sql: str) -> list[Record]:
        """Return the rows."""
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=PATIENCE)) as connection:
                return connection.execute(sql).fetchall()
        except sqlite3.OperationalError as error:
            raise Away(str(error)) from error


async def endings(rows: Rows) -> dict[str, Ending]:
    """Return how each run that has ended stands."""
    return {str(run_id): Ending(state, at / 1000) for run_id, state, at in await rows.ask(_ENDINGS)}


async def unfinished(rows: Rows) -> dict[str, int]:
    """Return how many runs have not ended, by state."""
    return dict(await rows.ask(_OPEN))


async def owner_of_lanes(rows: Rows) -> str | None:
    """Return the id of the server that owns the lanes."""
    [(name,)] = await rows.ask(_OWNER)
    return None if name is None else str(name)


async def runs(rows: Rows) -> list[Run]:
    """Return every run with its timeline."""
    timelines: dict[str, list[Row]] = {}
    for run_id, at, kind, attempt, detail in await rows.ask(_TIMELINE):
        if kind in _KINDS:
            timelines.setdefault(str(run_id), []).append(_row(at, kind, attempt, json.loads(detail)))
    return [_run(record, tuple(timelines.get(str(record[0]), ()))) for record in await rows.ask(_RUNS)]


def _row(at: int, kind: str, attempt: int, detail: Mapping[str, Any]) -> Row:
    code = None if kind == REPLAYED else detail.get("code")
    return Row(at / 1000, kind, attempt, code, _seconds(detail.get("due_at")), _seconds(detail.get("finished_at")))


def _run(record: Record, rows: tuple[Row, ...]) -> Run:
    run_id, task, state, attempt, tries, max_attempts, created_at, finished_at, wanted, output, error = record
    done = json.loads(output or "null")
    return Run(
        str(run_id),
        json.loads(wanted)["number"],
        task,
        state,
        attempt,
        tries,
        max_attempts,
        created_at / 1000,
        _seconds(finished_at),
        json.loads(error)["code"] if error and state == "failed" else None,
        done["attempt"] if done else None,
        rows,
    )


def _seconds(millis: int | None) -> float | None:
    return None if millis is None else millis / 1000

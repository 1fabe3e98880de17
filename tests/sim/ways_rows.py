"""What is committed of schedules and events, seen from outside the engine."""

import json
import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple


class ScheduleRow(NamedTuple):
    """A schedule as it is stored. Times are ms."""

    name: str
    task: str
    expression: str | None
    timezone: str
    run_at: int | None
    paused: int
    missed: str
    overlap: str
    next_at: int | None


class FireRow(NamedTuple):
    """What came of a due time, as it is stored."""

    schedule: str
    due_at: int
    manual: int
    fired_at: int
    outcome: str
    run: str | None
    reason: str | None


class EventRow(NamedTuple):
    """An event as it is stored."""

    id: str
    key: str
    scope: str | None
    payload: str
    replay_of: str | None
    created_at: int


class StartRow(NamedTuple):
    """One who listened to an event, as it is stored."""

    event: str
    n: int
    task: str
    filter: str | None
    outcome: str
    run: str | None
    reason: str | None


TABLES: Final = ("schedule", "schedule_fire", "event", "event_start", "worker")


class WaysReader:
    """Reads what commits have changed of schedules, fires, events and starts."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._cursor.execute("CREATE TEMP TABLE ways_touched (what TEXT, id INTEGER, deed TEXT)")
        for table in TABLES:
            for event, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):
                self._cursor.execute(
                    f"CREATE TEMP TRIGGER ways_{table}_{event} AFTER {event} ON main.{table} "
                    f"BEGIN INSERT INTO ways_touched VALUES ('{table}', {row}.rowid, '{event}'); END"
                )

    def touched(self) -> dict[str, list[tuple[int, str]]]:
        """Return which rows the last commit touched, by table: where they are, and what was done."""
        rows = self._cursor.execute("SELECT what, id, deed FROM temp.ways_touched").fetchall()
        if not rows:
            return {}
        self._cursor.execute("DELETE FROM temp.ways_touched")
        found: dict[str, list[tuple[int, str]]] = {}
        for what, place, deed in rows:
            found.setdefault(what, []).append((place, deed))
        return found

    def served(self) -> frozenset[str]:
        """Return the tasks that some registered worker serves."""
        rows = self._cursor.execute("SELECT tasks FROM worker").fetchall()
        return frozenset(task for row in rows for task in json.loads(row[0] or "[]"))

    def schedules(self) -> dict[str, ScheduleRow]:
        """Return all schedules as they are stored."""
        names = ", ".join(ScheduleRow._fields)
        rows = self._cursor.execute(f"SELECT {names} FROM schedule ORDER BY name").fetchall()
        return {row[0]: ScheduleRow._make(row) for row in rows}

    def fires(self, places: Sequence[int]) -> list[FireRow]:
        """Return these fires."""
        return [FireRow._make(row) for row in self._at("schedule_fire", FireRow._fields, places)]

    def events(self, places: Sequence[int]) -> list[EventRow]:
        """Return these events."""
        return [EventRow._make(row) for row in self._at("event", EventRow._fields, places)]

    def starts(self, places: Sequence[int]) -> list[StartRow]:
        """Return these who listened."""
        return [StartRow._make(row) for row in self._at("event_start", StartRow._fields, places)]

    def _at(self, table: str, names: Sequence[str], places: Sequence[int]) -> list[tuple[object, ...]]:
        marks = ", ".join("?" * len(places))
        columns = ", ".join(names)
        sql = f"SELECT {columns} FROM {table} WHERE rowid IN ({marks}) ORDER BY rowid"
        return self._cursor.execute(sql, tuple(places)).fetchall()

"""What is in force, as it is committed: rules of tasks, rate limits, and pauses; now, and what it was a while ago."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple

TABLES: Final = ("task", "rate_limit", "rate_pause")


class Rate(NamedTuple):
    """Units of a rate limit. `limit` and `duration` (ms) are 0 where they are put and not brought along."""

    key: str
    units: int
    limit: int
    duration: int

    @property
    def name(self) -> str:
        """What it is paused by."""
        return f"{'dynamic' if self.duration else 'static'}:{self.key}"


class Draws(NamedTuple):
    """What the runs of a lane draw on: slots, groups (rule, value), and rate limits."""

    cost: int
    groups: tuple[tuple[str, str], ...]
    rates: tuple[Rate, ...]


class Cap(NamedTuple):
    """What a concurrency rule says, of all tasks that have it."""

    max_runs: int
    strategy: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What is in force from a moment on (ms)."""

    since: int
    rules: Mapping[str, Cap] = field(default_factory=dict)
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Units and duration (ms) of static rate limits."""
    paused_keys: Mapping[str, int | None] = field(default_factory=dict)
    paused_tasks: frozenset[str] = frozenset()


class Book:
    """All terms that there were. `settled` says from when on (ms) every server that matters knows the newest."""

    def __init__(self, connection: sqlite3.Connection, settle: int) -> None:
        self._cursor = connection.cursor()
        self._settle = settle
        self.all: list[Terms] = [Terms(-1)]
        self.settled = -1
        self._cursor.execute("CREATE TEMP TABLE terms_touched (at INTEGER PRIMARY KEY)")
        for table in TABLES:
            for event in ("INSERT", "UPDATE", "DELETE"):
                self._cursor.execute(
                    f"CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} "
                    "BEGIN INSERT INTO terms_touched SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM terms_touched); END"
                )

    def committed(self, now: int) -> None:
        """Read what has changed, if anything has."""
        if self._cursor.execute("SELECT 1 FROM temp.terms_touched").fetchone() is None:
            return
        self._cursor.execute("DELETE FROM temp.terms_touched")
        rules: dict[str, Cap] = {}
        paused = set()
        for name, policy, held in self._cursor.execute(
            "SELECT name, policy, paused FROM task ORDER BY name"
        ).fetchall():
            if held:
                paused.add(name)
            for rule in json.loads(policy)["concurrency"]:
                own = f"name:{rule['name']}" if rule["name"] is not None else f"task:{name}:{rule['key']}"
                known = rules.get(own)
                most = rule["max_runs"] if known is None else min(known.max_runs, rule["max_runs"])
                rules[own] = Cap(most, rule["strategy"])
        limits = {
            row[0]: (row[1], row[2]) for row in self._cursor.execute("SELECT key, most, duration FROM rate_limit")
        }
        pauses = dict(self._cursor.execute("SELECT key, until FROM rate_pause").fetchall())
        self.all.append(Terms(now, rules, limits, pauses, frozenset(paused)))

    @property
    def newest(self) -> Terms:
        """What was committed last."""
        return self.all[-1]

    def possible(self, now: int, back: int = 0) -> Sequence[Terms]:
        """Return all terms that the server which starts runs may go by, or did in the last `back` ms."""
        since = max(now - self._settle, self.settled) - back
        found = [self.all[-1]]
        for older, newer in zip(reversed(self.all[:-1]), reversed(self.all), strict=False):
            if newer.since <= since:
                break
            found.append(older)
        return found

    def units_stored(self, name: str, duration: int, now: int) -> int:
        """Return the units that are stored as started within the duration."""
        sql = "SELECT coalesce(sum(units), 0) FROM rate_use WHERE key = ? AND duration = ? AND last + duration > ?"
        return int(self._cursor.execute(sql, (name, duration, now)).fetchone()[0])

    def draws(self, lane: int) -> Draws | None:
        """Return what the runs of a lane draw on, or None for one that is not there."""
        row = self._cursor.execute("SELECT draws FROM lane WHERE id = ?", (lane,)).fetchone()
        return None if row is None else _read(row[0])

    def kinds(self, run_id: str, attempt: int) -> set[str]:
        """Return the kinds of what the timeline tells of an attempt."""
        sql = "SELECT kind FROM timeline WHERE run = ? AND attempt = ?"
        return {row[0] for row in self._cursor.execute(sql, (run_id, attempt)).fetchall()}

    def displaced(self, run_id: str) -> Mapping[str, Any] | None:
        """Return what the timeline says last of why a rule cancelled a run."""
        sql = "SELECT detail FROM timeline WHERE run = ? AND kind = 'displaced' ORDER BY n DESC LIMIT 1"
        row = self._cursor.execute(sql, (run_id,)).fetchone()
        return None if row is None else json.loads(row[0])

    def workers(self) -> list[tuple[str, str, int, list[str]]]:
        """Return the workers: name, state, slots, tasks."""
        rows = self._cursor.execute("SELECT name, state, slots, tasks FROM worker ORDER BY name").fetchall()
        return [(row[0], row[1], row[2], json.loads(row[3])) for row in rows]


@cache
def _read(text: str) -> Draws:
    said = json.loads(text)
    groups = tuple((rule, value) for rule, value in said.get("groups", ()))
    return Draws(said.get("cost", 1), groups, tuple(Rate(*one) for one in said.get("rates", ())))

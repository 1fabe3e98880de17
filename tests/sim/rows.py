"""What is committed, seen from outside the engine: which runs a transaction changed, and who holds which lease.

Triggers of the checker's own note the ids that a transaction touches, in a temporary table that is rolled back with it,
so that looking costs what changed and not what there is.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

FINAL: Final = frozenset({"completed", "failed", "cancelled", "skipped"})


class Row(NamedTuple):
    """A run as it is stored. Times are ms by the database's clock."""

    id: str
    task: str
    lane: int
    state: str
    ready: int
    attempt: int
    tries: int
    max_attempts: int
    priority: int
    joined_at: int | None
    created_at: int
    due_at: int
    started_at: int | None
    finished_at: int | None
    ttl_at: int | None
    expires_at: int | None
    worker: str | None
    sender: str | None
    lease_until: int | None
    deadline_at: int | None
    holds_until: int | None
    idempotency_key: str | None
    reason: str | None
    report: str | None
    input: str
    output: str | None
    error: str | None
    trigger: str | None
    kind: str
    task_version: int
    parent: str | None
    root: str | None
    node: str | None
    was_node: str | None
    child_key: str | None
    cancelled_by: str | None
    metadata: str

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL

    @property
    def occupies(self) -> bool:
        """Whether it takes a slot of its worker."""
        return self.state == "running" or self.holds_until is not None

    @property
    def failure(self) -> Mapping[str, Any]:
        """What it shows as its error."""
        found: Mapping[str, Any] = json.loads(self.error or "{}")
        return found


@dataclass(frozen=True, slots=True)
class Moment:
    """What is so at a commit: whose it is, when, who owns the lanes, and until when each server holds its lease."""

    process: str
    now: int
    least: int
    """What a server may take for now that began after the database's clock was set back; else the same."""
    owner: str | None
    epoch: int
    owned_until: int
    leases: Mapping[str, int]
    servers: Mapping[str, str]
    """The process of each server that ever had a lease, by the server's id."""

    @property
    def by_owner(self) -> bool:
        """Whether the owner of the lanes made this commit."""
        return self.owner is not None and self.servers.get(self.owner) == self.process

    @property
    def by_living_owner(self) -> bool:
        """Whether the owner of the lanes made this commit, and not the next life of its process."""
        lives = [server for server, process in self.servers.items() if process == self.process]
        return self.owner is not None and lives[-1:] == [self.owner]

    def alive(self, server: str | None) -> bool:
        """Whether the server's lease is good."""
        return server is not None and self.leases.get(server, 0) > self.now


@dataclass(frozen=True, slots=True)
class Change:
    """A run before and after a commit."""

    before: Row | None
    after: Row | None

    @property
    def begins(self) -> bool:
        """Whether the run has started: in a new attempt, or as a workflow, which has none."""
        before, after = self.before, self.after
        if after is None or after.state != "running":
            return False
        return before is None or before.attempt != after.attempt or before.state != "running"


_COLUMNS: Final = ", ".join(Row._fields)
_CHANGED: Final = f"SELECT {_COLUMNS} FROM run WHERE id IN (SELECT id FROM temp.touched)"


class Reader:
    """Watches one connection. `rows` is what was committed so far."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self.rows: dict[str, Row] = {}
        self._cursor.execute("CREATE TEMP TABLE touched (id TEXT PRIMARY KEY) WITHOUT ROWID")
        for event, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old")):
            self._cursor.execute(
                f"CREATE TEMP TRIGGER touched_{event} AFTER {event} ON main.run "
                f"BEGIN INSERT OR IGNORE INTO touched VALUES ({row}.id); END"
            )

    def changes(self) -> list[Change]:
        """Return what the last commit changed, by id, and remember it."""
        ids = [row[0] for row in self._cursor.execute("SELECT id FROM temp.touched ORDER BY id").fetchall()]
        if not ids:
            return []
        found = {row[0]: Row._make(row) for row in self._cursor.execute(_CHANGED).fetchall()}
        self._cursor.execute("DELETE FROM temp.touched")
        changed = []
        for run_id in ids:
            before, after = self.rows.get(run_id), found.get(run_id)
            if before != after:
                changed.append(Change(before, after))
            if after is None:
                self.rows.pop(run_id, None)
            else:
                self.rows[run_id] = after
        return changed

    def everything(self) -> dict[str, Row]:
        """Return every row as it is stored now."""
        return {row[0]: Row._make(row) for row in self._cursor.execute(f"SELECT {_COLUMNS} FROM run").fetchall()}

    def shard(self) -> tuple[str | None, int, int]:
        """Return who owns the lanes, in which epoch, and until when."""
        owner, epoch, until = self._cursor.execute("SELECT owner, epoch, lease_until FROM shard").fetchone()
        return owner, epoch, until

    def leases(self) -> dict[str, int]:
        """Return until when each server holds its lease, by the server's id."""
        return dict(self._cursor.execute("SELECT id, lease_until FROM dispatcher ORDER BY id").fetchall())

    def cost(self, run_id: str) -> int:
        """Return how many slots a run takes."""
        sql = "SELECT draws FROM lane JOIN run ON run.lane = lane.id WHERE run.id = ?"
        row = self._cursor.execute(sql, (run_id,)).fetchone()
        return 1 if row is None else int(json.loads(row[0]).get("cost", 1))

    def slots(self) -> dict[str, int]:
        """Return the slots of each worker."""
        return dict(self._cursor.execute("SELECT name, slots FROM worker ORDER BY name").fetchall())

    def key_until(self, run_id: str) -> int | None:
        """Return until when (ms) a run's idempotency key holds though the run has ended, if it does."""
        rows = self._cursor.execute("SELECT until FROM idempotency WHERE run = ?", (run_id,)).fetchall()
        return rows[0][0] if rows else None

    def told(self, run_id: str, kind: str) -> int:
        """Return how many rows of a kind the timeline of a run has."""
        sql = "SELECT count(*) FROM timeline WHERE run = ? AND kind = ?"
        return int(self._cursor.execute(sql, (run_id, kind)).fetchone()[0])

"""What is committed of composition, seen from outside the engine: news for the owner, events, which nodes there are."""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.sim.graph_oracle import Seen
from tests.sim.rows import Change, Row


class CompositionReader:
    """Reads what runs do not tell."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._cursor = connection.cursor()
        self._last = 0
        self.events: list[Seen] = []
        """All events that were ever committed."""

    def read_events(self) -> None:
        """Read the events of the last commit."""
        self.events = [event._replace(fresh=False) if event.fresh else event for event in self.events]
        sql = "SELECT rowid, id, key, scope, payload, created_at FROM event WHERE rowid > ? ORDER BY rowid"
        for place, event_id, key, scope, payload, at in self._cursor.execute(sql, (self._last,)).fetchall():
            self._last = place
            self.events.append(Seen(event_id, key, scope, json.loads(payload), at, fresh=True))

    def unheard(self) -> bool:
        """Tell whether the owner of the lanes has to follow what others have committed."""
        return self._cursor.execute("SELECT 1 FROM news LIMIT 1").fetchone() is not None

    def shape(self, task: str, version: int) -> str:
        """Return the graph of a version of a workflow, in JSON."""
        sql = "SELECT graph FROM shape WHERE task = ? AND version = ?"
        return str(self._cursor.execute(sql, (task, version)).fetchone()[0])


class Family:
    """Who belongs to whom. `rows` is what is committed now."""

    def __init__(self, rows: Mapping[str, Row]) -> None:
        self._rows = rows
        self._nodes: dict[str, dict[str, str]] = defaultdict(dict)
        self._children: dict[str, dict[str, None]] = defaultdict(dict)
        self.keys: dict[tuple[str, str], str] = {}
        """The first child of each parent and key."""

    def learn(self, change: Change) -> None:
        """Take notice of a change."""
        before, after = change.before, change.after
        if after is None or after.parent is None:
            return
        if before is None:
            self._children[after.parent][after.id] = None
            if after.child_key is not None:
                self.keys.setdefault((after.parent, after.child_key), after.id)
        nodes = self._nodes[after.parent]
        if before is not None and before.node is not None and nodes.get(before.node) == after.id:
            del nodes[before.node]
        if after.node is not None:
            nodes[after.node] = after.id

    def nodes(self, workflow: str) -> dict[str, Row]:
        """Return the nodes of a workflow as they stand, by name."""
        return {name: self._rows[run_id] for name, run_id in self._nodes.get(workflow, {}).items()}

    def children(self, parent: str) -> Iterator[Row]:
        """Return all who were ever children of a run, nodes among them."""
        return (self._rows[run_id] for run_id in self._children.get(parent, ()))

    def parents(self) -> Sequence[str]:
        """Return all runs that ever had children."""
        return list(self._children)


def output_of(row: Row) -> Any:
    """Return what a node has put out; None for one that was skipped."""
    return None if row.output is None else json.loads(row.output)

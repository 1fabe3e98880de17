"""Rows and scripts for the tests of the store."""

from typing import Any

import sqlalchemy as sa

from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.store.runs import NewRun
from hurlbat_dispatcher.store.statement import Script, Statement

FIRST = "0199a3c0-0000-7000-8000-000000000001"


def new_run(run_id: str = FIRST, **more: Any) -> NewRun:
    """Return a run that waits in lane 1."""
    usual: dict[str, Any] = {
        "tenant": 1,
        "id": run_id,
        "kind": "task",
        "task": "echo",
        "task_version": 1,
        "lane": 1,
        "state": "queued",
        "ready": 1,
        "attempt": 0,
        "tries": 0,
        "max_attempts": 1,
        "priority": 2,
        "rank": 0,
        "joined_at": 1,
        "created_at": 1,
        "due_at": 1,
        "started_at": None,
        "ttl_at": None,
        "expires_at": None,
        "worker": None,
        "sender": None,
        "idempotency_key": None,
        "parent": None,
        "root": None,
        "node": None,
        "child_key": None,
        "trigger": None,
        "input": "null",
        "metadata": "{}",
    }
    return NewRun(**usual | more)


def insert(*rows: NewRun) -> Script[None]:
    """Insert runs."""
    yield runs.INSERT.write(rows)


def ask(sql: str) -> Script[list[tuple[Any, ...]]]:
    """Return the rows of a query."""
    rows = yield Statement(sa.text(sql)).fetch()
    return [tuple(row) for row in rows]


def tell(*statements: str) -> Script[None]:
    """Execute statements."""
    for sql in statements:
        yield Statement(sa.text(sql)).write([()])

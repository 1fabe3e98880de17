"""How the databases would go about a statement, for the tests that look at plans."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.store import heads, views
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.statement import Prepared, Script, Statement
from tests.store.rows import FIRST

VALUES = {
    "ids": [FIRST],
    "parents": [FIRST],
    "runs": [FIRST],
    "tasks": ["echo"],
    "keys": ["k"],
    "id": FIRST,
    "before": views.LAST_ID,
    "after": views.id_at(0),
    "run": FIRST,
    "me": FIRST,
    "task": "echo",
    "state": "failed",
    "key": "k",
    "b_id": FIRST,
    "places": heads.heads([heads.Beyond(1)], 1).values[0],
}


async def plan_of(store: Database, statement: Statement) -> list[str]:
    """Return the steps of SQLite."""
    rows = await store.read(_explained(statement, "EXPLAIN QUERY PLAN", VALUES))
    return [row[3] for row in rows]


async def plan_on_postgresql(store: Database, statement: Statement, values: Mapping[str, Any]) -> str:
    """Return the lines of PostgreSQL's plan for these values, and the usual ones."""
    rows = await store.read(_explained(statement, "EXPLAIN", VALUES | dict(values)))
    return "\n".join(row[0] for row in rows)


def _explained(statement: Statement, how: str, values: Mapping[str, Any]) -> Script[list[tuple[Any, ...]]]:
    rows = yield _Explained(statement, how).fetch(*(values.get(name, 1) for name in statement.names))
    return [tuple(row) for row in rows]


class _Explained(Statement):
    """A statement that is explained instead of executed."""

    def __init__(self, statement: Statement, how: str) -> None:
        super().__init__(statement.clause, statement.names)
        self._of, self._how = statement, how

    def prepared(self, dialect: Dialect) -> Prepared:
        prepared = self._of.prepared(dialect)
        return replace(prepared, sql=f"{self._how} {prepared.sql}")

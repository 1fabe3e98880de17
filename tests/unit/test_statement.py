"""Statements, compiled once for each database."""

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import registry, sqlite
from sqlalchemy.engine.interfaces import Dialect

from hurlbat_dispatcher.store.schema import inline, run
from hurlbat_dispatcher.store.statement import AnyOf, DatabaseNow, Statement, bind

SQLITE = sqlite.dialect(paramstyle="qmark")
POSTGRES: Dialect = registry.load("postgresql.asyncpg")()
BOTH = pytest.mark.parametrize("dialect", [SQLITE, POSTGRES], ids=["sqlite", "postgresql"])


@BOTH
def test_values_are_arranged_as_the_sql_wants_them(dialect: Dialect) -> None:
    clause = sa.select(run.c.id).where(
        run.c.task == bind("task", sa.String()), run.c.tenant == bind("tenant", sa.Integer())
    )
    prepared = Statement(clause, ("tenant", "task")).prepared(dialect)
    assert prepared.arrange((1, "echo")) == ("echo", 1)
    assert not prepared.as_declared


@BOTH
def test_values_that_come_in_order_are_passed_on_as_they_are(dialect: Dialect) -> None:
    prepared = Statement(sa.select(run.c.id).where(run.c.task == bind("task", sa.String())), ("task",)).prepared(
        dialect
    )
    values = ("echo",)
    assert prepared.as_declared
    assert prepared.arrange(values) is values


@BOTH
def test_a_statement_is_compiled_once(dialect: Dialect) -> None:
    statement = Statement(sa.select(run.c.id))
    assert statement.prepared(dialect) is statement.prepared(dialect)


@BOTH
@pytest.mark.parametrize("names", [(), ("task", "more"), ("other",)], ids=["undeclared", "unused", "misnamed"])
def test_parameters_must_be_declared_and_used(dialect: Dialect, names: tuple[str, ...]) -> None:
    statement = Statement(sa.select(run.c.id).where(run.c.task == bind("task", sa.String())), names)
    with pytest.raises(TypeError, match="declared or used, not both"):
        statement.prepared(dialect)


def test_a_list_is_json_on_sqlite_and_itself_on_postgresql() -> None:
    statement = Statement(sa.select(run.c.id).where(AnyOf(run.c.id, "ids", "uuid")), ("ids",))
    on_sqlite, on_postgres = statement.prepared(SQLITE), statement.prepared(POSTGRES)
    assert "IN (SELECT value FROM json_each(" in on_sqlite.sql
    assert on_sqlite.arrange((["a", "b"],)) == ('["a", "b"]',)
    assert "= ANY (" in on_postgres.sql
    assert on_postgres.arrange((["a", "b"],)) == (["a", "b"],)


def test_each_database_tells_the_time_in_its_own_way() -> None:
    statement = Statement(sa.select(DatabaseNow()))
    assert "hurlbat_now()" in statement.prepared(SQLITE).sql
    assert "clock_timestamp()" in statement.prepared(POSTGRES).sql


def test_constants_of_ours_stand_in_the_sql_itself() -> None:
    sql = (
        Statement(sa.select(run.c.id).where(run.c.state == inline("queued"), run.c.ready == inline(1)))
        .prepared(SQLITE)
        .sql
    )
    assert "state = 'queued'" in sql
    assert "ready = 1" in sql
    assert "?" not in sql


@BOTH
def test_values_of_core_expressions_are_added_behind_ours(dialect: Dialect) -> None:
    clause = sa.select(run.c.id).where(run.c.tenant == 7, run.c.task == bind("task", sa.String()))
    assert Statement(clause, ("task",)).prepared(dialect).arrange(("echo",)) == (7, "echo")

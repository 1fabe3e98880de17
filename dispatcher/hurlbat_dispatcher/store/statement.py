"""Statements are declared once in SQLAlchemy Core, compiled once per database, and executed as plain SQL.

A transaction is a *script*: a generator that yields what it asks of the database and is sent the rows. Whoever runs
it decides where: SQLite runs a whole script as one function on the driver's own thread, PostgreSQL awaits each step.
So every transaction is written once and knows nothing of drivers, threads or `await`.
"""

import json
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import BindParameter

Row = Sequence[Any]
Rows = Sequence[Row]
Values = tuple[Any, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetch:
    """Asks for the rows of one statement."""

    statement: "Statement"
    values: Values


@dataclass(frozen=True, slots=True)
class Write:
    """Asks for one statement to be executed for each of the rows of values. There may be none."""

    statement: "Statement"
    rows: Sequence[Values]


Ask = Fetch | Write
Script = Generator[Ask, Rows, T]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A statement as one database takes it: the SQL, and how to arrange the declared values for it."""

    sql: str
    order: tuple[int, ...]
    lists: frozenset[int]
    constants: Values
    as_declared: bool

    def arrange(self, values: Values) -> Values:
        """Return the values in the order of the SQL's parameters; lists become JSON where the database wants that."""
        if self.as_declared:
            return values
        if self.lists:
            values = tuple(json.dumps(value) if at in self.lists else value for at, value in enumerate(values))
        values += self.constants
        return tuple(values[at] for at in self.order)


@dataclass(eq=False)
class Statement:
    """A Core statement whose bound parameters are exactly `names`, in the order in which values are given.

    `postgresql` is the same statement in PostgreSQL's own words, where the two databases have none in common.
    """

    clause: sa.ClauseElement
    names: tuple[str, ...] = ()
    postgresql: sa.ClauseElement | None = None
    _prepared: dict[str, Prepared] = field(default_factory=dict)

    def fetch(self, *values: Any) -> Fetch:
        """Ask for its rows."""
        return Fetch(self, values)

    def write(self, rows: Iterable[Values]) -> Write:
        """Ask for it to be executed for each row of values."""
        return Write(self, list(rows))

    def prepared(self, dialect: Dialect) -> Prepared:
        """Return it as this database takes it."""
        found = self._prepared.get(dialect.name)
        if found is None:
            found = self._prepared[dialect.name] = self._compile(dialect)
        return found

    def _compile(self, dialect: Dialect) -> Prepared:
        own = self.postgresql if dialect.name == "postgresql" else None
        compiled = (self.clause if own is None else own).compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)
        positions = tuple(compiled.positiontup or ())
        constants = tuple(name for name in dict.fromkeys(positions) if name not in self.names)
        missing = [name for name in self.names if name not in positions]
        missing += [name for name in constants if compiled.params[name] is None]
        if missing:
            raise TypeError(f"the parameters {missing} are declared or used, not both, in: {compiled}")
        lists = frozenset(
            at
            for at, name in enumerate(self.names)
            if dialect.name == "sqlite" and isinstance(compiled.binds[name].type, Listed)
        )
        names = self.names + constants
        return Prepared(
            sql=str(compiled),
            order=tuple(names.index(name) for name in positions),
            lists=lists,
            constants=tuple(compiled.params[name] for name in constants),
            as_declared=not lists and positions == self.names,
        )


class Listed(sa.types.UserDefinedType[list[Any]]):
    """The type of a parameter that is a whole list: a JSON array on SQLite, an array on PostgreSQL."""

    cache_ok = True

    def __init__(self, item: str = "text") -> None:
        self.item = item

    def get_col_spec(self, **_: Any) -> str:
        """Return the type's name in SQL."""
        return f"{self.item}[]"


class AnyOf(sa.ColumnElement[bool]):
    """`column` equals one of the items of a list that is one parameter, so that the SQL is the same for any length."""

    inherit_cache = False

    def __init__(self, column: sa.ColumnElement[Any], name: str, item: str = "text") -> None:
        self.column = column
        self.values: BindParameter[list[Any]] = sa.bindparam(name, type_=Listed(item))


@compiles(AnyOf, "sqlite")
def _any_of_sqlite(element: AnyOf, compiler: SQLCompiler, **more: Any) -> str:
    column, values = compiler.process(element.column, **more), compiler.process(element.values, **more)
    return f"{column} IN (SELECT value FROM json_each({values}))"


@compiles(AnyOf, "postgresql")
def _any_of_postgresql(element: AnyOf, compiler: SQLCompiler, **more: Any) -> str:
    column, values = compiler.process(element.column, **more), compiler.process(element.values, **more)
    return f"{column} = ANY ({values})"


class Unindexed(sa.ColumnElement[Any]):
    """A column for whose sake SQLite, which does not know how few rows a partial index has, chooses no index."""

    inherit_cache = False

    def __init__(self, column: sa.ColumnElement[Any]) -> None:
        self.column = column
        self.type = column.type


@compiles(Unindexed, "sqlite")
def _unindexed_sqlite(element: Unindexed, compiler: SQLCompiler, **more: Any) -> str:
    return f"+{compiler.process(element.column, **more)}"


@compiles(Unindexed, "postgresql")
def _unindexed_postgresql(element: Unindexed, compiler: SQLCompiler, **more: Any) -> str:
    return compiler.process(element.column, **more)


class DatabaseNow(sa.ColumnElement[int]):
    """The database's clock in ms, read when it is evaluated and not when the transaction began."""

    inherit_cache = True
    type = sa.BigInteger()


@compiles(DatabaseNow, "sqlite")
def _now_sqlite(_: DatabaseNow, __: SQLCompiler, **___: Any) -> str:
    return "hurlbat_now()"  # made by the driver from the injected clock


@compiles(DatabaseNow, "postgresql")
def _now_postgresql(_: DatabaseNow, __: SQLCompiler, **___: Any) -> str:
    return "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"


def bind(name: str, type_: sa.types.TypeEngine[Any] | None = None) -> BindParameter[Any]:
    """Declare a parameter."""
    return sa.bindparam(name, type_=type_)

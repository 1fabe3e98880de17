"""The runs that are next in their lanes, of many lanes with one statement."""

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import WAITING, inline, run
from hurlbat_dispatcher.store.statement import Fetch, Statement, bind


class Beyond(NamedTuple):
    """A place in a lane: what is next there has a higher (rank, id)."""

    lane: int
    rank: int = -(1 << 62)
    id: str = "00000000-0000-0000-0000-000000000000"


class HeadRow(NamedTuple):
    """A run that waits, and which of the places it is next to."""

    place: int
    rank: int
    id: str
    priority: int
    joined_at: int
    started_at: int | None


MOST_ROWS: Final = 10_000
"""Rows that one statement reads, at most."""
_SHOWN = HeadRow._fields[1:]


def _beyond(*place: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Return the runs of a lane beyond a place: (lane, rank, id)."""
    lane, *after = place
    return (
        sa.select(*(run.c[name] for name in _SHOWN))
        .where(WAITING, run.c.lane == lane, sa.tuple_(run.c.rank, run.c.id) > sa.tuple_(*after))
        .order_by(run.c.rank, run.c.id)
        .limit(bind("most", sa.Integer()))
    )


def _on_sqlite() -> sa.Select[Any]:
    """Return the statement with a subquery for the row numbers, as a join with one that has a limit is not known."""
    places = sa.func.json_each(bind("places", sa.Text())).table_valued("key", "value", name="places")
    next_ones = _beyond(*(sa.func.json_extract(places.c.value, inline(f"$[{at}]")) for at in range(3)))
    found = run.alias("found")
    shown = [found.c[name] for name in _SHOWN]
    return (
        sa.select(places.c.key, *shown)
        .where(sa.literal_column("found.rowid").in_(next_ones.with_only_columns(sa.literal_column("run.rowid"))))
        .order_by(places.c.key, found.c.rank, found.c.id)
    )


def _on_postgresql() -> sa.Select[Any]:
    elements = sa.func.json_array_elements(sa.cast(bind("places", sa.Text()), sa.JSON()))
    places = elements.table_valued("value", with_ordinality="n", name="places").render_derived()
    types = (sa.Integer(), sa.BigInteger(), run.c.id.type)
    said = (sa.cast(places.c.value.op("->>")(inline(at)), type_) for at, type_ in enumerate(types))
    found = _beyond(*said).lateral("found")
    shown = [found.c[name] for name in _SHOWN]
    return (
        sa.select(places.c.n - inline(1), *shown)
        .select_from(places.join(found, sa.true()))
        .order_by(places.c.n, found.c.rank, found.c.id)
    )


HEADS = Statement(_on_sqlite(), ("places", "most"), _on_postgresql())
"""As `HeadRow`, by place and then in the order of their start. Of each lane no more is looked at than is returned."""


def heads(places: Sequence[Beyond], most: int) -> Fetch:
    """Ask for the next runs beyond each of these places, at most so many of each."""
    return HEADS.fetch(json.dumps(places), most)

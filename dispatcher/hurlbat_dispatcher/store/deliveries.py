"""What was sent to workers and what came back: a row for each delivery, kept for a while for people to look at."""

from collections.abc import Generator, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import Millis, Name, metadata
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind

DeliveryId = sa.String(48)
AT_ONCE: Final = 200
"""Rows in one statement."""

delivery = sa.Table(
    "delivery",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("id", DeliveryId, primary_key=True),
    sa.Column("at", Millis, nullable=False),
    sa.Column("worker", Name, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.Index("delivery_time", "tenant", "at"),
)
"""`record` is JSON: see `push.record`. A run names the delivery of its last attempt, its timeline those before."""


class DeliveryRow(NamedTuple):
    """A delivery as it is stored; `at` is when it was sent, in ms."""

    tenant: int
    id: str
    at: int
    worker: str
    record: str


KEEP = Statement(
    sa.insert(delivery).values({name: bind(name, delivery.c[name].type) for name in DeliveryRow._fields}),
    DeliveryRow._fields,
)
_TENANT = delivery.c.tenant == bind("tenant", sa.Integer())
FIND = Statement(sa.select(delivery.c.record).where(_TENANT, delivery.c.id == bind("id", DeliveryId)), ("tenant", "id"))
OLD = Statement(
    sa.select(delivery.c.id)
    .where(_TENANT, delivery.c.at < bind("before", sa.BigInteger()))
    .order_by(delivery.c.at)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "most"),
)
DELETE = Statement(sa.delete(delivery).where(_TENANT, AnyOf(delivery.c.id, "ids", "varchar")), ("tenant", "ids"))


def keep(rows: Sequence[DeliveryRow]) -> Generator[Ask, Rows, None]:
    """Store deliveries."""
    for first in range(0, len(rows), AT_ONCE):
        yield KEEP.write(rows[first : first + AT_ONCE])


def find(tenant: int, delivery_id: str) -> Generator[Ask, Rows, str | None]:
    """Read the record of a delivery; None where it was not kept."""
    rows = yield FIND.fetch(tenant, delivery_id)
    return str(rows[0][0]) if rows else None


def old_deliveries(tenant: int, *, before: int, most: int) -> Generator[Ask, Rows, list[str]]:
    """Read the ids of deliveries that were sent before then (ms)."""
    rows = yield OLD.fetch(tenant, before, most)
    return [row[0] for row in rows]


def remove_deliveries(tenant: int, ids: list[str]) -> Generator[Ask, Rows, None]:
    """Forget deliveries."""
    yield DELETE.write([(tenant, ids)])

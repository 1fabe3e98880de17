"""Who is alive, and who owns the right to start runs."""

from collections.abc import Generator
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import dispatcher, shard
from hurlbat_dispatcher.store.statement import Ask, DatabaseNow, Rows, Statement, bind

SHARD = 1
"""The one shard that there is."""


class Ownership(NamedTuple):
    """The state of the shard: whose it is, in which epoch, and the database's time in ms when that was read."""

    owner: str | None
    epoch: int
    now: int


_SHARD = shard.c.id == sa.literal_column(str(SHARD))
FENCE = Statement(sa.select(shard.c.owner, shard.c.epoch, DatabaseNow()).where(_SHARD).with_for_update(read=True))
"""Holds the shard until the commit: nobody takes over in the middle of a turn. The clock is read after."""
_STATE = Statement(
    sa.select(shard.c.owner, shard.c.epoch, shard.c.lease_until, DatabaseNow()).where(_SHARD).with_for_update()
)
_TAKE = Statement(
    sa.update(shard)
    .where(_SHARD)
    .values(
        owner=bind("owner", shard.c.owner.type),
        epoch=bind("epoch", sa.BigInteger()),
        lease_until=bind("until", sa.BigInteger()),
    ),
    ("owner", "epoch", "until"),
)
_HERE = dispatcher.c.id == bind("b_id", sa.String())
_FIND = Statement(sa.select(dispatcher.c.lease_until).where(_HERE), ("b_id",))
_ENTER = Statement(
    sa.insert(dispatcher).values(
        id=bind("id", sa.String()), started_at=bind("now", sa.BigInteger()), lease_until=bind("until", sa.BigInteger())
    ),
    ("id", "now", "until"),
)
_RENEW = Statement(
    sa.update(dispatcher).where(_HERE).values(lease_until=bind("until", sa.BigInteger())), ("until", "b_id")
)
_LEAVE = Statement(sa.delete(dispatcher).where(_HERE), ("b_id",))
_FORGET = Statement(
    sa.delete(dispatcher).where(dispatcher.c.lease_until < bind("before", sa.BigInteger())), ("before",)
)
_FORGET_OTHERS = Statement(sa.delete(dispatcher).where(dispatcher.c.id != bind("b_id", sa.String())), ("b_id",))


def renew(me: str, lease: int, *, alone: bool = False) -> Generator[Ask, Rows, Ownership]:
    """Renew this server's lease (ms), and the ownership of the shard if it is ours or nobody's.

    `alone`: nobody else can be alive, as the database is ours; whoever is still in it is a former life of this server.
    """
    rows = yield _STATE.fetch()
    owner, epoch, lease_until, now = rows[0]
    until = now + lease
    found = yield _FIND.fetch(me)
    if found:
        yield _RENEW.write([(until, me)])
    else:
        yield _ENTER.write([(me, now, until)])
    yield _FORGET.write([(now - 100 * lease,)])
    if alone:
        yield _FORGET_OTHERS.write([(me,)])
    if owner != me and (alone or owner is None or lease_until <= now):
        owner, epoch = me, epoch + 1
    if owner == me:
        yield _TAKE.write([(me, epoch, until)])
    return Ownership(owner, epoch, now)


def leave(me: str) -> Generator[Ask, Rows, None]:
    """Give up the shard if it is ours, and the lease."""
    rows = yield _STATE.fetch()
    owner, epoch, _, _ = rows[0]
    if owner == me:
        yield _TAKE.write([(None, epoch, 0)])
    yield _LEAVE.write([(me,)])

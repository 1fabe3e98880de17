"""Who is alive, and who owns the right to start runs."""

from collections.abc import Generator
from typing import Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.schema import dispatcher, shard
from hurlbat_dispatcher.store.statement import AnyOf, Ask, DatabaseNow, Rows, Statement, bind

SHARD = 1
"""The one shard that there is."""

FAR_AHEAD: Final = 10
"""Lengths of a lease: one that is good for longer than so many is not believed."""


class Ownership(NamedTuple):
    """The state of the shard: whose it is, in which epoch and until when, and who else may be given work.

    Times are ms by the database's clock; `now` is when this was read.
    """

    owner: str | None
    epoch: int
    lease_until: int
    now: int
    peers: tuple[str, ...]

    def over(self, lease: int) -> bool:
        """Tell whether the lease, usually so long (ms), is good no longer."""
        return _over(self.lease_until, self.now, lease)


class _State(NamedTuple):
    """The shard as it was read."""

    owner: str | None
    epoch: int
    lease_until: int
    now: int

    def vacant(self, lease: int, *, alone: bool, stopping: bool) -> bool:
        """Tell whether a server may take it from whoever has it."""
        return not stopping and (alone or self.owner is None or _over(self.lease_until, self.now, lease))


def _over(until: int, now: int, lease: int) -> bool:
    """A lease far beyond its length is of a time before the clock was set back, and nobody's."""
    return until <= now or until > now + FAR_AHEAD * lease


_SHARD = shard.c.id == sa.literal_column(str(SHARD))
FENCE = Statement(sa.select(shard.c.owner, shard.c.epoch, DatabaseNow()).where(_SHARD).with_for_update())
"""Holds the shard until the commit: nobody takes over in the middle of a turn. The clock may be as old as the wait.

Nobody: not this server either, whose commit may have been given up, and be on its way to the disk all the same.
"""
_STATE = sa.select(shard.c.owner, shard.c.epoch, shard.c.lease_until, DatabaseNow()).where(_SHARD)
_LOOK = Statement(_STATE)
_HOLD = Statement(_STATE.with_for_update(skip_locked=True))
"""Nothing, when somebody else is just about it: one who is stopped in the middle of a transaction stops nobody else.

So nobody waits for that one either: whoever finds the lease over and the shard held has it cut off (`loops.lease`).
"""
_GIVE = Statement(_STATE.with_for_update())
"""Waits for the turn that is under way, so that nothing is given to a server that goes."""
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
        id=bind("id", sa.String()),
        started_at=bind("now", sa.BigInteger()),
        lease_until=bind("until", sa.BigInteger()),
        stopping=bind("stopping", sa.Integer()),
    ),
    ("id", "now", "until", "stopping"),
)
_RENEW = Statement(
    sa.update(dispatcher)
    .where(_HERE)
    .values(lease_until=bind("until", sa.BigInteger()), stopping=bind("stopping", sa.Integer())),
    ("until", "stopping", "b_id"),
)
_TAKES_WORK = sa.and_(dispatcher.c.stopping == 0, dispatcher.c.lease_until > DatabaseNow())
_PEERS = Statement(
    sa.select(dispatcher.c.id)
    .where(_TAKES_WORK, dispatcher.c.id != bind("b_id", sa.String()))
    .order_by(dispatcher.c.id),
    ("b_id",),
)
ALIVE = Statement(
    sa.select(dispatcher.c.id).where(_TAKES_WORK, AnyOf(dispatcher.c.id, "ids", "varchar")).order_by(dispatcher.c.id),
    ("ids",),
)
"""Which of these servers may be given work. None of them stops in the middle of a turn: for that it needs the shard."""
_LEAVE = Statement(sa.delete(dispatcher).where(_HERE), ("b_id",))
_FORGET = Statement(
    sa.delete(dispatcher).where(dispatcher.c.lease_until < bind("before", sa.BigInteger())), ("before",)
)
_FORGET_OTHERS = Statement(sa.delete(dispatcher).where(dispatcher.c.id != bind("b_id", sa.String())), ("b_id",))


def renew(me: str, lease: int, *, alone: bool = False, stopping: bool = False) -> Generator[Ask, Rows, Ownership]:
    """Renew this server's lease (ms), and the ownership of the shard if it is ours or nobody's.

    `alone`: nobody else can be alive, as the database is ours; whoever is still in it is a former life of this server.
    `stopping`: this server only brings to an end what it has. The shard is not locked by one who has no business with
    it: the owner locks it in every turn, and who waits for that would wait long.
    """
    state = _State._make((yield _LOOK.fetch())[0])
    if state.owner == me or state.vacant(lease, alone=alone, stopping=stopping):
        holding = yield _HOLD.fetch()
        if holding:
            state = _State._make(holding[0])
            if state.owner != me and state.vacant(lease, alone=alone, stopping=stopping):
                state = state._replace(owner=me, epoch=state.epoch + 1)
            if state.owner == me:
                state = state._replace(lease_until=state.now + lease)
                yield _TAKE.write([state[:3]])
    now = state.now
    found = yield _FIND.fetch(me)
    if found:
        yield _RENEW.write([(now + lease, int(stopping), me)])
    else:
        yield _ENTER.write([(me, now, now + lease, int(stopping))])
    yield _FORGET.write([(now - 100 * lease,)])
    if alone:
        yield _FORGET_OTHERS.write([(me,)])
    peers = () if alone else (yield _PEERS.fetch(me))
    return Ownership(*state, tuple(row[0] for row in peers))


def hand_over(me: str, lease: int) -> Generator[Ask, Rows, None]:
    """Take no more work, and give up the shard if it is ours; what is in flight goes on for another lease (ms).

    Whoever starts the runs is waited for: what its turn gives this server is stored before, and later ones do not.
    """
    state = _State._make((yield _GIVE.fetch())[0])
    if state.owner == me:
        yield _TAKE.write([(None, state.epoch, 0)])
    yield _RENEW.write([(state.now + lease, 1, me)])


def leave(me: str) -> Generator[Ask, Rows, None]:
    """Give up the shard if it is ours, and the lease."""
    state = _State._make((yield _GIVE.fetch())[0])
    if state.owner == me:
        yield _TAKE.write([(None, state.epoch, 0)])
    yield _LEAVE.write([(me,)])

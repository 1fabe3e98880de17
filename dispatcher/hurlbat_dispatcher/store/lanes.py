"""Lanes: which runs draw on the same, by number; and what was started of rate limits."""

from collections.abc import Generator, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hurlbat_dispatcher.store.schema import HELD, RUNNING, WAITING, inline, lane, rate_use, run
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind


class LaneRow(NamedTuple):
    """A lane as it is stored; `draws` is `Draws.as_json`, `used_at` (ms) about when a run last came."""

    id: int
    tenant: int
    task: str
    draws: str
    digest: str
    used_at: int


SLACK_MS = 2 * 3_600_000
"""How far `used_at` may lag behind the newest run of a lane, and the ids of runs behind each other, at most."""

_ALL = [lane.c[name] for name in LaneRow._fields]
_TENANT = lane.c.tenant == bind("tenant", sa.Integer())

BY_DIGEST = Statement(
    sa.select(*_ALL).where(_TENANT, AnyOf(lane.c.digest, "digests", "varchar")).order_by(lane.c.id).with_for_update(),
    ("tenant", "digests"),
)
"""Held until the commit, so that none is forgotten that is just about to be used."""
BY_ID = Statement(sa.select(*_ALL).where(AnyOf(lane.c.id, "ids", "integer")), ("ids",))
INSERT = Statement(
    insert(lane).values({name: bind(name, lane.c[name].type) for name in LaneRow._fields[1:]}).on_conflict_do_nothing(),
    LaneRow._fields[1:],
)
"""One that another server has made meanwhile is left as it is."""
TOUCH = Statement(
    sa.update(lane).where(lane.c.id == bind("b_id", sa.Integer())).values(used_at=bind("used_at", sa.BigInteger())),
    ("used_at", "b_id"),
)
_waiting = sa.select(sa.func.min(run.c.lane).label("id")).where(WAITING).cte("waiting", recursive=True)
_waiting = _waiting.union_all(
    sa.select(sa.select(sa.func.min(run.c.lane)).where(WAITING, run.c.lane > _waiting.c.id).scalar_subquery()).where(
        _waiting.c.id.is_not(None)
    )
)
IN_USE = Statement(
    sa.select(*_ALL).where(
        sa.or_(
            lane.c.id.in_(sa.select(_waiting.c.id).where(_waiting.c.id.is_not(None))),
            lane.c.id.in_(sa.select(run.c.lane).where(RUNNING)),
            lane.c.id.in_(sa.select(run.c.lane).where(HELD)),
        )
    )
)
"""Lanes in which runs wait, run or are held; those that wait are found by leaps over the index, not by counting."""

# -- rate limits -----------------------------------------------------------------------------------------------------


class UseRow(NamedTuple):
    """What was started of a rate limit in one sub-window; `last` (ms) is when the last was."""

    tenant: int
    key: str
    duration: int
    bucket: int
    last: int
    units: int


_THIS = [rate_use.c[name] == bind(f"b_{name}", rate_use.c[name].type) for name in UseRow._fields[:4]]
USES = Statement(
    sa.select(*(rate_use.c[name] for name in UseRow._fields))
    .where(rate_use.c.last + rate_use.c.duration > bind("now", sa.BigInteger()))
    .order_by(rate_use.c.key, rate_use.c.duration, rate_use.c.bucket),
    ("now",),
)
FORGET_USE = Statement(sa.delete(rate_use).where(*_THIS), tuple(f"b_{name}" for name in UseRow._fields[:4]))
KEEP_USE = Statement(
    sa.insert(rate_use).values({name: bind(name, rate_use.c[name].type) for name in UseRow._fields}), UseRow._fields
)
FORGET_OLD_USE = Statement(
    sa.delete(rate_use).where(rate_use.c.last + rate_use.c.duration <= bind("now", sa.BigInteger())), ("now",)
)


def keep_uses(rows: Sequence[UseRow]) -> Generator[Ask, Rows, None]:
    """Store what was started, in place of what was known of these sub-windows."""
    yield FORGET_USE.write([row[:4] for row in rows])
    yield KEEP_USE.write([row for row in rows if row.units])


# -- lanes that nothing refers to ------------------------------------------------------------------------------------

_oldest = (
    sa.select(run.c.created_at).order_by(run.c.tenant, run.c.id).limit(inline(1)).scalar_subquery()  # ids are in time
)
FORGET_LANES = Statement(
    sa.delete(lane).where(
        lane.c.used_at < bind("before", sa.BigInteger()),
        lane.c.used_at < sa.func.coalesce(_oldest, inline(1 << 60)) - inline(SLACK_MS),
    ),
    ("before",),
)
"""Lanes that were last used before, and before the oldest run that is stored: no run is in them."""

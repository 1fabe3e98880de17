"""Rate limits that were put, and what is held by hand or for a time: keys of rate limits, and tasks."""

from collections.abc import Generator
from typing import Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from hurlbat_dispatcher.domain.policies import RateDraw, read_draws
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.schema import DELAYED, RUNNING, WAITING, inline, lane, rate_limit, rate_pause, run, task
from hurlbat_dispatcher.store.statement import AnyOf, Ask, DatabaseNow, Rows, Statement, bind

MAX_SHOWN: Final = 5
"""How many of the runs that draw on a key are named."""


class LimitRow(NamedTuple):
    """A static rate limit as it is stored: at most `most` units in any `duration` ms."""

    tenant: int
    key: str
    most: int
    duration: int
    updated_at: int


class PauseRow(NamedTuple):
    """A paused key, as `RateDraw.name` says it, until when (ms); None until it is resumed."""

    tenant: int
    key: str
    until: int | None


Limited = tuple[list[LimitRow], list[PauseRow]]

_TENANT = bind("tenant", sa.Integer())

LIMITS = Statement(
    sa.select(*(rate_limit.c[name] for name in LimitRow._fields)).order_by(rate_limit.c.tenant, rate_limit.c.key)
)
PAUSES = Statement(
    sa.select(*(rate_pause.c[name] for name in PauseRow._fields))
    .where(sa.or_(rate_pause.c.until.is_(None), rate_pause.c.until > DatabaseNow()))
    .order_by(rate_pause.c.tenant, rate_pause.c.key)
)

# both databases read an upsert in PostgreSQL's words
_LIMIT = insert(rate_limit).values({name: bind(name, rate_limit.c[name].type) for name in LimitRow._fields})
PUT_LIMIT = Statement(
    _LIMIT.on_conflict_do_update(
        index_elements=["tenant", "key"],
        set_={name: _LIMIT.excluded[name] for name in ("most", "duration", "updated_at")},
    ),
    LimitRow._fields,
)
_THIS_LIMIT = (rate_limit.c.tenant == _TENANT, rate_limit.c.key == bind("key", rate_limit.c.key.type))
LOCKED_LIMIT = Statement(sa.select(rate_limit.c.key).where(*_THIS_LIMIT).with_for_update(), ("tenant", "key"))
DELETE_LIMIT = Statement(sa.delete(rate_limit).where(*_THIS_LIMIT), ("tenant", "key"))

_PAUSE = insert(rate_pause).values({name: bind(name, rate_pause.c[name].type) for name in PauseRow._fields})
_UNTIL, _NEW_UNTIL = rate_pause.c.until, _PAUSE.excluded.until
PAUSE_KEY = Statement(
    _PAUSE.on_conflict_do_update(
        index_elements=["tenant", "key"],
        set_={
            "until": sa.case(
                (sa.or_(_UNTIL.is_(None), _NEW_UNTIL.is_(None)), sa.null()),
                (_NEW_UNTIL > _UNTIL, _NEW_UNTIL),
                else_=_UNTIL,
            )
        },
    ),
    PauseRow._fields,
)
"""Pause a key; of two pauses the longer one holds."""
_THIS_PAUSE = (rate_pause.c.tenant == _TENANT, rate_pause.c.key == bind("key", rate_pause.c.key.type))
RESUME_KEY = Statement(sa.delete(rate_pause).where(*_THIS_PAUSE), ("tenant", "key"))
FORGET_PAUSES = Statement(
    sa.delete(rate_pause).where(rate_pause.c.until <= bind("now", rate_pause.c.until.type)), ("now",)
)

PAUSE_TASK = Statement(
    sa.update(task)
    .where(task.c.tenant == _TENANT, task.c.name == bind("b_name", task.c.name.type))
    .values(paused=bind("paused", task.c.paused.type)),
    ("paused", "tenant", "b_name"),
)

# -- who draws on a key ------------------------------------------------------------------------------------------------

LANES_SAYING = Statement(
    sa.select(lane.c.id, lane.c.draws).where(
        lane.c.tenant == _TENANT, lane.c.draws.like(bind("pattern", sa.String()), escape="/")
    ),
    ("tenant", "pattern"),
)
"""Lanes of whose draws the text is like a pattern."""


def _in_lanes(*where: sa.ColumnElement[bool]) -> Statement:
    ids = sa.select(run.c.id).where(*where, AnyOf(run.c.lane, "lanes", "integer"))
    return Statement(ids.limit(bind("most", sa.Integer())), ("lanes", "most"))


WAITING_IN = _in_lanes(WAITING)
DELAYED_IN = _in_lanes(DELAYED, run.c.due_at >= inline(0))  # all are; it leads SQLite to the index of the delayed
RUNNING_IN = _in_lanes(RUNNING)
COUNT_WAITING = Statement(
    sa.select(run.c.lane, sa.func.count()).where(WAITING, AnyOf(run.c.lane, "lanes", "integer")).group_by(run.c.lane),
    ("lanes",),
)
_ANY_RATE = '%"rates":%'


def all_limited() -> Generator[Ask, Rows, Limited]:
    """Read every static rate limit, and every key that is paused."""
    limits = yield LIMITS.fetch()
    pauses = yield PAUSES.fetch()
    return list(map(LimitRow._make, limits)), list(map(PauseRow._make, pauses))


def put_limit(tenant: int, key: str, most: int, duration: int) -> Generator[Ask, Rows, bool]:
    """Store a static rate limit of `most` units in any `duration` ms; return whether it is a new one."""
    now = yield from database_now()
    known = yield LOCKED_LIMIT.fetch(tenant, key)
    yield PUT_LIMIT.write([LimitRow(tenant, key, most, duration, now)])
    return not known


def delete_limit(tenant: int, key: str) -> Generator[Ask, Rows, None]:
    """Forget a static rate limit, and that it was paused."""
    yield DELETE_LIMIT.write([(tenant, key)])
    yield RESUME_KEY.write([(tenant, name_of(key))])


def pause_key(tenant: int, name: str, until: int | None = None) -> Generator[Ask, Rows, None]:
    """Pause a key (a `RateDraw.name`) until a time (ms) or until it is resumed, and forget pauses that are over."""
    now = yield from database_now()
    yield FORGET_PAUSES.write([(now,)])
    yield PAUSE_KEY.write([PauseRow(tenant, name, until)])


def resume_key(tenant: int, name: str) -> Generator[Ask, Rows, None]:
    """End the pause of a key."""
    yield RESUME_KEY.write([(tenant, name)])


def pause_task(tenant: int, name: str, paused: bool) -> Generator[Ask, Rows, None]:
    """Hold a task's runs, or let them start."""
    yield PAUSE_TASK.write([(int(paused), tenant, name)])


def drawing_on(tenant: int, key: str) -> Generator[Ask, Rows, list[str]]:
    """Return the ids of a few runs that draw on a static key and have not ended; those that run may start again.

    Reads the lanes, and then only the runs in lanes that draw on the key, of those that are delayed all.
    """
    rows = yield LANES_SAYING.fetch(tenant, _saying(key))
    lanes = [lane_id for lane_id, draws in rows if _draws_on(draws, name_of(key))]
    found: list[str] = []
    for statement in (WAITING_IN, RUNNING_IN, DELAYED_IN) if lanes else ():
        if len(found) < MAX_SHOWN:
            ids = yield statement.fetch(lanes, MAX_SHOWN - len(found))
            found += [str(row[0]) for row in ids]
    return sorted(found)


def draws_on_rates(tenant: int, key: str | None = None) -> Generator[Ask, Rows, dict[RateDraw, int]]:
    """Return what lanes draw of rate limits, of all or of a static one, each with how many runs are due and wait."""
    rows = yield LANES_SAYING.fetch(tenant, _ANY_RATE if key is None else _saying(key))
    lanes = {lane_id: read_draws(draws).rates for lane_id, draws in rows}
    counts = yield COUNT_WAITING.fetch(list(lanes))
    waiting = {row[0]: row[1] for row in counts}
    found: dict[RateDraw, int] = {}
    for lane_id, rates in lanes.items():
        for rate in rates:
            found[rate] = found.get(rate, 0) + waiting.get(lane_id, 0)
    return found


def name_of(key: str, *, dynamic: bool = False) -> str:
    """Return a key as `RateDraw.name` says it."""
    return f"{'dynamic' if dynamic else 'static'}:{key}"


def _saying(key: str) -> str:
    """Return a pattern of the text of all draws on a static key; some others are like it."""
    return '%["' + key.replace("/", "//").replace("_", "/_").replace("%", "/%") + '",%'


def _draws_on(draws: str, name: str) -> bool:
    return any(rate.name == name for rate in read_draws(draws).rates)

"""Finished runs, events, and what came of schedules, go after a time."""

from collections.abc import Generator, Sequence

import sqlalchemy as sa

from hurlbat_dispatcher.store.graph_schema import OF_A_CHILD
from hurlbat_dispatcher.store.lanes import FORGET_LANES
from hurlbat_dispatcher.store.schema import event, event_start, idempotency, run, schedule_fire, timeline
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind

LANE_MS = 2 * 86_400_000
"""How long a lane must not have been used to be forgotten: two days."""

_IDS = ("tenant", "ids")
_TENANT = bind("tenant", sa.Integer())
_KEY_HOLDS = sa.exists().where(
    idempotency.c.tenant == run.c.tenant,
    idempotency.c.task == run.c.task,
    idempotency.c.key == run.c.idempotency_key,
    idempotency.c.run == run.c.id,
    idempotency.c.until > bind("now", sa.BigInteger()),
)
"""A key promises its run for as long as it lasts."""
_OLD = Statement(
    sa.select(run.c.id)
    .where(
        run.c.tenant == _TENANT,
        run.c.finished_at < bind("before", sa.BigInteger()),
        run.c.id > bind("after", run.c.id.type),
    )
    .where(run.c.id < bind("until", run.c.id.type), run.c.holds_until.is_(None), ~_KEY_HOLDS)
    .order_by(run.c.id)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "after", "until", "now", "most"),
)
DROP_CHILD_KEYS = Statement(
    sa.delete(idempotency).where(idempotency.c.tenant == _TENANT, AnyOf(idempotency.c.run, "ids", "uuid"), OF_A_CHILD),
    _IDS,
)
"""The key of a child goes with its run."""
_DELETE = [
    Statement(sa.delete(timeline).where(timeline.c.tenant == _TENANT, AnyOf(timeline.c.run, "ids", "uuid")), _IDS),
    DROP_CHILD_KEYS,
    Statement(sa.delete(run).where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", "uuid")), _IDS),
]
Key = tuple[int, str, str]
"""A tenant, a task, and an idempotency key."""
_KEY = ("tenant", "task", "key")
OVER_KEYS = Statement(
    sa.select(*(idempotency.c[name] for name in _KEY))
    .where(idempotency.c.until < bind("now", sa.BigInteger()))
    .order_by(idempotency.c.until)
    .limit(bind("most", sa.Integer())),
    ("now", "most"),
)
_DELETE_KEY = Statement(
    sa.delete(idempotency).where(
        *(idempotency.c[name] == bind(name, idempotency.c[name].type) for name in _KEY),
        idempotency.c.until < bind("now", sa.BigInteger()),
    ),
    (*_KEY, "now"),
)
"""A key that was taken again meanwhile stays."""
OLD_EVENTS = Statement(
    sa.select(event.c.id)
    .where(event.c.tenant == _TENANT, event.c.created_at < bind("before", event.c.created_at.type))
    .order_by(event.c.created_at, event.c.id)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "most"),
)
_DELETE_EVENTS = [
    Statement(
        sa.delete(event_start).where(event_start.c.tenant == _TENANT, AnyOf(event_start.c.event, "ids", "varchar")),
        _IDS,
    ),
    Statement(sa.delete(event).where(event.c.tenant == _TENANT, AnyOf(event.c.id, "ids", "varchar")), _IDS),
]

FireKey = tuple[str, int, int]
"""A schedule, a due time (ms), and 1 for one by hand."""
_FIRE_KEY = ("schedule", "due_at", "manual")
OLD_FIRES = Statement(
    sa.select(*(schedule_fire.c[name] for name in _FIRE_KEY))
    .where(
        schedule_fire.c.tenant == _TENANT,
        schedule_fire.c.fired_at < bind("before", schedule_fire.c.fired_at.type),
        ~sa.exists().where(
            run.c.tenant == schedule_fire.c.tenant, run.c.id == schedule_fire.c.run, run.c.finished_at.is_(None)
        ),
    )
    .order_by(schedule_fire.c.fired_at)
    .limit(bind("most", sa.Integer())),
    ("tenant", "before", "most"),
)
_DELETE_FIRE = Statement(
    sa.delete(schedule_fire).where(
        schedule_fire.c.tenant == _TENANT,
        *(schedule_fire.c[name] == bind(name, schedule_fire.c[name].type) for name in _FIRE_KEY),
    ),
    ("tenant", *_FIRE_KEY),
)


def remove_finished(tenant: int, *, before: int, now: int, after: str, most: int) -> Generator[Ask, Rows, list[str]]:
    """Remove some runs that finished before then (ms), oldest first, from the id `after` on; return their ids."""
    until = f"{before >> 16:08x}-{before & 0xFFFF:04x}-7000-8000-000000000000"
    rows = yield _OLD.fetch(tenant, before, after, until, now, most)
    ids = [row[0] for row in rows]
    if ids:
        for statement in _DELETE:
            yield statement.write([(tenant, ids)])
    if len(ids) < most:
        yield FORGET_LANES.write([(now - LANE_MS,)])
    return ids


def over_keys(now: int, most: int) -> Generator[Ask, Rows, list[Key]]:
    """Read which idempotency keys have had their time, some, the oldest first."""
    rows = yield OVER_KEYS.fetch(now, most)
    return [(row[0], row[1], row[2]) for row in rows]


def remove_keys(keys: Sequence[Key], now: int) -> Generator[Ask, Rows, None]:
    """Forget idempotency keys that have had their time."""
    yield _DELETE_KEY.write([(*key, now) for key in keys])


def old_events(tenant: int, *, before: int, most: int) -> Generator[Ask, Rows, list[str]]:
    """Read the ids of some events that came before then (ms), the oldest first."""
    rows = yield OLD_EVENTS.fetch(tenant, before, most)
    return [row[0] for row in rows]


def old_fires(tenant: int, *, before: int, most: int) -> Generator[Ask, Rows, list[FireKey]]:
    """Read which fires of schedules were before then (ms), the oldest first, some; not those whose runs are alive."""
    rows = yield OLD_FIRES.fetch(tenant, before, most)
    return [(row[0], row[1], row[2]) for row in rows]


def remove_fires(tenant: int, keys: Sequence[FireKey]) -> Generator[Ask, Rows, None]:
    """Forget what came of due times of schedules."""
    yield _DELETE_FIRE.write([(tenant, *key) for key in keys])


def remove_events(tenant: int, ids: list[str]) -> Generator[Ask, Rows, None]:
    """Remove events with all that is known of who listened; their ids are free again."""
    for statement in _DELETE_EVENTS:
        yield statement.write([(tenant, ids)])

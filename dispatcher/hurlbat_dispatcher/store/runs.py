"""The statements that change runs, and those that a turn reads before it decides."""

from collections.abc import Generator
from typing import Any, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.store.graph_schema import SLEEPING, wait
from hurlbat_dispatcher.store.schema import (
    DELAYED,
    EXPIRING,
    HELD,
    LEASED,
    RUNNING,
    SCHEDULED,
    UNTIL_ITS_END,
    dispatcher,
    idempotency,
    inline,
    lane,
    run,
    schedule,
    timeline,
)
from hurlbat_dispatcher.store.statement import AnyOf, Ask, DatabaseNow, Rows, Statement, bind


class RunRow(NamedTuple):
    """A run as a turn sees it: everything but its payloads. Times are ms.

    `parent` is the run that submitted it, or the workflow of which it is the `node`.
    """

    tenant: int
    id: str
    kind: str
    task: str
    task_version: int
    lane: int
    state: str
    ready: int
    attempt: int
    tries: int
    max_attempts: int
    priority: int
    rank: int
    joined_at: int | None
    created_at: int
    due_at: int
    started_at: int | None
    ttl_at: int | None
    expires_at: int | None
    worker: str | None
    sender: str | None
    lease_until: int | None
    deadline_at: int | None
    holds_until: int | None
    idempotency_key: str | None
    reason: str | None
    report: str | None
    parent: str | None
    root: str | None
    node: str | None
    was_node: str | None = None
    delivery: str | None = None


class NewRun(NamedTuple):
    """A run as it is inserted."""

    tenant: int
    id: str
    kind: str
    task: str
    task_version: int
    lane: int
    state: str
    ready: int
    attempt: int
    tries: int
    max_attempts: int
    priority: int
    rank: int
    joined_at: int | None
    created_at: int
    due_at: int
    started_at: int | None
    ttl_at: int | None
    expires_at: int | None
    worker: str | None
    sender: str | None
    idempotency_key: str | None
    parent: str | None
    root: str | None
    node: str | None
    child_key: str | None
    trigger: str | None
    input: str
    metadata: str
    awaited: int | None = None


_LIGHT = [run.c[name] for name in RunRow._fields]
_THIS = sa.and_(run.c.tenant == bind("b_tenant", sa.Integer()), run.c.id == bind("b_id", run.c.id.type))
_ITEM = "uuid"  # of the ids in a list, where the database has a type for them
_TENANT = run.c.tenant == bind("tenant", sa.Integer())

INSERT = Statement(
    sa.insert(run).values({name: bind(name, run.c[name].type) for name in NewRun._fields}),
    NewRun._fields,
)

LOAD = Statement(
    sa.select(*_LIGHT).where(_TENANT, AnyOf(run.c.id, "ids", _ITEM)).order_by(run.c.id).with_for_update(),
    ("tenant", "ids"),
)
"""Rows by id, locked in the order of their ids so that two servers never wait for each other."""

ENDINGS = Statement(
    sa.select(run.c.id, run.c.finished_at, run.c.error).where(_TENANT, AnyOf(run.c.id, "ids", _ITEM)),
    ("tenant", "ids"),
)
"""How runs ended, for those that are to start again."""

FAILED = Statement(
    sa.select(run.c.id, run.c.input, run.c.metadata, run.c.trigger).where(_TENANT, AnyOf(run.c.id, "ids", _ITEM)),
    ("tenant", "ids"),
)
"""What is told of runs that have failed to those who are called for it."""

OVER = Statement(
    sa.select(run.c.id).where(
        _TENANT, AnyOf(run.c.id, "ids", _ITEM), run.c.state.in_([inline(state) for state in sorted(FINAL)])
    ),
    ("tenant", "ids"),
)
"""Those of these runs that have ended."""

_TO_SEND = [run.c[name] for name in ("id", "task", "attempt", "max_attempts", "input", "metadata", "trigger")]

PAYLOADS = Statement(
    sa.select(*_TO_SEND, run.c.sender, run.c.ready)
    .where(_TENANT, AnyOf(run.c.id, "ids", _ITEM), run.c.state == inline(RunState.QUEUED))
    .order_by(run.c.id)
    .with_for_update(),
    ("tenant", "ids"),
)
"""What is needed to send queued runs, who would like to, and whether they are due; others are missing."""

TAKE = Statement(
    sa.select(*_TO_SEND, run.c.worker)
    .where(
        _TENANT,
        AnyOf(run.c.id, "ids", _ITEM),
        RUNNING,
        run.c.lease_until.is_(None),
        run.c.sender == bind("me", sa.String()),
    )
    .order_by(run.c.id)
    .with_for_update(read=True),
    ("tenant", "ids", "me"),
)
"""What is needed to send attempts that were started for this server to send. Held: nobody cancels one meanwhile."""


def _update(
    names: tuple[str, ...], *also: sa.ColumnElement[bool], **constants: sa.SQLColumnExpression[Any]
) -> Statement:
    values: dict[str, Any] = {name: bind(name, run.c[name].type) for name in names}
    if "joined_at" in values:  # once, when it was due first
        values["joined_at"] = sa.func.coalesce(run.c.joined_at, values["joined_at"])
    clause = sa.update(run).where(_THIS, *also).values({**values, **constants})
    return Statement(clause, (*names, "b_tenant", "b_id", *(("b_attempt",) if also else ())))


_THIS_ATTEMPT = run.c.attempt == bind("b_attempt", sa.Integer())

START = _update(
    ("started_at", "joined_at", "worker", "sender"),
    state=inline(RunState.RUNNING),
    ready=inline(1),
    attempt=run.c.attempt + inline(1),
    tries=run.c.tries + inline(1),
    lease_until=sa.null(),
    deadline_at=sa.null(),
    delivery=sa.null(),
)
END = _update(
    ("state", "finished_at", "output", "error", "reason", "holds_until", "report", "cancelled_by", "delivery"),
    _THIS_ATTEMPT,
    lease_until=sa.null(),
)
PUT_BACK = _update(
    ("tries", "rank", "due_at", "expires_at", "started_at", "error", "report"),
    _THIS_ATTEMPT,
    state=inline(RunState.QUEUED),
    ready=inline(0),
    worker=sa.null(),
    sender=sa.null(),
    lease_until=sa.null(),
)
REPLAY = _update(
    ("max_attempts", "rank", "due_at", "expires_at"),
    state=inline(RunState.QUEUED),
    ready=inline(0),
    joined_at=sa.null(),
    started_at=sa.null(),
    finished_at=sa.null(),
    ttl_at=sa.null(),
    output=sa.null(),
    error=sa.null(),
    reason=sa.null(),
    worker=sa.null(),
    sender=sa.null(),
    holds_until=sa.null(),
    report=sa.null(),
    cancelled_by=sa.null(),
)
MOVE = _update(("priority", "rank", "due_at", "expires_at"))
LEASE = _update(("lease_until", "deadline_at"), _THIS_ATTEMPT, RUNNING)
SENT = _update(("delivery",), _THIS_ATTEMPT)
MARK_READY = _update(("joined_at",), ready=inline(1))
RELEASE = _update((), holds_until=sa.null())

REMEMBER = Statement(
    sa.insert(timeline).values(
        {name: bind(name, timeline.c[name].type) for name in ("tenant", "run", "at", "kind", "attempt", "detail")}
    ),
    ("tenant", "run", "at", "kind", "attempt", "detail"),
)
COUNT_ROWS = Statement(
    sa.select(timeline.c.run, sa.func.count())
    .where(timeline.c.tenant == bind("tenant", sa.Integer()), AnyOf(timeline.c.run, "ids", _ITEM))
    .group_by(timeline.c.run),
    ("tenant", "ids"),
)

_BY = sa.BigInteger()


def _moved(column: sa.ColumnElement[Any], name: str) -> sa.ColumnElement[Any]:
    """Return a time that is moved along by `by`, at most to `most`."""
    by, most = bind(f"{name}_by", _BY), bind(f"{name}_most", _BY)
    return sa.case((column + by > most, most), else_=column + by)


MOVE_LEASES = Statement(
    sa.update(run)
    .where(LEASED)
    .values(lease_until=_moved(run.c.lease_until, "lease"), deadline_at=run.c.deadline_at + bind("deadline_by", _BY)),
    ("lease_by", "lease_most", "deadline_by"),
)
MOVE_HOLDS = Statement(
    sa.update(run).where(HELD).values(holds_until=_moved(run.c.holds_until, "hold")), ("hold_by", "hold_most")
)

# -- what is due -----------------------------------------------------------------------------------------------------

DUE = Statement(
    sa.select(*_LIGHT)
    .where(DELAYED, run.c.due_at <= bind("now", sa.BigInteger()))
    .order_by(run.c.due_at, run.c.id)
    .limit(bind("most", sa.Integer()))
    .with_for_update(),
    ("now", "most"),
)
EXPIRED = Statement(
    sa.select(*_LIGHT)
    .where(EXPIRING, run.c.expires_at <= bind("now", sa.BigInteger()))
    .order_by(run.c.id)
    .limit(bind("most", sa.Integer()))
    .with_for_update(),
    ("now", "most"),
)
LEASE_OVER = Statement(
    sa.select(*_LIGHT)
    .where(LEASED, run.c.lease_until <= bind("now", sa.BigInteger()))
    .order_by(run.c.id)
    .limit(bind("most", sa.Integer()))
    .with_for_update(),
    ("now", "most"),
)
ORPHANED = Statement(
    sa.select(*_LIGHT)
    .where(
        RUNNING,
        run.c.lease_until.is_(None),
        run.c.sender != bind("me", sa.String()),
        ~sa.exists().where(dispatcher.c.id == run.c.sender, dispatcher.c.lease_until > DatabaseNow()),
    )
    .order_by(run.c.id)
    .limit(bind("most", sa.Integer()))
    .with_for_update(),
    ("me", "most"),
)
"""Running attempts whose sender is gone, or is this server in a former life."""
CONNECTED = Statement(
    sa.select(run.c.id, run.c.attempt, run.c.started_at)
    .where(RUNNING, run.c.lease_until.is_(None), run.c.sender == bind("me", sa.String()))
    .order_by(run.c.id),
    ("me",),
)
"""Running attempts that live on this server's own lease."""
HOLD_OVER = Statement(
    sa.select(run.c.tenant, run.c.id)
    .where(HELD, run.c.holds_until <= bind("now", sa.BigInteger()))
    .limit(bind("most", sa.Integer())),
    ("now", "most"),
)
JUST_OVER_MS = 1_000
"""A server whose lease ended less than this ago may have been looked at in the very moment before."""
NEXT_MOMENT = Statement(
    sa.select(
        sa.select(sa.func.min(run.c.due_at)).where(DELAYED).scalar_subquery(),
        sa.select(sa.func.min(run.c.expires_at)).where(EXPIRING).scalar_subquery(),
        sa.select(sa.func.min(run.c.lease_until)).where(LEASED).scalar_subquery(),
        sa.select(sa.func.min(run.c.holds_until)).where(HELD).scalar_subquery(),
        sa.select(sa.func.min(wait.c.due_at)).where(SLEEPING).scalar_subquery(),
        sa.select(sa.func.min(schedule.c.next_at)).where(SCHEDULED).scalar_subquery(),
        sa.select(sa.func.min(dispatcher.c.lease_until) - DatabaseNow())
        .where(
            dispatcher.c.id != bind("me", sa.String()), dispatcher.c.lease_until > DatabaseNow() - inline(JUST_OVER_MS)
        )
        .scalar_subquery(),
    ),
    ("me",),
)
NOW = Statement(sa.select(DatabaseNow()))


def database_now() -> Generator[Ask, Rows, int]:
    """Read the database's clock, in ms."""
    rows = yield NOW.fetch()
    return int(rows[0][0])


# -- the picture -----------------------------------------------------------------------------------------------------

_FLIGHT = [
    run.c[name]
    for name in ("id", "worker", "attempt", "sender", "lane", "started_at", "priority", "joined_at", "holds_until")
]
IN_FLIGHT = Statement(sa.select(*_FLIGHT).where(RUNNING).order_by(run.c.id))
IN_HOLD = Statement(sa.select(*_FLIGHT).where(HELD).order_by(run.c.id))
BACKING_OFF = Statement(
    sa.select(run.c.id, run.c.lane, run.c.priority, run.c.joined_at, run.c.started_at)
    .join(lane, lane.c.id == run.c.lane)
    .where(DELAYED, run.c.joined_at.is_not(None), lane.c.draws.like(inline('{"groups"%')))
    .order_by(run.c.id)
)
"""Runs in groups that were due before, and will be again."""
BEFORE_ALL = (-(1 << 62), "00000000-0000-0000-0000-000000000000")

# -- idempotency -----------------------------------------------------------------------------------------------------

_its_state = (
    sa.select(run.c.state).where(run.c.tenant == idempotency.c.tenant, run.c.id == idempotency.c.run).scalar_subquery()
)
KEYS = Statement(
    sa.select(*(idempotency.c[name] for name in ("task", "key", "run", "digest", "until")), _its_state).where(
        idempotency.c.tenant == bind("tenant", sa.Integer()),
        AnyOf(idempotency.c.task, "tasks", "varchar"),
        AnyOf(idempotency.c.key, "keys", "varchar"),
    ),
    ("tenant", "tasks", "keys"),
)
"""The keys that are known, and the states of their runs: none of one that is gone."""
_KEY = ("tenant", "task", "key")
KEEP_KEY = Statement(
    sa.insert(idempotency).values(
        {name: bind(name, idempotency.c[name].type) for name in (*_KEY, "run", "digest", "until")}
    ),
    (*_KEY, "run", "digest", "until"),
)
DROP_KEY = Statement(
    sa.delete(idempotency).where(
        *(idempotency.c[name] == bind(name, idempotency.c[name].type) for name in (*_KEY, "run"))
    ),
    (*_KEY, "run"),
)
"""Forget a key whose time is over, if it is still the one that was read: another server may have used it anew."""
END_KEY = Statement(
    sa.delete(idempotency).where(
        *(idempotency.c[name] == bind(name, idempotency.c[name].type) for name in ("tenant", "run")),
        UNTIL_ITS_END,
    ),
    ("tenant", "run"),
)
"""Forget the keys that hold only until their run ends: of one that absorbed others there may be several."""

"""The tables. The tenant leads every key; the plain life of a run is one insert and one update of `run`.

Payloads are text, kept as it came. Times are milliseconds since the epoch by the database's clock. Only surprises are
rows of `timeline`: when a run was created, started and finished are columns.
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import UUID

from hurlbat_dispatcher.domain.lifecycle import RunState

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ck": "%(table_name)s_%(constraint_name)s",
        "uq": "%(table_name)s_unique",
    }
)

DEFAULT_TENANT = 1

RunId = sa.String(36).with_variant(UUID(as_uuid=False), "postgresql")
Name = sa.String(128)
Millis = sa.BigInteger
Counter = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite counts up only in a column whose type is exactly INTEGER."""


def inline(value: str | int) -> sa.ColumnElement[Any]:
    """Return a constant of ours that stands in the SQL itself, as the condition of a partial index must."""
    return sa.literal_column(repr(str(value)) if isinstance(value, str) else str(value))


run = sa.Table(
    "run",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("id", RunId, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("task", Name, nullable=False),
    sa.Column("task_version", sa.Integer, nullable=False),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("parent", RunId),
    sa.Column("root", RunId),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("ready", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("rank", Millis, nullable=False),
    sa.Column("joined_at", Millis),
    sa.Column("created_at", Millis, nullable=False),
    sa.Column("due_at", Millis, nullable=False),
    sa.Column("started_at", Millis),
    sa.Column("finished_at", Millis),
    sa.Column("ttl_at", Millis),
    sa.Column("expires_at", Millis),
    sa.Column("worker", Name),
    sa.Column("sender", sa.String(36)),
    sa.Column("lease_until", Millis),
    sa.Column("deadline_at", Millis),
    sa.Column("holds_until", Millis),
    sa.Column("idempotency_key", sa.String(256)),
    sa.Column("reason", sa.Text),
    sa.Column("report", sa.String(64)),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("trigger", sa.Text),
    sa.Column("output", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("node", Name),
    sa.Column("was_node", Name),
    sa.Column("child_key", sa.String(200)),
    sa.Column("awaited", sa.Integer),
    sa.Column("cancelled_by", sa.String(16)),
    sa.Column("delivery", sa.String(48)),
    sa.CheckConstraint("attempt >= 0 AND tries >= 0 AND tries <= attempt", name="attempts"),
    sa.CheckConstraint(f"state <> '{RunState.RUNNING}' OR worker IS NOT NULL", name="running_has_worker"),
)

QUEUED = run.c.state == inline(RunState.QUEUED)
RUNNING = run.c.state == inline(RunState.RUNNING)


def partial(name: str, *columns: sa.Column[Any], where: sa.ColumnElement[bool]) -> sa.Index:
    """Declare an index over some rows only, alike on both databases."""
    return sa.Index(name, *columns, sqlite_where=where, postgresql_where=where)


WAITING = sa.and_(QUEUED, run.c.ready == inline(1))
"""Due, and in its lane."""
DELAYED = sa.and_(QUEUED, run.c.ready == inline(0))
"""Not due, or due and not seen yet by the owner of its lane."""
EXPIRING = sa.and_(QUEUED, run.c.expires_at.is_not(None))
LEASED = sa.and_(RUNNING, run.c.lease_until.is_not(None))
HELD = run.c.holds_until.is_not(None)
UNHAPPY = run.c.state.in_(
    [inline(RunState.FAILED), inline(RunState.CANCELLED), inline(RunState.SKIPPED), inline(RunState.SUSPENDED)]
)

partial("run_waiting", run.c.lane, run.c.rank, run.c.id, where=WAITING)
partial("run_delayed", run.c.due_at, run.c.id, where=DELAYED)
partial("run_later", run.c.tenant, run.c.id, where=DELAYED)
partial("run_expiring", run.c.expires_at, where=EXPIRING)
partial("run_queued", run.c.tenant, run.c.id, run.c.task, where=QUEUED)
partial("run_running", run.c.sender, where=RUNNING)
partial("run_leased", run.c.lease_until, where=LEASED)
partial("run_held", run.c.holds_until, where=HELD)
partial("run_unhappy", run.c.tenant, run.c.state, run.c.id, where=UNHAPPY)
sa.Index("run_task", run.c.tenant, run.c.task, run.c.id)
partial("run_parent", run.c.tenant, run.c.parent, run.c.id, where=run.c.parent.is_not(None))
NODES = run.c.node.is_not(None)  # as they stand: one that a replay has replaced has its name in `was_node`
sa.Index("run_node", run.c.tenant, run.c.parent, run.c.node, unique=True, sqlite_where=NODES, postgresql_where=NODES)

timeline = sa.Table(
    "timeline",
    metadata,
    sa.Column("n", Counter, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.Integer, nullable=False),
    sa.Column("run", RunId, nullable=False),
    sa.Column("at", Millis, nullable=False),
    sa.Column("kind", sa.String(32), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("timeline_run", "tenant", "run", "n"),
)

lane = sa.Table(
    "lane",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.Integer, nullable=False),
    sa.Column("task", Name, nullable=False),
    sa.Column("draws", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("used_at", Millis, nullable=False),
    sa.UniqueConstraint("tenant", "task", "digest"),
)

rate_limit = sa.Table(
    "rate_limit",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("key", Name, primary_key=True),
    sa.Column("most", sa.BigInteger, nullable=False),
    sa.Column("duration", Millis, nullable=False),
    sa.Column("updated_at", Millis, nullable=False),
)

RateKey = sa.String(420)
"""`static:` or `dynamic:`, for a throttle its task, and the key."""

rate_use = sa.Table(
    "rate_use",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("key", RateKey, primary_key=True),
    sa.Column("duration", Millis, primary_key=True),
    sa.Column("bucket", Millis, primary_key=True),
    sa.Column("last", Millis, nullable=False),
    sa.Column("units", sa.BigInteger, nullable=False),
)

rate_pause = sa.Table(
    "rate_pause",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("key", RateKey, primary_key=True),
    sa.Column("until", Millis),
)

idempotency = sa.Table(
    "idempotency",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("task", Name, primary_key=True),
    sa.Column("key", sa.String(256), primary_key=True),
    sa.Column("run", RunId, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("until", Millis),
)

UNTIL_ITS_END = idempotency.c.until.is_(None)
"""A key that holds until its run ends, not for a time."""
partial("idempotency_run", idempotency.c.tenant, idempotency.c.run, where=UNTIL_ITS_END)
partial("idempotency_until", idempotency.c.until, where=idempotency.c.until.is_not(None))

ScheduleName = sa.String(160)

schedule = sa.Table(
    "schedule",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("name", ScheduleName, primary_key=True),
    sa.Column("task", Name, nullable=False),
    sa.Column("source", sa.String(8), nullable=False),
    sa.Column("expression", sa.String(256)),
    sa.Column("timezone", sa.String(64), nullable=False),
    sa.Column("run_at", Millis),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer),
    sa.Column("missed", sa.String(8), nullable=False),
    sa.Column("overlap", sa.String(8), nullable=False),
    sa.Column("paused", sa.Integer, nullable=False),
    sa.Column("next_at", Millis),
    sa.Column("last_at", Millis),
    sa.Column("last_run", RunId),
    sa.Column("problem", sa.Text),
    sa.Column("created_at", Millis, nullable=False),
    sa.Column("updated_at", Millis, nullable=False),
)
"""`next_at` is when it fires next; null while it is paused, and when it never will."""

SCHEDULED = schedule.c.next_at.is_not(None)
partial("schedule_due", schedule.c.next_at, where=SCHEDULED)

schedule_fire = sa.Table(
    "schedule_fire",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("schedule", ScheduleName, primary_key=True),
    sa.Column("due_at", Millis, primary_key=True),
    sa.Column("manual", sa.Integer, primary_key=True),
    sa.Column("fired_at", Millis, nullable=False),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("run", RunId),
    sa.Column("reason", sa.Text),
    sa.Index("schedule_fire_time", "tenant", "fired_at"),
)
"""A due time of a schedule is here once, whatever came of it: no server fires it again."""

STARTED = schedule_fire.c.run.is_not(None)
partial("schedule_fire_run", *(schedule_fire.c[name] for name in ("tenant", "schedule", "due_at")), where=STARTED)

EventId = sa.String(256)

event = sa.Table(
    "event",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("id", EventId, primary_key=True),
    sa.Column("key", sa.String(256), nullable=False),
    sa.Column("scope", sa.String(256)),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("replay_of", EventId),
    sa.Column("created_at", Millis, nullable=False),
    sa.Index("event_time", "tenant", "created_at", "id"),
    sa.Index("event_key", "tenant", "key", "created_at", "id"),
)
partial(
    "event_scope",
    event.c.tenant,
    event.c.scope,
    event.c.created_at,
    event.c.id,
    where=event.c.scope.is_not(None),
)

event_start = sa.Table(
    "event_start",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("event", EventId, primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True),
    sa.Column("task", Name, nullable=False),
    sa.Column("filter", sa.String(512)),
    sa.Column("outcome", sa.String(16), nullable=False),
    sa.Column("run", RunId),
    sa.Column("reason", sa.Text),
)
"""Who listened to an event, and what came of it."""

event_filter = sa.Table(
    "event_filter",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("task", Name, primary_key=True),
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("expression", sa.String(512)),
    sa.Column("scope", sa.String(256)),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("created_at", Millis, nullable=False),
)
"""Filters that were made by hand; those of a policy stand in it."""

gathering = sa.Table(
    "gathering",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("task", Name, primary_key=True),
    sa.Column("key", sa.String(400), primary_key=True),
    sa.Column("run", RunId, nullable=False),
    sa.Column("submits", sa.Integer, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("first_at", Millis, nullable=False),
    sa.Column("until", Millis, nullable=False),
    sa.Index("gathering_until", "until"),
)
"""The run that absorbs what is submitted with a debounce or batch key, until then."""

webhook = sa.Table(
    "webhook",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("name", Name, primary_key=True),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("created_at", Millis, nullable=False),
    sa.Column("updated_at", Millis, nullable=False),
)

operation = sa.Table(
    "operation",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("id", RunId, primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("filter", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("matched", sa.Integer, nullable=False),
    sa.Column("done", sa.Integer, nullable=False),
    sa.Column("skipped", sa.Integer, nullable=False),
    sa.Column("cursor", RunId),
    sa.Column("server", sa.String(36)),
    sa.Column("created_at", Millis, nullable=False),
    sa.Column("finished_at", Millis),
)
"""Something that is done to many runs, how far it is, and which server does it."""

task = sa.Table(
    "task",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("name", Name, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("paused", sa.Integer, nullable=False, server_default="0"),
    sa.Column("updated_at", Millis, nullable=False),
    sa.Column("removed_at", Millis),
)

worker = sa.Table(
    "worker",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("name", Name, primary_key=True),
    sa.Column("url", sa.String(2048), nullable=False),
    sa.Column("mode", sa.String(16), nullable=False),
    sa.Column("slots", sa.Integer, nullable=False),
    sa.Column("pinned", sa.Integer),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("problem", sa.Text),
    sa.Column("labels", sa.Text, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("secrets", sa.Text, nullable=False),
    sa.Column("tasks", sa.Text, nullable=False),
    sa.Column("declared", sa.Integer, nullable=False),
    sa.Column("max_batch", sa.Integer, nullable=False),
    sa.Column("manifest", sa.String(64), nullable=False),
    sa.Column("streams", sa.Integer, nullable=False, server_default="1"),
    sa.Column("created_at", Millis, nullable=False),
    sa.Column("updated_at", Millis, nullable=False),
    sa.Column("last_seen_at", Millis),
)

dispatcher = sa.Table(
    "dispatcher",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("started_at", Millis, nullable=False),
    sa.Column("lease_until", Millis, nullable=False),
    sa.Column("stopping", sa.Integer, nullable=False, server_default="0"),
)

shard = sa.Table(
    "shard",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("owner", sa.String(36)),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("lease_until", Millis, nullable=False),
)

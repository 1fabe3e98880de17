"""What a checkup reads: one snapshot of the rows, bounded however large the database is, and nothing locked.

Of a small database that is everything. Of a large one: all that is under way, what should have happened long ago, the
oldest runs that wait, and the newest of all.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.store.flow_checkup import FlowSight, look_at_flow
from hurlbat_dispatcher.store.graph_checkup import GraphSight, look_at_graphs
from hurlbat_dispatcher.store.migrate import scripts
from hurlbat_dispatcher.store.schema import (
    DELAYED,
    EXPIRING,
    HELD,
    QUEUED,
    RUNNING,
    UNHAPPY,
    WAITING,
    dispatcher,
    idempotency,
    inline,
    lane,
    run,
    shard,
    timeline,
    worker,
)
from hurlbat_dispatcher.store.statement import AnyOf, Ask, DatabaseNow, Rows, Statement, bind

EVERYTHING: Final = 1 << 30


class SeenRun(NamedTuple):
    """A run without its payloads; `has_output` and `has_error` tell whether there are any. Times are ms."""

    tenant: int
    id: str
    kind: str
    task: str
    task_version: int
    parent: str | None
    node: str | None
    lane: int
    state: str
    ready: int
    attempt: int
    tries: int
    max_attempts: int
    due_at: int
    started_at: int | None
    finished_at: int | None
    expires_at: int | None
    worker: str | None
    sender: str | None
    lease_until: int | None
    holds_until: int | None
    has_output: bool
    has_error: bool


class Told(NamedTuple):
    """How many rows of a kind the timeline has of an attempt."""

    run: str
    kind: str
    attempt: int
    rows: int


class Load(NamedTuple):
    """How many attempts a worker has in its slots, and when the last of them started (ms)."""

    worker: str
    attempts: int
    started_at: int


class SeenWorker(NamedTuple):
    """A worker, as far as it matters what it can take; `tasks` is JSON."""

    name: str
    slots: int
    state: str
    tasks: str
    updated_at: int


class SeenKey(NamedTuple):
    """An idempotency key beside the run that it names, if there is one; `until` is in ms."""

    task: str
    key: str
    run: str
    until: int | None
    run_task: str | None
    run_key: str | None
    run_state: str | None


class SeenShard(NamedTuple):
    """Who may start runs, and until when (ms)."""

    id: int
    owner: str | None
    epoch: int
    lease_until: int


class SeenServer(NamedTuple):
    """A server that has entered the database. Times are ms."""

    id: str
    started_at: int
    lease_until: int


class Queue(NamedTuple):
    """How many runs of a task are due and wait."""

    lane: int
    runs: int


@dataclass(frozen=True, slots=True)
class Sight:
    """One snapshot. `now` is the database's clock in ms; `strays` are runs that only the timeline knows.

    `most` is how many runs of a kind were looked at at most; `queues`, `delayed` and `next_due` count all of them.
    """

    now: int
    most: int
    runs: Sequence[SeenRun]
    told: Sequence[Told]
    strays: Sequence[str]
    loads: Sequence[Load]
    workers: Sequence[SeenWorker]
    lanes: dict[int, str]
    keys: Sequence[SeenKey]
    shards: Sequence[SeenShard]
    servers: Sequence[SeenServer]
    queues: Sequence[Queue]
    delayed: int
    next_due: int | None
    flow: FlowSight
    graphs: GraphSight


@dataclass(frozen=True, slots=True)
class Vessel:
    """The database itself: the version of its schema (None: it has none), and its clock (ms).

    `loose` names settings by which it acknowledges what is not on disk.
    """

    version: str | None
    older: bool
    newer: bool
    now: int
    loose: tuple[str, ...]


class _HasTable(sa.ColumnElement[bool]):
    """Whether there is a table of that name."""

    inherit_cache = False
    type = sa.Boolean()

    def __init__(self, name: str) -> None:
        self.name = name


@compiles(_HasTable, "sqlite")
def _has_table_sqlite(element: _HasTable, _: SQLCompiler, **__: Any) -> str:
    return f"EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = '{element.name}')"


@compiles(_HasTable, "postgresql")
def _has_table_postgresql(element: _HasTable, _: SQLCompiler, **__: Any) -> str:
    return f"to_regclass('{element.name}') IS NOT NULL"


class _Durability(sa.ColumnElement[str]):
    """A setting of the database that decides whether a commit is on disk: `off` where it is not.

    SQLite has none that can be seen from outside: every connection has its own.
    """

    inherit_cache = False
    type = sa.String()

    def __init__(self, name: str) -> None:
        self.name = name


@compiles(_Durability, "sqlite")
def _durability_sqlite(_: _Durability, __: SQLCompiler, **___: Any) -> str:
    return "'on'"


@compiles(_Durability, "postgresql")
def _durability_postgresql(element: _Durability, _: SQLCompiler, **__: Any) -> str:
    return f"current_setting('{element.name}')"


_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")
_VESSEL = Statement(sa.select(_HasTable("alembic_version"), DatabaseNow(), *map(_Durability, _SETTINGS)))
_VERSION = Statement(sa.select(sa.column("version_num")).select_from(sa.table("alembic_version")))

_MOST = bind("most", sa.Integer())
_BEFORE = bind("before", sa.BigInteger())
_PLAIN = [run.c[name] for name in SeenRun._fields[:-2]]
_SEEN = sa.select(*_PLAIN, run.c.output.is_not(None), run.c.error.is_not(None))
_NEWEST = Statement(_SEEN.order_by(run.c.tenant.desc(), run.c.id.desc()).limit(_MOST), ("most",))
_UNDER_WAY = Statement(_SEEN.where(RUNNING).limit(_MOST), ("most",))
_HOLDING = Statement(_SEEN.where(HELD).limit(_MOST), ("most",))
_OLDEST_QUEUED = Statement(_SEEN.where(QUEUED).order_by(run.c.tenant, run.c.id).limit(_MOST), ("most",))
_OLDEST_SUSPENDED = Statement(
    _SEEN.where(UNHAPPY, run.c.state == inline(RunState.SUSPENDED)).order_by(run.c.tenant, run.c.id).limit(_MOST),
    ("most",),
)
_OVERDUE = Statement(
    _SEEN.where(DELAYED, run.c.due_at < _BEFORE).order_by(run.c.due_at).limit(_MOST), ("before", "most")
)
_EXPIRED = Statement(
    _SEEN.where(EXPIRING, run.c.expires_at < _BEFORE).order_by(run.c.expires_at).limit(_MOST), ("before", "most")
)
_TOLD = Statement(
    sa.select(timeline.c.run, timeline.c.kind, timeline.c.attempt, sa.func.count())
    .where(timeline.c.tenant == bind("tenant", sa.Integer()), AnyOf(timeline.c.run, "ids", "uuid"))
    .group_by(timeline.c.run, timeline.c.kind, timeline.c.attempt),
    ("tenant", "ids"),
)
_newest_told = sa.select(timeline.c.tenant, timeline.c.run).order_by(timeline.c.n.desc()).limit(_MOST).subquery()
_STRAYS = Statement(
    sa.select(_newest_told.c.run)
    .distinct()
    .select_from(
        _newest_told.outerjoin(run, sa.and_(run.c.tenant == _newest_told.c.tenant, run.c.id == _newest_told.c.run))
    )
    .where(run.c.id.is_(None)),
    ("most",),
)
_LOADS = [
    Statement(
        sa.select(run.c.worker, sa.func.count(), sa.func.max(sa.func.coalesce(run.c.started_at, 0)))
        .where(which, run.c.worker.is_not(None))
        .group_by(run.c.worker)
    )
    for which in (RUNNING, sa.and_(HELD, run.c.state != "running"))
]
_WORKERS = Statement(sa.select(*(worker.c[name] for name in SeenWorker._fields)).order_by(worker.c.name))
_LANES = Statement(sa.select(lane.c.id, lane.c.task))
_some_keys = sa.select(idempotency).limit(_MOST).subquery()
_KEYS = Statement(
    sa.select(
        *(_some_keys.c[name] for name in ("task", "key", "run", "until")),
        run.c.task,
        run.c.idempotency_key,
        run.c.state,
    ).select_from(
        _some_keys.outerjoin(run, sa.and_(run.c.tenant == _some_keys.c.tenant, run.c.id == _some_keys.c.run))
    ),
    ("most",),
)
_SHARDS = Statement(sa.select(*(shard.c[name] for name in SeenShard._fields)).order_by(shard.c.id))
_SERVERS = Statement(
    sa.select(*(dispatcher.c[name] for name in SeenServer._fields)).order_by(dispatcher.c.started_at, dispatcher.c.id)
)
_QUEUES = Statement(sa.select(run.c.lane, sa.func.count()).where(WAITING).group_by(run.c.lane).order_by(run.c.lane))
_LATER = Statement(sa.select(sa.func.count(), sa.func.min(run.c.due_at)).where(DELAYED))
_NOW = Statement(sa.select(DatabaseNow()))


def look_at_vessel() -> Generator[Ask, Rows, Vessel]:
    """Read what can be told of any database, also of one that has no schema, or another version's."""
    rows = yield _VESSEL.fetch()
    there, now, *settings = rows[0]
    version = None
    if there:
        versions = yield _VERSION.fetch()
        version = versions[0][0] if versions else None
    directory = scripts()
    newer = version is not None and version not in {known.revision for known in directory.walk_revisions()}
    return Vessel(
        version,
        older=version is not None and not newer and version != directory.get_current_head(),
        newer=newer,
        now=int(now),
        loose=tuple(name for name, value in zip(_SETTINGS, settings, strict=True) if value == "off"),
    )


def look_at_rows(*, most: int = EVERYTHING, overdue: int = 0) -> Generator[Ask, Rows, Sight]:
    """Read a snapshot: at most so many runs of a kind, with those that should have moved so long ago (ms)."""
    rows = yield _NOW.fetch()
    now = int(rows[0][0])
    seen: dict[str, SeenRun] = {}
    newest = yield _NEWEST.fetch(most)
    seen.update((row[1], SeenRun._make(row)) for row in newest)
    if len(newest) == most:  # there are others
        for statement, values in (
            (_UNDER_WAY, (most,)),
            (_HOLDING, (most,)),
            (_OLDEST_QUEUED, (most,)),
            (_OLDEST_SUSPENDED, (most,)),
            (_OVERDUE, (now - overdue, most)),
            (_EXPIRED, (now - overdue, most)),
        ):
            found = yield statement.fetch(*values)
            seen.update((row[1], SeenRun._make(row)) for row in found)
    told: list[Told] = []
    for tenant in sorted({row.tenant for row in seen.values()}):
        rows = yield _TOLD.fetch(tenant, [row.id for row in seen.values() if row.tenant == tenant])
        told.extend(map(Told._make, rows))
    strays = yield _STRAYS.fetch(most)
    loads = yield from _count_loads()
    workers = yield _WORKERS.fetch()
    lanes = yield _LANES.fetch()
    keys = yield _KEYS.fetch(most)
    shards = yield _SHARDS.fetch()
    servers = yield _SERVERS.fetch()
    queues = yield _QUEUES.fetch()
    later = yield _LATER.fetch()
    flow = yield from look_at_flow(most)
    graphs = yield from look_at_graphs(
        most,
        [row.id for row in seen.values() if row.state == RunState.SUSPENDED],
        [row.parent for row in seen.values() if row.node is not None and row.parent and row.finished_at is None],
    )
    return Sight(
        now,
        most,
        list(seen.values()),
        told,
        [row[0] for row in strays],
        loads,
        list(map(SeenWorker._make, workers)),
        {row[0]: row[1] for row in lanes},
        list(map(SeenKey._make, keys)),
        list(map(SeenShard._make, shards)),
        list(map(SeenServer._make, servers)),
        list(map(Queue._make, queues)),
        later[0][0],
        later[0][1],
        flow,
        graphs,
    )


def _count_loads() -> Generator[Ask, Rows, list[Load]]:
    loads: dict[str, Load] = {}
    for statement in _LOADS:
        for row in (yield statement.fetch()):
            more = Load._make(row)
            known = loads.get(more.worker, Load(more.worker, 0, 0))
            loads[more.worker] = Load(
                more.worker, known.attempts + more.attempts, max(known.started_at, more.started_at)
            )
    return [loads[name] for name in sorted(loads)]

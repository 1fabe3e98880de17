"""Shapes of workflows, what nodes wait for, and what their owner has yet to follow: the statements."""

from collections.abc import Generator, Mapping, Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.lifecycle import FINAL
from hurlbat_dispatcher.store.graph_schema import OPEN, SLEEPING, news, shape, wait
from hurlbat_dispatcher.store.schema import event, inline, run
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, Unindexed, bind

_TENANT = bind("tenant", sa.Integer())
_UUID: Final = "uuid"


class WaitRow(NamedTuple):
    """A condition that a run waits for, as it is stored. Times are ms."""

    tenant: int
    run: str
    action: str
    clause: int
    place: int
    kind: str
    key: str | None
    scope: str | None
    expression: str | None
    since: int | None
    due_at: int | None
    met_at: int | None
    event: str | None


class NodeRow(NamedTuple):
    """A node's run as its workflow sees it."""

    id: str
    parent: str
    node: str
    state: str
    lane: int
    worker: str | None
    holds_until: int | None


class EventRow(NamedTuple):
    """An event as conditions see it."""

    id: str
    key: str
    scope: str | None
    payload: str
    metadata: str
    created_at: int


# -- shapes ------------------------------------------------------------------------------------------------------------

_SHAPE = tuple(shape.c)
KEEP_SHAPE = Statement(
    sa.insert(shape).values({column.name: bind(column.name, column.type) for column in _SHAPE}),
    tuple(column.name for column in _SHAPE),
)
SHAPE = Statement(
    sa.select(shape.c.graph).where(
        shape.c.tenant == _TENANT,
        shape.c.task == bind("task", shape.c.task.type),
        shape.c.version == bind("version", sa.Integer()),
    ),
    ("tenant", "task", "version"),
)


def shape_of(tenant: int, task: str, version: int) -> Generator[Ask, Rows, str | None]:
    """Read the graph of a version of a workflow, in JSON."""
    rows = yield SHAPE.fetch(tenant, task, version)
    return rows[0][0] if rows else None


def keep_shapes(tenant: int, shapes: Mapping[tuple[str, int], str], now: int) -> Generator[Ask, Rows, None]:
    """Store the graphs of new versions of workflows: (task, version) -> JSON."""
    if shapes:
        yield KEEP_SHAPE.write([(tenant, task, version, graph, now) for (task, version), graph in shapes.items()])


# -- nodes and children ------------------------------------------------------------------------------------------------

_OF_PARENTS = (run.c.tenant == _TENANT, AnyOf(run.c.parent, "parents", _UUID))
NODES = Statement(
    sa.select(*(run.c[name] for name in NodeRow._fields))
    .where(*_OF_PARENTS, run.c.node.is_not(None))
    .order_by(run.c.parent, run.c.node),
    ("tenant", "parents"),
)
"""The nodes of workflows as they stand; not locked: only who starts runs changes what comes of them."""
CHILDREN = Statement(
    sa.select(run.c.id)
    .where(*_OF_PARENTS, run.c.state.not_in([inline(state) for state in sorted(FINAL)]))
    .order_by(Unindexed(run.c.id))
    .limit(bind("most", sa.Integer())),
    ("tenant", "parents", "most"),
)
"""Children that have not ended, nodes among them."""
PAYLOADS = Statement(
    sa.select(run.c.id, run.c.input, run.c.metadata).where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", _UUID)),
    ("tenant", "ids"),
)
OUTPUTS = Statement(
    sa.select(run.c.id, run.c.output).where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", _UUID)), ("tenant", "ids")
)
SIZES = Statement(
    sa.select(sa.func.length(run.c.output)).where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", _UUID)),
    ("tenant", "ids"),
)
ERRORS = Statement(
    sa.select(run.c.id, run.c.error).where(run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", _UUID)), ("tenant", "ids")
)
_THIS = (run.c.tenant == bind("b_tenant", sa.Integer()), run.c.id == bind("b_id", run.c.id.type))
BEGIN = Statement(
    sa.update(run)
    .where(*_THIS)
    .values(
        state=inline("running"),
        ready=inline(1),
        worker=sa.literal_column("''"),
        sender=sa.null(),
        started_at=bind("started_at", run.c.started_at.type),
        joined_at=sa.func.coalesce(run.c.joined_at, bind("joined_at", run.c.joined_at.type)),
    ),
    ("started_at", "joined_at", "b_tenant", "b_id"),
)
"""A workflow begins; it has no attempts."""
RESUME = Statement(
    sa.update(run)
    .where(*_THIS)
    .values(
        state=inline("queued"),
        ready=inline(0),
        **{name: bind(name, run.c[name].type) for name in ("due_at", "rank", "expires_at", "trigger")},
    ),
    ("due_at", "rank", "expires_at", "trigger", "b_tenant", "b_id"),
)
"""A node that waited for a condition is due."""
SUPERSEDE = Statement(
    sa.update(run)
    .where(
        run.c.tenant == bind("b_tenant", sa.Integer()),
        run.c.parent == bind("b_parent", run.c.parent.type),
        run.c.node == bind("b_node", run.c.node.type),
    )
    .values(was_node=run.c.node, node=sa.null()),
    ("b_tenant", "b_parent", "b_node"),
)
"""A replay of its workflow runs a node anew."""
ROOTS = Statement(
    sa.select(run.c.id, run.c.parent, run.c.root, run.c.kind, run.c.state, run.c.task, run.c.worker).where(
        run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", _UUID)
    ),
    ("tenant", "ids"),
)

# -- conditions --------------------------------------------------------------------------------------------------------

_WAIT = [wait.c[name] for name in WaitRow._fields]
KEEP_WAIT = Statement(
    sa.insert(wait).values({name: bind(name, wait.c[name].type) for name in WaitRow._fields}), WaitRow._fields
)
WAITS = Statement(
    sa.select(*_WAIT)
    .where(wait.c.tenant == _TENANT, AnyOf(wait.c.run, "runs", _UUID))
    .order_by(wait.c.run, wait.c.action, wait.c.clause, wait.c.place),
    ("tenant", "runs"),
)


def _awaited(names: tuple[str, ...], scope: sa.ColumnElement[bool]) -> Statement:
    clause = sa.select(*_WAIT).where(wait.c.tenant == _TENANT, AnyOf(wait.c.key, "keys", "varchar"), OPEN, scope)
    return Statement(
        clause.order_by(Unindexed(wait.c.run), wait.c.action, wait.c.clause, wait.c.place), ("tenant", "keys", *names)
    )


AWAITED_IN = _awaited(("scopes",), AnyOf(wait.c.scope, "scopes", "varchar"))
AWAITED_ANYWHERE = _awaited((), wait.c.scope.is_(None))


def awaited(tenant: int, keys: Sequence[str], scopes: Sequence[str]) -> Generator[Ask, Rows, list[WaitRow]]:
    """Read the open conditions on events of these keys, of these scopes or of any."""
    rows = [*(yield AWAITED_ANYWHERE.fetch(tenant, list(keys)))]
    if scopes:
        rows += yield AWAITED_IN.fetch(tenant, list(keys), list(scopes))
    return list(map(WaitRow._make, rows))


DUE = Statement(
    sa.select(*_WAIT)
    .where(SLEEPING, wait.c.due_at <= bind("now", sa.BigInteger()))
    .order_by(wait.c.due_at, wait.c.run)
    .limit(bind("most", sa.Integer())),
    ("now", "most"),
)
NEXT_DUE = Statement(sa.select(sa.func.min(wait.c.due_at)).where(SLEEPING))
MEET = Statement(
    sa.update(wait)
    .where(
        wait.c.tenant == bind("b_tenant", sa.Integer()),
        wait.c.run == bind("b_run", wait.c.run.type),
        wait.c.action == bind("b_action", wait.c.action.type),
        wait.c.clause == bind("b_clause", sa.Integer()),
        wait.c.place == bind("b_place", sa.Integer()),
    )
    .values(met_at=bind("met_at", wait.c.met_at.type), event=bind("event", wait.c.event.type)),
    ("met_at", "event", "b_tenant", "b_run", "b_action", "b_clause", "b_place"),
)
FORGET_WAITS = Statement(
    sa.delete(wait).where(
        *(wait.c[name] == bind(name, wait.c[name].type) for name in ("tenant", "run", "action")),
    ),
    ("tenant", "run", "action"),
)

_EVENT = [event.c[name] for name in EventRow._fields]
EVENTS = Statement(
    sa.select(*_EVENT).where(event.c.tenant == _TENANT, AnyOf(event.c.id, "ids", "varchar")), ("tenant", "ids")
)


def _since(by_scope: bool) -> Statement:
    place = sa.tuple_(event.c.created_at, event.c.id)
    after = sa.tuple_(bind("created_at", event.c.created_at.type), bind("id", event.c.id.type))
    conditions = [event.c.tenant == _TENANT, event.c.key == bind("key", event.c.key.type), place > after]
    names = ["tenant", "key", "created_at", "id"]
    if by_scope:
        conditions.append(event.c.scope == bind("scope", event.c.scope.type))
        names.append("scope")
    clause = sa.select(*_EVENT).where(*conditions).order_by(event.c.created_at, event.c.id)
    return Statement(clause.limit(bind("most", sa.Integer())), (*names, "most"))


_SINCE = {by_scope: _since(by_scope) for by_scope in (False, True)}


def events_after(
    tenant: int, key: str, scope: str | None, place: tuple[int, str], most: int
) -> Generator[Ask, Rows, list[EventRow]]:
    """Read the next events of a key, of a scope if one is said, that were stored after a place (ms, id)."""
    given = (tenant, key, *place) if scope is None else (tenant, key, *place, scope)
    rows = yield _SINCE[scope is not None].fetch(*given, most)
    return list(map(EventRow._make, rows))


# -- what other servers have committed ---------------------------------------------------------------------------------

TELL = Statement(
    sa.insert(news).values({name: bind(name, news.c[name].type) for name in ("tenant", "kind", "subject")}),
    ("tenant", "kind", "subject"),
)
UNSEEN = Statement(
    sa.select(news.c.n, news.c.tenant, news.c.kind, news.c.subject)
    .order_by(news.c.n)
    .limit(bind("most", sa.Integer())),
    ("most",),
)
FORGET_NEWS = Statement(sa.delete(news).where(news.c.n == bind("n", news.c.n.type)), ("n",))


def outputs_of(tenant: int, ids: Sequence[str]) -> Generator[Ask, Rows, dict[str, str]]:
    """Read what runs gave, in JSON, by run."""
    rows = (yield OUTPUTS.fetch(tenant, ids)) if ids else ()
    return {row[0]: row[1] or "null" for row in rows}

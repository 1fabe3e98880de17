"""What a checkup reads of workflows: those under way with their nodes and shapes, their waits, and unread news."""

from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.runs import RunKind
from hurlbat_dispatcher.store.graph_schema import news, shape, wait
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT, NODES, RUNNING, event, inline, run
from hurlbat_dispatcher.store.statement import AnyOf, Ask, Rows, Statement, bind


class SeenFlow(NamedTuple):
    """A workflow's run that is under way; `graph` is JSON, None where its shape is missing. Times are ms."""

    id: str
    task: str
    task_version: int
    started_at: int | None
    graph: str | None


class SeenNode(NamedTuple):
    """A node of such a run."""

    parent: str
    node: str
    id: str
    state: str
    created_at: int
    finished_at: int | None


class SeenWait(NamedTuple):
    """A condition that a run waits for; `state` and `finished_at` are the run's, None where there is no run."""

    run: str
    action: str
    clause: int
    place: int
    due_at: int | None
    met_at: int | None
    state: str | None
    finished_at: int | None


class SeenNews(NamedTuple):
    """Something that the server which starts runs has yet to follow, and when that came about (ms), if it is known."""

    kind: str
    subject: str
    since: int | None


class SeenParent(NamedTuple):
    """The run that a node belongs to."""

    id: str
    state: str
    finished_at: int | None


@dataclass(frozen=True, slots=True)
class GraphSight:
    """All that one snapshot shows of workflows; of those under way only as many as have few enough nodes together."""

    flows: Sequence[SeenFlow] = ()
    nodes: Sequence[SeenNode] = ()
    waits: Sequence[SeenWait] = ()
    news: Sequence[SeenNews] = ()
    parents: Mapping[str, SeenParent] = field(default_factory=dict)
    """Of nodes that have not ended, by id."""


_TENANT = bind("tenant", sa.Integer())
_MOST = bind("most", sa.Integer())
_FLOWS = Statement(
    sa.select(*(run.c[name] for name in SeenFlow._fields[:-1]), shape.c.graph)
    .select_from(
        run.outerjoin(
            shape,
            sa.and_(shape.c.tenant == run.c.tenant, shape.c.task == run.c.task, shape.c.version == run.c.task_version),
        )
    )
    .where(RUNNING, run.c.kind == inline(RunKind.WORKFLOW))
    .order_by(run.c.id)
    .limit(_MOST),
    ("most",),
)
_OF_FLOWS = Statement(
    sa.select(*(run.c[name] for name in SeenNode._fields))
    .where(run.c.tenant == _TENANT, AnyOf(run.c.parent, "parents", "uuid"), NODES)
    .order_by(run.c.parent)
    .limit(_MOST),
    ("tenant", "parents", "most"),
)
_OWN = [wait.c[name] for name in SeenWait._fields[:-2]]
_some = sa.select(wait).limit(_MOST).subquery()
_SOME_WAITS = Statement(
    sa.select(*(_some.c[column.name] for column in _OWN), run.c.state, run.c.finished_at).select_from(
        _some.outerjoin(run, sa.and_(run.c.tenant == _some.c.tenant, run.c.id == _some.c.run))
    ),
    ("most",),
)
_WAITS_OF = Statement(
    sa.select(*_OWN, run.c.state, run.c.finished_at)
    .select_from(wait.join(run, sa.and_(run.c.tenant == wait.c.tenant, run.c.id == wait.c.run)))
    .where(wait.c.tenant == _TENANT, AnyOf(wait.c.run, "runs", "uuid")),
    ("tenant", "runs"),
)
_first = sa.select(news).order_by(news.c.n).limit(_MOST).subquery()
_NEWS = Statement(
    sa.select(_first.c.kind, _first.c.subject, event.c.created_at).select_from(
        _first.outerjoin(event, sa.and_(event.c.tenant == _first.c.tenant, event.c.id == _first.c.subject))
    ),
    ("most",),
)
_PARENTS = Statement(
    sa.select(*(run.c[name] for name in SeenParent._fields)).where(
        run.c.tenant == _TENANT, AnyOf(run.c.id, "ids", "uuid")
    ),
    ("tenant", "ids"),
)


def look_at_graphs(most: int, suspended: Iterable[str], parents: Iterable[str]) -> Generator[Ask, Rows, GraphSight]:
    """Read what a snapshot shows of workflows, at most so many rows of a kind.

    `suspended` are runs whose conditions are all read, `parents` the runs that nodes belong to which have not ended.
    """
    flows = list(map(SeenFlow._make, (yield _FLOWS.fetch(most))))
    rows = yield _OF_FLOWS.fetch(DEFAULT_TENANT, [flow.id for flow in flows], most)
    nodes = list(map(SeenNode._make, rows))
    if len(nodes) == most:  # there are others, of the last workflow perhaps, too
        flows = [flow for flow in flows if flow.id < nodes[-1].parent]
    waits = list(map(SeenWait._make, (yield _SOME_WAITS.fetch(most))))
    known = {one[:4] for one in waits}
    rows = yield _WAITS_OF.fetch(DEFAULT_TENANT, list(suspended))
    waits += [one for one in map(SeenWait._make, rows) if one[:4] not in known]
    unread = yield _NEWS.fetch(most)
    found = yield _PARENTS.fetch(DEFAULT_TENANT, sorted(set(parents)))
    return GraphSight(
        flows, nodes, waits, list(map(SeenNews._make, unread)), {row[0]: SeenParent._make(row) for row in found}
    )

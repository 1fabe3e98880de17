"""Workflows as people set and remove them, and the nodes and children of one run as they are shown: the statements."""

from collections.abc import Generator
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.domain.runs import RunKind
from hurlbat_dispatcher.store.graph_schema import shape
from hurlbat_dispatcher.store.schema import QUEUED, RUNNING, UNHAPPY, event_filter, inline, run, schedule, task
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement, Unindexed, bind

_TENANT = bind("tenant", sa.Integer())


class NodeRow(NamedTuple):
    """The run of a node as it is shown in its workflow's. Times are ms, `error` is raw JSON."""

    id: str
    node: str
    task: str
    state: str
    reason: str | None
    error: str | None
    started_at: int | None
    finished_at: int | None


# -- removing ----------------------------------------------------------------------------------------------------------

_THIS_TASK = bind("task", task.c.name.type)
LOCKED = Statement(
    sa.select(task.c.removed_at).where(task.c.tenant == _TENANT, task.c.name == _THIS_TASK).with_for_update(),
    ("tenant", "task"),
)
REMOVE = Statement(
    sa.update(task)
    .where(task.c.tenant == bind("b_tenant", sa.Integer()), task.c.name == bind("b_name", task.c.name.type))
    .values(removed_at=bind("removed_at", task.c.removed_at.type)),
    ("removed_at", "b_tenant", "b_name"),
)
DROP_SCHEDULES = Statement(
    sa.delete(schedule).where(schedule.c.tenant == _TENANT, schedule.c.task == _THIS_TASK), ("tenant", "task")
)
DROP_FILTERS = Statement(
    sa.delete(event_filter).where(event_filter.c.tenant == _TENANT, event_filter.c.task == _THIS_TASK),
    ("tenant", "task"),
)


def remove_task(tenant: int, name: str, now: int) -> Generator[Ask, Rows, bool]:
    """Keep a task only for the runs that it has, without its schedules and filters; tell whether it was there."""
    rows = yield LOCKED.fetch(tenant, name)
    if not rows or rows[0][0] is not None:
        return False
    yield REMOVE.write([(now, tenant, name)])
    yield DROP_SCHEDULES.write([(tenant, name)])
    yield DROP_FILTERS.write([(tenant, name)])
    return True


# -- runs --------------------------------------------------------------------------------------------------------------

_SUSPENDED = sa.and_(UNHAPPY, run.c.state == inline("suspended"))
_IS_WORKFLOW = run.c.kind == inline(RunKind.WORKFLOW)


def _open(where: sa.ColumnElement[bool], of_workflow: bool) -> Statement:
    kind = _IS_WORKFLOW if of_workflow else sa.not_(_IS_WORKFLOW)
    name = Unindexed(run.c.task) == _THIS_TASK
    tenant = (Unindexed(run.c.tenant) if where is RUNNING else run.c.tenant) == _TENANT
    return Statement(sa.select(run.c.id).where(tenant, where, name, kind).limit(inline(1)), ("tenant", "task"))


OPEN_RUNS = {kind: tuple(_open(where, kind) for where in (QUEUED, RUNNING, _SUSPENDED)) for kind in (True, False)}


def open_run(tenant: int, task_name: str, *, of_workflow: bool) -> Generator[Ask, Rows, str | None]:
    """Return a run of a task that has not ended, among those as a workflow or among the others; None without one."""
    for statement in OPEN_RUNS[of_workflow]:
        rows = yield statement.fetch(tenant, task_name)
        if rows:
            found: str = rows[0][0]
            return found
    return None


GRAPH = Statement(
    sa.select(shape.c.graph)
    .select_from(
        run.join(
            shape,
            sa.and_(shape.c.tenant == run.c.tenant, shape.c.task == run.c.task, shape.c.version == run.c.task_version),
        )
    )
    .where(run.c.tenant == _TENANT, run.c.id == bind("id", run.c.id.type)),
    ("tenant", "id"),
)
NODES = Statement(
    sa.select(*(run.c[name] for name in NodeRow._fields)).where(
        run.c.tenant == _TENANT, run.c.parent == bind("id", run.c.id.type), run.c.node.is_not(None)
    ),
    ("tenant", "id"),
)
CHILDREN = Statement(
    sa.select(run.c.state, sa.func.count())
    .where(
        run.c.tenant == _TENANT,
        run.c.parent == bind("id", run.c.id.type),
        run.c.node.is_(None),
        run.c.was_node.is_(None),
    )
    .group_by(run.c.state),
    ("tenant", "id"),
)


def graph_of(tenant: int, run_id: str) -> Generator[Ask, Rows, str | None]:
    """Read the graph of a workflow's run, in JSON."""
    rows = yield GRAPH.fetch(tenant, run_id)
    return rows[0][0] if rows else None


def nodes_of(tenant: int, run_id: str) -> Generator[Ask, Rows, dict[str, NodeRow]]:
    """Read the nodes of a workflow's run that were reached, by name, as they stand."""
    rows = yield NODES.fetch(tenant, run_id)
    return {found.node: found for found in map(NodeRow._make, rows)}


def children_of(tenant: int, run_id: str) -> Generator[Ask, Rows, dict[str, int]]:
    """Count the children of a run that are no nodes, by state."""
    rows = yield CHILDREN.fetch(tenant, run_id)
    return {row[0]: row[1] for row in rows}

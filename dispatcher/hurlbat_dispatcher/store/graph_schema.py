"""The tables of workflows: the shapes that runs began with, what nodes wait for, and what their owner has not seen."""

import sqlalchemy as sa

from hurlbat_dispatcher.domain.runs import CHILDREN, RunKind
from hurlbat_dispatcher.store.schema import (
    Counter,
    EventId,
    Millis,
    Name,
    RunId,
    idempotency,
    inline,
    metadata,
    partial,
    run,
)

__all__ = ["OF_A_CHILD", "OF_GRAPHS", "OPEN", "SLEEPING", "metadata", "news", "shape", "wait"]

partial("run_root", run.c.tenant, run.c.root, run.c.id, where=run.c.root.is_not(None))
OF_GRAPHS = run.c.kind != inline(RunKind.TASK)
"""A workflow, or a node of one: there are more of all others."""
partial("run_kind", run.c.tenant, run.c.kind, run.c.id, where=OF_GRAPHS)

OF_A_CHILD = idempotency.c.task == inline(CHILDREN)
partial("idempotency_child", idempotency.c.tenant, idempotency.c.run, where=OF_A_CHILD)

shape = sa.Table(
    "shape",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("task", Name, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("graph", sa.Text, nullable=False),
    sa.Column("created_at", Millis, nullable=False),
)
"""The graph of a version of a workflow, in JSON: its runs keep the one that they were made with."""

wait = sa.Table(
    "wait",
    metadata,
    sa.Column("tenant", sa.Integer, primary_key=True),
    sa.Column("run", RunId, primary_key=True),
    sa.Column("action", sa.String(8), primary_key=True),
    sa.Column("clause", sa.Integer, primary_key=True),
    sa.Column("place", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("key", sa.String(256)),
    sa.Column("scope", sa.String(256)),
    sa.Column("expression", sa.String(512)),
    sa.Column("since", Millis),
    sa.Column("due_at", Millis),
    sa.Column("met_at", Millis),
    sa.Column("event", EventId),
)
"""A condition that a run waits for: it came true at `met_at`, by that event; null while it is open."""

OPEN = wait.c.met_at.is_(None)
partial("wait_event", wait.c.tenant, wait.c.key, wait.c.scope, where=sa.and_(OPEN, wait.c.key.is_not(None)))
SLEEPING = sa.and_(OPEN, wait.c.due_at.is_not(None))
partial("wait_due", wait.c.due_at, where=SLEEPING)
MET_BY = wait.c.event.is_not(None)
partial("wait_met", wait.c.tenant, wait.c.event, where=MET_BY)

news = sa.Table(
    "news",
    metadata,
    sa.Column("n", Counter, primary_key=True, autoincrement=True),
    sa.Column("tenant", sa.Integer, nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("subject", EventId, nullable=False),
)
"""What other servers have committed and the one that starts runs has to follow, and what a turn leaves to the next."""

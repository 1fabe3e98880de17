"""Workers, and the tasks they serve."""

from collections.abc import Generator, Mapping
from typing import NamedTuple

import sqlalchemy as sa

from hurlbat_dispatcher.store.graphs import keep_shapes
from hurlbat_dispatcher.store.schema import inline, task, worker
from hurlbat_dispatcher.store.statement import Ask, Rows, Statement, bind


class WorkerRow(NamedTuple):
    """A worker as it is stored. `secrets` and `headers` are encrypted, `labels` and `tasks` are JSON; times are ms."""

    tenant: int
    name: str
    url: str
    mode: str
    slots: int
    pinned: int | None
    state: str
    problem: str | None
    labels: str
    headers: str
    secrets: str
    tasks: str
    declared: int
    max_batch: int
    manifest: str
    streams: int
    created_at: int
    updated_at: int
    last_seen_at: int | None


class TaskRow(NamedTuple):
    """A task as it is stored; `policy` is JSON, `paused` is 1 while its runs are held.

    A workflow that was removed stays, for the runs that it has; `removed_at` is when that was.
    """

    tenant: int
    name: str
    version: int
    policy: str
    paused: int
    updated_at: int
    removed_at: int | None = None


WORKERS = Statement(sa.select(*(worker.c[name] for name in WorkerRow._fields)).order_by(worker.c.tenant, worker.c.name))
TASKS = Statement(sa.select(*(task.c[name] for name in TaskRow._fields)).order_by(task.c.tenant, task.c.name))

INSERT_WORKER = Statement(
    sa.insert(worker).values({name: bind(name, worker.c[name].type) for name in WorkerRow._fields}), WorkerRow._fields
)
_CHANGED = tuple(name for name in WorkerRow._fields if name not in ("tenant", "name", "created_at"))
_THIS = (worker.c.tenant == bind("b_tenant", sa.Integer()), worker.c.name == bind("b_name", worker.c.name.type))
UPDATE_WORKER = Statement(
    sa.update(worker).where(*_THIS).values({name: bind(name, worker.c[name].type) for name in _CHANGED}),
    (*_CHANGED, "b_tenant", "b_name"),
)
SAW_WORKER = Statement(
    sa.update(worker)
    .where(*_THIS, sa.func.coalesce(worker.c.last_seen_at, inline(0)) < bind("b_seen", sa.BigInteger()))
    .values(last_seen_at=bind("last_seen_at", sa.BigInteger())),
    ("last_seen_at", "b_tenant", "b_name", "b_seen"),
)
DELETE_WORKER = Statement(sa.delete(worker).where(*_THIS), ("b_tenant", "b_name"))
_ONE_WORKER = sa.select(*(worker.c[name] for name in WorkerRow._fields)).where(*_THIS)
ONE_WORKER = Statement(_ONE_WORKER, ("b_tenant", "b_name"))
LOCKED_WORKER = Statement(_ONE_WORKER.with_for_update(), ("b_tenant", "b_name"))
INSERT_TASK = Statement(
    sa.insert(task).values({name: bind(name, task.c[name].type) for name in TaskRow._fields}), TaskRow._fields
)
UPDATE_TASK = Statement(
    sa.update(task)
    .where(task.c.tenant == bind("b_tenant", sa.Integer()), task.c.name == bind("b_name", task.c.name.type))
    .values(
        {name: bind(name, task.c[name].type) for name in ("version", "policy", "updated_at")}
        | {"removed_at": sa.null()}
    ),
    ("version", "policy", "updated_at", "b_tenant", "b_name"),
)

Registered = tuple[list[WorkerRow], list[TaskRow]]


def all_registered() -> Generator[Ask, Rows, Registered]:
    """Read every worker and task."""
    workers = yield WORKERS.fetch()
    tasks = yield TASKS.fetch()
    return list(map(WorkerRow._make, workers)), list(map(TaskRow._make, tasks))


def one_worker(tenant: int, name: str) -> Generator[Ask, Rows, WorkerRow | None]:
    """Read one worker."""
    rows = yield ONE_WORKER.fetch(tenant, name)
    return WorkerRow._make(rows[0]) if rows else None


def locked_worker(tenant: int, name: str) -> Generator[Ask, Rows, WorkerRow | None]:
    """Read one worker and lock its row, to change it."""
    rows = yield LOCKED_WORKER.fetch(tenant, name)
    return WorkerRow._make(rows[0]) if rows else None


def save_worker(row: WorkerRow, *, new: bool) -> Generator[Ask, Rows, None]:
    """Store a worker."""
    if new:
        yield INSERT_WORKER.write([row])
    else:
        values = row._asdict()
        yield UPDATE_WORKER.write([(*(values[name] for name in _CHANGED), row.tenant, row.name)])


def saw_workers(tenant: int, seen: Mapping[str, int]) -> Generator[Ask, Rows, None]:
    """Store when workers (name → ms) last answered, where nothing newer is known."""
    yield SAW_WORKER.write([(at, tenant, name, at) for name, at in sorted(seen.items())])


def remove_worker(tenant: int, name: str) -> Generator[Ask, Rows, None]:
    """Forget a worker; its tasks and runs stay."""
    yield DELETE_WORKER.write([(tenant, name)])


def declare_tasks(
    tenant: int, policies: dict[str, str], graphs: Mapping[str, str], now: int
) -> Generator[Ask, Rows, None]:
    """Adopt the newest registration of each task (name → policy in JSON); a changed policy is a new version.

    So is that of a workflow that was removed, and is there again. `graphs` are those of workflows, in JSON, which are
    kept for the runs of each version.
    """
    rows = yield TASKS.fetch()
    known = {row.name: row for row in map(TaskRow._make, rows) if row.tenant == tenant}
    fresh = [name for name in policies if name not in known]
    changed = [
        name
        for name in policies
        if name in known and (known[name].policy != policies[name] or known[name].removed_at is not None)
    ]
    yield INSERT_TASK.write([TaskRow(tenant, name, 1, policies[name], 0, now) for name in fresh])
    yield UPDATE_TASK.write([(known[name].version + 1, policies[name], now, tenant, name) for name in changed])
    versions = dict.fromkeys(fresh, 1) | {name: known[name].version + 1 for name in changed}
    yield from keep_shapes(tenant, {(name, versions[name]): graphs[name] for name in graphs if name in versions}, now)

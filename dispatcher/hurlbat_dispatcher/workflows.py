"""Workflows as people set them, look at them and remove them; what makes their runs go on is in the turn.

A workflow is a task with a graph. One that is removed stays, out of sight, for the runs that it has: they go on by the
graph that they were made with.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.declaring import declare
from hurlbat_dispatcher.disputes import Disputes
from hurlbat_dispatcher.domain.graph import Graph, Node
from hurlbat_dispatcher.domain.runs import Run, RunKind, Task
from hurlbat_dispatcher.errors import Conflict, NotFound
from hurlbat_dispatcher.graphs import read_graph
from hurlbat_dispatcher.pages import Page, page_by_name
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.store import workflows as store
from hurlbat_dispatcher.store.database import Clash, Database
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.workflows import NodeRow

T = TypeVar("T")

WAITING: Final = "waiting"
"""The state of a node that was not reached yet."""


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node of a workflow's run. Times are ms.

    `state` is that of its `run`, or `waiting` before it is reached; `reason` is why it is so, or its error's message.
    """

    name: str
    task: str
    state: str
    parents: tuple[str, ...] = ()
    run: str | None = None
    reason: str | None = None
    started_at: int | None = None
    finished_at: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """The nodes of a run in the order of its graph, none where it is no workflow's, and how many children it has.

    Children are counted by state; nodes are not among them.
    """

    nodes: tuple[NodeView, ...] | None = None
    children: Mapping[str, int] = field(default_factory=dict)


class Workflows:
    """All workflows."""

    def __init__(
        self, tenant: int, database: Database, registry: Registry, *, announce: Callable[[], Awaitable[None]]
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._announce = announce
        self._disputes = Disputes(tenant, database, registry)

    async def put(self, policy: TaskPolicy) -> tuple[Task, bool]:
        """Set a workflow; return it, and whether it is a new one. Runs that there are keep their graph.

        Raises `Invalid`, and `Conflict` for a name that is that of a task, or of a workflow that a worker declares.
        """
        known = self._known().get(policy.name)
        if known is not None and known.workers:
            raise _declared(known, "change it there")
        await available(self._disputes.settle([policy]))
        created = policy.name not in self._registry.tasks

        def script() -> Script[None]:
            now = yield from database_now()
            yield from declare(self._tenant, [policy], now)

        await self._change(script)
        return self.get(policy.name), created

    def get(self, name: str) -> Task:
        """Return a workflow. Raises `NotFound`."""
        found = self._known().get(name)
        if found is None:
            raise _unknown(name)
        return found

    def page(self, *, cursor: str | None = None, limit: int = 50) -> Page[Task]:
        """Return workflows by name."""
        return page_by_name(self._known(), cursor, limit)

    def unserved(self, workflow: Task) -> list[str]:
        """Return the tasks of a workflow's nodes that no registered worker serves, by name."""
        tasks = self._registry.tasks
        graph = workflow.graph
        wanted = {node.task for node in (*graph.nodes.values(), *graph.last)} if graph is not None else set()
        return sorted(name for name in wanted if name not in tasks or not tasks[name].is_served)

    async def delete(self, name: str) -> None:
        """Forget a workflow, its schedules and its filters; its runs go on.

        Raises `NotFound`, and `Conflict` for one that a registered worker declares.
        """
        known = self.get(name)
        if known.workers:
            raise _declared(known, "leave it out there, or remove the worker first")

        def script() -> Script[bool]:
            now = yield from database_now()
            return (yield from store.remove_task(self._tenant, name, now))

        if not await self._change(script):
            raise _unknown(name)

    async def family_of(self, run: Run) -> Family:
        """Return the nodes of a run and how many children it has. Raises `Unavailable`."""
        children, text, reached = await available(self._database.read(self._family(run)))
        if run.kind is not RunKind.WORKFLOW:
            return Family(None, children)
        return Family(tuple(_views(read_graph(text), reached, run)) if text is not None else (), children)

    def _family(self, run: Run) -> Script[tuple[dict[str, int], str | None, dict[str, NodeRow]]]:
        children = yield from store.children_of(self._tenant, run.id)
        if run.kind is not RunKind.WORKFLOW:
            return children, None, {}
        text = yield from store.graph_of(self._tenant, run.id)
        reached = yield from store.nodes_of(self._tenant, run.id)
        return children, text, reached

    def _known(self) -> dict[str, Task]:
        return {name: task for name, task in self._registry.tasks.items() if task.graph is not None}

    async def _change(self, script: Callable[[], Script[T]]) -> T:
        """Write, once more where another server has just written the same, and let all servers know."""
        try:
            done = await available(self._database.write(script()))
        except Clash:
            done = await available(self._database.write(script()))
        await available(self._announce())
        return done


def _views(graph: Graph, reached: Mapping[str, NodeRow], run: Run) -> list[NodeView]:
    """Return the nodes of a run in the order of its graph; those that follow its end only where they were reached."""
    lasts = [node for node in graph.last if node.name in reached]
    return [_view(node, reached.get(node.name), run) for node in (*graph.nodes.values(), *lasts)]


def _view(node: Node, found: NodeRow | None, run: Run) -> NodeView:
    if found is None:
        state = "cancelled" if run.is_final else WAITING
        return NodeView(node.name, node.task, state, node.parents, reason=run.reason if run.is_final else None)
    return NodeView(
        node.name,
        node.task,
        found.state,
        node.parents,
        run=found.id,
        reason=found.reason or _said(found.error),
        started_at=found.started_at,
        finished_at=found.finished_at,
    )


def _said(error: str | None) -> str | None:
    """Return what an error says, of a node that has no other reason to be as it is."""
    if error is None:
        return None
    found = json.loads(error)
    return found.get("message") if isinstance(found, dict) else None


def _declared(workflow: Task, what_to_do: str) -> Conflict:
    said = f"worker {workflow.workers[0]} declares the workflow {workflow.name}; {what_to_do}"
    return Conflict("workflow_declared", said)


def _unknown(name: str) -> NotFound:
    return NotFound("workflow_unknown", f"there is no workflow {name}")

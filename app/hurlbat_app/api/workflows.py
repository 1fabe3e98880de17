"""`/workflows`: graphs of tasks that are run as one."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from hurlbat.graph import Graph
from hurlbat.policy import OF_WORKERS, TaskPolicy
from hurlbat_app.api.answers import Json, page, show_task
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    Members,
    from_model,
    page_parameters,
    parameters,
    path_name,
    read_members,
    required,
    task_name,
    wrong,
)
from hurlbat_dispatcher import Engine, Task

_GRAPH: Final = frozenset({"nodes", "on_failure", "on_success"})
_MEMBERS: Final = (frozenset(TaskPolicy.model_fields) - {"name", "graph"}) | _GRAPH
_OF_WORKERS: Final = frozenset(OF_WORKERS) - _GRAPH
_SHOWN: Final = (
    "priority",
    "schedule_timeout",
    "concurrency",
    "rate_limits",
    "throttle",
    "on_events",
    "filters",
    "crons",
    "debounce",
    "paused",
    "workers",
)
"""Members of a task that a workflow has as well."""


class Workflows:
    """The endpoints of `/workflows`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def put(self, request: Request) -> Response:
        """Set a workflow: 201 for a new one, 200 for one that is changed, or stays as it is."""
        parameters(request)
        name = task_name(request.path_params["name"])
        policy = read_workflow(name, read_members(request, await read_body(request, self._limit), _MEMBERS))
        workflow, created = await self._engine.workflows.put(policy)
        return Json(self._show(workflow), 201 if created else 200, {"location": f"/workflows/{name}"})

    async def list(self, request: Request) -> Response:
        """List the workflows by name."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = self._engine.workflows.page(cursor=cursor, limit=limit)
        return Json(page([self._show(one) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a workflow with its graph."""
        parameters(request)
        return Json(self._show(self._engine.workflows.get(path_name(request, "workflow"))))

    async def remove(self, request: Request) -> Response:
        """Remove a workflow; the runs that it has go on."""
        parameters(request)
        await self._engine.workflows.delete(path_name(request, "workflow"))
        return Response(status_code=204)

    def _show(self, workflow: Task) -> dict[str, Any]:
        task = show_task(workflow)
        graph: Mapping[str, Any] = workflow.ways["graph"]
        return {
            "name": workflow.name,
            "version": workflow.version,
            "nodes": [_shown_node(node) for node in graph["nodes"]],
            **{name: graph[name] and _shown_node(graph[name]) for name in ("on_failure", "on_success")},
            **{name: task[name] for name in _SHOWN},
            "unserved": self._engine.workflows.unserved(workflow),
        }


def read_workflow(name: str, found: Members) -> TaskPolicy:
    """Return the policy of a workflow of which the members of its graph stand among the others. Raises `Invalid`."""
    given = {member: one.value for member, one in found.items()}
    for member in given:
        if member in _OF_WORKERS:
            raise wrong(member, "is not for a workflow, which runs on no worker; say it of the tasks of its nodes")
    required(found, "nodes")
    said = {member: given.pop(member) for member in _GRAPH if member in given}
    try:
        graph = Graph.model_validate(said)
    except ValidationError as error:
        raise from_model(error, "" if error.errors()[0]["loc"] else "nodes") from None
    try:
        return TaskPolicy.model_validate({**given, "name": name, "graph": graph})
    except ValidationError as error:
        raise from_model(error, "") from None


def _shown_node(node: Mapping[str, Any]) -> dict[str, Any]:
    return {**node, "task": node["task"] or node["name"]}

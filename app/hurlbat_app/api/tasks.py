"""`/tasks`: what the registered workers serve."""

from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json, page, show_task
from hurlbat_app.api.reading import page_parameters, parameters, path_name
from hurlbat_dispatcher import Engine


class Tasks:
    """The endpoints of `/tasks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> Response:
        """List the tasks by name."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.list_tasks(cursor=cursor, limit=limit)
        return Json(page([show_task(task) for task in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a task with the policy in force."""
        parameters(request)
        return Json(show_task(await self._engine.get_task(path_name(request, "task"))))

"""`/tasks`: what the registered workers serve."""

from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json, page, show_task
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import page_parameters, parameters, path_name, read_members
from hurlbat_dispatcher import Engine


class Tasks:
    """The endpoints of `/tasks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def list(self, request: Request) -> Response:
        """List the tasks by name."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.list_tasks(cursor=cursor, limit=limit)
        return Json(page([show_task(task) for task in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a task with the policy in force."""
        parameters(request)
        return Json(show_task(await self._engine.get_task(path_name(request, "task"))))

    async def pause(self, request: Request) -> Response:
        """Start no more runs of a task; they are held."""
        return Json(show_task(await self._engine.limits.pause_task(await self._bare(request))))

    async def resume(self, request: Request) -> Response:
        """Start a task's runs again."""
        return Json(show_task(await self._engine.limits.resume_task(await self._bare(request))))

    async def _bare(self, request: Request) -> str:
        parameters(request)
        read_members(request, await read_body(request, self._limit), frozenset())
        return path_name(request, "task")

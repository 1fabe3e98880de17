"""`/tasks/{name}/filters`: the filters by which a task chooses among events."""

from typing import Any, Final

from orjson import Fragment
from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json, page
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import Members, page_parameters, parameters, path_name, read_members, wrong
from hurlbat_dispatcher import Engine, FilterChange, ShownFilter

MEMBERS: Final = frozenset({"expression", "scope", "payload"})


class Filters:
    """The endpoints of `/tasks/{name}/filters`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def create(self, request: Request) -> Response:
        """Make a filter."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), MEMBERS)
        made = await self._engine.events.filters.create(path_name(request, "task"), **_read(found))
        return Json(_show(made), 201, {"location": f"/tasks/{made.task}/filters/{made.filter.id}"})

    async def list(self, request: Request) -> Response:
        """List a task's filters: those of its policy, then those made by hand."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.events.filters.page(path_name(request, "task"), cursor=cursor, limit=limit)
        return Json(page([_show(one) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a filter."""
        parameters(request)
        return Json(_show(await self._engine.events.filters.get(*_path(request))))

    async def update(self, request: Request) -> Response:
        """Change a filter that was made by hand."""
        parameters(request)
        said = _read(read_members(request, await read_body(request, self._limit), MEMBERS))
        return Json(_show(await self._engine.events.filters.update(*_path(request), **said)))

    async def remove(self, request: Request) -> Response:
        """Remove a filter that was made by hand."""
        parameters(request)
        await self._engine.events.filters.delete(*_path(request))
        return Response(status_code=204)


def _read(found: Members) -> FilterChange:
    """Return what is said; a null takes the expression or the scope away. The payload keeps its text."""
    said = FilterChange()
    for name in ("expression", "scope"):
        if name in found and not isinstance(found[name].value, str | None):
            raise wrong(name, "must be a string")
    if "expression" in found:
        said["expression"] = found["expression"].value
    if "scope" in found:
        said["scope"] = found["scope"].value
    if "payload" in found:
        said["payload"] = found["payload"].text
    return said


def _path(request: Request) -> tuple[str, str]:
    return path_name(request, "task"), request.path_params["filter_id"]


def _show(one: ShownFilter) -> dict[str, Any]:
    return {
        "id": one.filter.id,
        "expression": one.filter.expression,
        "scope": one.filter.scope,
        "payload": Fragment(one.filter.payload),
        "source": "api" if one.by_hand else "task",
    }

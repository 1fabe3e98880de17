"""`/schedules`: make, look, change, remove, pause, resume, start now, and say when."""

import re
from collections.abc import Callable
from typing import Any, Final

from orjson import Fragment
from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json, page, rfc3339, show_run
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    Members,
    flag_parameter,
    name_of,
    name_parameter,
    object_of,
    optional,
    page_parameters,
    parameters,
    read_members,
    required,
    text_of,
    time_of,
    whole_of,
    wrong,
)
from hurlbat_dispatcher import (
    MAX_METADATA_BYTES,
    Engine,
    Invalid,
    Missed,
    NotFound,
    Overlap,
    Schedule,
    ScheduleFire,
    ScheduleSpec,
)

MAX_EXPRESSION: Final = 256
MAX_TIMEZONE: Final = 64
MAX_TIMES: Final = 100
"""Times that are told at once."""

_ANY_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,160}")
"""Those of the crons of tasks are longer than names that one may give."""
_TAKEN: Final = frozenset({"preview"})
"""Names that are paths."""
_PREVIEW: Final = frozenset({"expression", "timezone", "count"})
_NOTHING: Final[frozenset[str]] = frozenset()


def _expression(found: Members, name: str) -> str | None:
    return text_of(found, name, MAX_EXPRESSION)


def _timezone(found: Members, name: str) -> str | None:
    return text_of(found, name, MAX_TIMEZONE)


def _metadata(found: Members, name: str) -> str | None:
    return object_of(found, name, MAX_METADATA_BYTES)


def _priority(found: Members, name: str) -> int | None:
    return whole_of(found, name, -1000, 1000)


def _missed(found: Members, name: str) -> Missed | None:
    value = optional(found, name)
    if value is not None and value not in tuple(Missed):
        raise wrong(name, 'must be "skip", "once" or "all"')
    return None if value is None else Missed(value)


def _overlap(found: Members, name: str) -> Overlap | None:
    value = optional(found, name)
    if value is not None and value not in tuple(Overlap):
        raise wrong(name, 'must be "allow", "skip" or "cancel"')
    return None if value is None else Overlap(value)


_READERS: Final[dict[str, Callable[[Members, str], Any]]] = {
    "task": name_of,
    "expression": _expression,
    "run_at": time_of,
    "timezone": _timezone,
    "metadata": _metadata,
    "priority": _priority,
    "missed": _missed,
    "overlap": _overlap,
}
_CHANGES: Final = frozenset(_READERS) | {"input"}
_SPEC: Final = _CHANGES | {"name"}


class Schedules:
    """The endpoints of `/schedules`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def create(self, request: Request) -> Response:
        """Make a schedule: 201 for a new one, 200 for one of that name that is just like it."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _SPEC)
        name_of(found, "task")
        name = optional(found, "name")
        if name is not None:
            name = name_of(found, "name")
            if name in _TAKEN:
                raise wrong("name", f"must not be {name}, which is the path of something else")
        schedule, created = await self._engine.schedules.create(ScheduleSpec(name=name, **_given(found)))
        headers = {"location": f"/schedules/{schedule.name}"}
        return Json(show_schedule(schedule), 201 if created else 200, headers)

    async def list(self, request: Request) -> Response:
        """List schedules by name."""
        query = parameters(request, "task", "paused", "cursor", "limit")
        cursor, limit = page_parameters(query)
        found = await self._engine.schedules.page(
            task=name_parameter(query, "task"),
            paused=flag_parameter(query, "paused") if "paused" in query else None,
            cursor=cursor,
            limit=limit,
        )
        return Json(page([show_schedule(one) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a schedule."""
        parameters(request)
        return Json(show_schedule(await self._engine.schedules.get(_path_name(request))))

    async def update(self, request: Request) -> Response:
        """Change what the body names of a schedule; a priority of null is the task's."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _CHANGES)
        changes = _given(found)
        if "priority" in found:
            changes["priority"] = _priority(found, "priority")
        if "expression" in changes and "run_at" in changes:
            raise wrong("run_at", "and expression exclude each other: one is for a single time, the other for many")
        return Json(show_schedule(await self._engine.schedules.update(_path_name(request), changes)))

    async def remove(self, request: Request) -> Response:
        """Remove a schedule; its runs stay."""
        parameters(request)
        await self._engine.schedules.delete(_path_name(request))
        return Response(status_code=204)

    async def pause(self, request: Request) -> Response:
        """Let a schedule fire no more."""
        return Json(show_schedule(await self._engine.schedules.pause(await self._bare(request))))

    async def resume(self, request: Request) -> Response:
        """Let a schedule fire again, from now on."""
        return Json(show_schedule(await self._engine.schedules.resume(await self._bare(request))))

    async def trigger(self, request: Request) -> Response:
        """Start a run of a schedule now."""
        run = await self._engine.schedules.trigger(await self._bare(request))
        return Json(show_run(run, timeline=False), 201, {"location": f"/runs/{run.id}"})

    async def next(self, request: Request) -> Response:
        """Say when a schedule fires next."""
        query = parameters(request, "count")
        text = query.get("count", "10")
        count = int(text) if re.fullmatch(r"\d{1,3}", text, re.ASCII) else 0
        if not 1 <= count <= MAX_TIMES:
            said = f"count must be a whole number from 1 to {MAX_TIMES}"
            raise Invalid("parameter_invalid", said, field="count", limit=MAX_TIMES)
        return _times(await self._engine.schedules.next(_path_name(request), count))

    async def fires(self, request: Request) -> Response:
        """List what came of a schedule's due times, the newest first."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.schedules.fires(_path_name(request), cursor=cursor, limit=limit)
        return Json(page([_show_fire(one) for one in found.items], found.next_cursor))

    async def preview(self, request: Request) -> Response:
        """Say when an expression would be due next."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _PREVIEW)
        required(found, "expression")
        expression, timezone = _expression(found, "expression"), _timezone(found, "timezone")
        count = whole_of(found, "count", 1, MAX_TIMES)
        return _times(self._engine.schedules.preview(expression or "", timezone or "UTC", count or 10))

    async def _bare(self, request: Request) -> str:
        parameters(request)
        read_members(request, await read_body(request, self._limit), _NOTHING)
        return _path_name(request)


def _given(found: Members) -> dict[str, Any]:
    """Return the read values of the members that are there, and not null; an input may be null."""
    given = {name: read(found, name) for name, read in _READERS.items() if optional(found, name) is not None}
    if "input" in found:
        given["input"] = found["input"].text
    return given


def _path_name(request: Request) -> str:
    """Return the schedule's name of the path. What cannot be one is not found."""
    name: str = request.path_params["name"]
    if not _ANY_NAME.fullmatch(name):
        raise NotFound("schedule_unknown", f"there is no schedule {name[:64]}")
    return name


def _times(found: list[int]) -> Json:
    return Json({"items": [rfc3339(time) for time in found]})


def show_schedule(one: Schedule) -> dict[str, Any]:
    """Return a schedule as it is shown."""
    return {
        "name": one.name,
        "task": one.task,
        "expression": one.expression,
        "run_at": _time(one.run_at),
        "timezone": one.timezone,
        "input": Fragment(one.input),
        "metadata": Fragment(one.metadata),
        "priority": one.priority,
        "missed": one.missed,
        "overlap": one.overlap,
        "paused": one.paused,
        "source": one.source,
        "next_at": _time(one.next_at),
        "last_at": _time(one.last_at),
        "last_run": one.last_run,
        "problem": one.problem,
        "created_at": rfc3339(one.created_at),
        "updated_at": rfc3339(one.updated_at),
    }


def _show_fire(one: ScheduleFire) -> dict[str, Any]:
    return {
        "due_at": rfc3339(one.due_at),
        "fired_at": rfc3339(one.fired_at),
        "manual": one.manual,
        "outcome": one.outcome,
        "run": one.run,
        "reason": one.reason,
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)

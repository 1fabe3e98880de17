"""`/runs/cancel`, `/runs/replay` and `/operations`: what is done to many runs at once, and how far it is."""

import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from hurlbat.jsontext import JsonTextError, Member, members
from hurlbat.wire import NAME_PATTERN
from hurlbat_app.api.answers import Json, page, rfc3339
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    Members,
    bad_json,
    flag_of,
    optional,
    page_parameters,
    parameters,
    read_members,
    refuse_unknown,
    required,
    text_of,
    time_of,
    wrong,
)
from hurlbat_dispatcher import BulkOperation, Engine, Invalid, OperationKind, RunFilter, RunState

MAX_IDS: Final = 1_000
_MEMBERS: Final = frozenset({"filter", "dry_run", "reason"})
FILTER: Final = frozenset({"task", "state", "created_after", "created_before", "ids"})
"""What a filter may say."""
_NAME: Final = re.compile(NAME_PATTERN)
_RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Operations:
    """The endpoints that do something to all runs of a filter."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def cancel(self, request: Request) -> Response:
        """Cancel all runs of a filter: 202, and it is done beside; in a dry run 200, and how many they are."""
        return await self._start(request, OperationKind.CANCEL)

    async def replay(self, request: Request) -> Response:
        """Queue all runs of a filter again: 202, and it is done beside; in a dry run 200, and how many they are."""
        return await self._start(request, OperationKind.REPLAY)

    async def list(self, request: Request) -> Response:
        """List operations, the newest first."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.bulk.page(cursor=cursor, limit=limit)
        return Json(page([show_operation(one) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show an operation, and how far it is."""
        parameters(request)
        return Json(show_operation(await self._engine.bulk.get(request.path_params["operation_id"])))

    async def _start(self, request: Request, kind: OperationKind) -> Response:
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _MEMBERS)
        wanted, reason = read_filter(found), text_of(found, "reason", 256)
        if flag_of(found, "dry_run"):
            return Json({"matched": await self._engine.bulk.count(kind, wanted)})
        begun = await self._engine.bulk.start(kind, wanted, reason=reason)
        return Json(show_operation(begun), 202, {"location": f"/operations/{begun.id}"})


def read_filter(found: Members) -> RunFilter:
    """Return which runs are meant. Raises `Invalid`."""
    if not isinstance(required(found, "filter"), dict):
        raise wrong("filter", "must be a JSON object")
    try:
        return _read_filter(found["filter"])
    except JsonTextError as error:
        problem = bad_json(error)
    except Invalid as error:
        problem = error
    inner = problem.extra.get("field")
    problem.extra["field"] = f"filter.{inner}" if inner else "filter"
    raise problem


def _read_filter(filter_: Member) -> RunFilter:
    found = members(filter_.text)
    refuse_unknown(found, FILTER)
    task = optional(found, "task")
    if task is not None and not (isinstance(task, str) and _NAME.fullmatch(task)):
        raise wrong("task", "must be 1 to 128 letters, digits and any of _ . : -")
    return RunFilter(
        task,
        _states(optional(found, "state")),
        time_of(found, "created_after"),
        time_of(found, "created_before"),
        _ids(optional(found, "ids")),
    )


def _states(value: Any) -> tuple[RunState, ...]:
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or any(one not in list(RunState) for one in listed):
        raise wrong("state", f"must be one of {', '.join(RunState)}, or a list of them")
    return tuple(map(RunState, listed))


def _ids(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_IDS:
        raise Invalid("member_invalid", f"ids must be a list of 1 to {MAX_IDS} ids of runs", field="ids", limit=MAX_IDS)
    for place, one in enumerate(value):
        if not isinstance(one, str) or not _RUN_ID.fullmatch(one):
            raise wrong(f"ids[{place}]", "must be the id of a run")
    return tuple(value)


def show_operation(one: BulkOperation) -> dict[str, Any]:
    """Return an operation as it is shown."""
    return {
        "id": one.id,
        "kind": one.kind,
        "state": one.state,
        "filter": _show_filter(one.filter),
        "reason": one.reason,
        "matched": one.matched,
        "done": one.done,
        "skipped": one.skipped,
        "created_at": rfc3339(one.created_at),
        "finished_at": None if one.finished_at is None else rfc3339(one.finished_at),
    }


def _show_filter(wanted: RunFilter) -> dict[str, Any]:
    """Return what was asked for, and which states that means."""
    shown: dict[str, Any] = {"state": list(wanted.states)}
    if wanted.task is not None:
        shown["task"] = wanted.task
    for name, value in (("created_after", wanted.created_after), ("created_before", wanted.created_before)):
        if value is not None:
            shown[name] = rfc3339(value)
    if wanted.ids is not None:
        shown["ids"] = list(wanted.ids)
    return shown

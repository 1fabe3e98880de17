"""`/workers`: register, look, change, prove, rotate, pause, resume, remove."""

from collections.abc import Callable
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from hurlbat.policy import TaskPolicy
from hurlbat_app.api.answers import Json, page, show_worker
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    Members,
    from_model,
    name_of,
    optional,
    page_parameters,
    parameters,
    path_name,
    read_members,
    required,
    seconds_of,
    strings_of,
    text_of,
    whole_of,
    wrong,
)
from hurlbat_dispatcher import Engine, Mode, WorkerSpec

MAX_SLOTS: Final = 10_000
MAX_LABELS: Final = 64
MAX_LABEL_CHARS: Final = 256
MAX_HEADERS: Final = 64
MAX_HEADER_CHARS: Final = 8_192
MAX_TASKS: Final = 1_000

_POLICIES: Final = TypeAdapter(tuple[TaskPolicy, ...])
_ROTATION: Final = frozenset({"secret", "algorithm", "overlap"})
_NOTHING: Final[frozenset[str]] = frozenset()


def _url(found: Members, name: str) -> str:
    value = required(found, name)
    if not isinstance(value, str):
        raise wrong(name, "must be a string")
    return value


def _mode(found: Members, name: str) -> Mode | None:
    value = optional(found, name)
    if value is None:
        return None
    if value not in ("protocol", "plain"):
        raise wrong(name, 'must be "protocol" or "plain"')
    return Mode(value)


def _tasks(found: Members, name: str) -> tuple[TaskPolicy, ...] | None:
    value = optional(found, name)
    if value is None:
        return None
    if not isinstance(value, list) or len(value) > MAX_TASKS:
        raise wrong(name, f"must be a list of at most {MAX_TASKS} tasks")
    try:
        policies = _POLICIES.validate_python(value)
    except ValidationError as error:
        raise from_model(error, name) from None
    names = [policy.name for policy in policies]
    if len(set(names)) < len(names):
        raise wrong(name, "must name each task once")
    return policies


def _secret(found: Members, name: str) -> str | None:
    return text_of(found, name, 256)


def _slots(found: Members, name: str) -> int | None:
    return whole_of(found, name, 1, MAX_SLOTS)


def _window(found: Members, name: str) -> int | Literal["auto"] | None:
    return "auto" if optional(found, name) == "auto" else whole_of(found, name, 1, MAX_SLOTS, 'or "auto"')


def _labels(found: Members, name: str) -> dict[str, str] | None:
    return strings_of(found, name, MAX_LABELS, MAX_LABEL_CHARS)


def _headers(found: Members, name: str) -> dict[str, str] | None:
    return strings_of(found, name, MAX_HEADERS, MAX_HEADER_CHARS)


_READERS: Final[dict[str, Callable[[Members, str], Any]]] = {
    "url": _url,
    "slots": _slots,
    "window": _window,
    "mode": _mode,
    "tasks": _tasks,
    "secret": _secret,
    "labels": _labels,
    "headers": _headers,
}
_CHANGES: Final = frozenset(_READERS)
_SPEC: Final = _CHANGES | {"name"}


class Workers:
    """The endpoints of `/workers`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def register(self, request: Request) -> Response:
        """Register a worker: 201 for a new one, 200 for one of that name. A secret made here is shown this once."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _SPEC)
        name, url = name_of(found, "name"), _url(found, "url")
        registered = await self._engine.register_worker(WorkerSpec(name=name, url=url, **_given(found, "url")))
        shown = show_worker(registered.worker)
        if registered.secret is not None:
            shown["secret"] = registered.secret
        return Json(shown, 201 if registered.created else 200, {"location": f"/workers/{name}"})

    async def list(self, request: Request) -> Response:
        """List the workers by name."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.list_workers(cursor=cursor, limit=limit)
        return Json(page([show_worker(worker) for worker in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a worker."""
        parameters(request)
        return Json(show_worker(await self._engine.get_worker(path_name(request, "worker"))))

    async def update(self, request: Request) -> Response:
        """Change what the body names of a worker."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _CHANGES)
        return Json(show_worker(await self._engine.update_worker(path_name(request, "worker"), **_given(found))))

    async def remove(self, request: Request) -> Response:
        """Remove a worker; its runs wait for another one that serves their tasks."""
        parameters(request)
        await self._engine.delete_worker(path_name(request, "worker"))
        return Response(status_code=204)

    async def sync(self, request: Request) -> Response:
        """Prove a worker again and take its manifest."""
        return Json(show_worker(await self._engine.sync_worker(await self._bare(request))))

    async def rotate(self, request: Request) -> Response:
        """Sign by a new key, and by the old ones for a while. A secret made here is shown this once."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _ROTATION)
        name = path_name(request, "worker")
        rotated = await self._engine.rotate_secret(name, **_read_rotation(found))
        shown = show_worker(rotated.worker)
        if rotated.secret is not None:
            shown["secret"] = rotated.secret
        return Json(shown)

    async def pause(self, request: Request) -> Response:
        """Send no more runs to a worker; they are held."""
        return Json(show_worker(await self._engine.pause_worker(await self._bare(request))))

    async def resume(self, request: Request) -> Response:
        """Send runs to a paused or disabled worker again."""
        return Json(show_worker(await self._engine.resume_worker(await self._bare(request))))

    async def _bare(self, request: Request) -> str:
        parameters(request)
        read_members(request, await read_body(request, self._limit), _NOTHING)
        return path_name(request, "worker")


def _read_rotation(found: Members) -> dict[str, Any]:
    algorithm = optional(found, "algorithm")
    if algorithm not in (None, "v1", "v1a"):
        raise wrong("algorithm", 'must be "v1" (HMAC-SHA256) or "v1a" (Ed25519)')
    overlap = seconds_of(found, "overlap", zero=True)
    given = {"secret": _secret(found, "secret"), "algorithm": algorithm, "overlap": overlap}
    return {name: value for name, value in given.items() if value is not None}


def _given(found: Members, *but: str) -> dict[str, Any]:
    """Return the read values of the members that are there, and not null."""
    return {
        name: read(found, name)
        for name, read in _READERS.items()
        if name not in but and name in found and found[name].value is not None
    }

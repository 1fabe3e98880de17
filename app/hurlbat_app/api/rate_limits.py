"""`/rate-limits`: put, look, remove, pause, resume."""

import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hurlbat.wire import NAME_PATTERN
from hurlbat_app.api.answers import Json, page, show_rate_limit
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    flag_parameter,
    millis_of,
    page_parameters,
    parameters,
    read_members,
    required,
    whole_of,
    wrong,
)
from hurlbat_dispatcher import Engine, Invalid, NotFound

MAX_LIMIT: Final = 1_000_000_000
MIN_SECONDS: Final = 0.01
MAX_SECONDS: Final = 31_622_400
"""366 days."""
MAX_KEY_BYTES: Final = 400
"""Of a dynamic key, in UTF-8: a throttle's has its task before it."""

_KEY: Final = re.compile(NAME_PATTERN)
_SPEC: Final = frozenset({"limit", "duration"})
_NOTHING: Final[frozenset[str]] = frozenset()


class RateLimits:
    """The endpoints of `/rate-limits`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def put(self, request: Request) -> Response:
        """Set a static rate limit: 201 for a new one, 200 for one that is changed."""
        parameters(request)
        key: str = request.path_params["key"]
        if not _KEY.fullmatch(key):
            raise wrong("key", "must be 1 to 128 letters, digits and any of _ . : -")
        found = read_members(request, await read_body(request, self._limit), _SPEC)
        for name in ("limit", "duration"):
            required(found, name)
        most, duration = whole_of(found, "limit", 0, MAX_LIMIT), millis_of(found, "duration", MIN_SECONDS, MAX_SECONDS)
        assert most is not None  # it is required
        limit, created = await self._engine.limits.put(key, most, duration)
        return Json(show_rate_limit(limit), 201 if created else 200, {"location": f"/rate-limits/{key}"})

    async def list(self, request: Request) -> Response:
        """List the static rate limits, or the dynamic ones that are in use."""
        query = parameters(request, "dynamic", "cursor", "limit")
        cursor, limit = page_parameters(query)
        limits = self._engine.limits
        pages = limits.dynamic_page if flag_parameter(query, "dynamic") else limits.page
        found = await pages(cursor=cursor, limit=limit)
        return Json(page([show_rate_limit(one) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a static rate limit."""
        parameters(request)
        return Json(show_rate_limit(await self._engine.limits.get(_static_key(request))))

    async def remove(self, request: Request) -> Response:
        """Remove a static rate limit that no run draws on."""
        parameters(request)
        await self._engine.limits.delete(_static_key(request))
        return Response(status_code=204)

    async def pause(self, request: Request) -> Response:
        """Start nothing more that draws on a key."""
        key, dynamic = await self._bare(request)
        return Json(show_rate_limit(await self._engine.limits.pause(key, dynamic=dynamic)))

    async def resume(self, request: Request) -> Response:
        """Start what draws on a key again."""
        key, dynamic = await self._bare(request)
        return Json(show_rate_limit(await self._engine.limits.resume(key, dynamic=dynamic)))

    async def _bare(self, request: Request) -> tuple[str, bool]:
        dynamic = flag_parameter(parameters(request, "dynamic"), "dynamic")
        read_members(request, await read_body(request, self._limit), _NOTHING)
        return _dynamic_key(request) if dynamic else _static_key(request), dynamic


def _static_key(request: Request) -> str:
    """Return the key of the path. What cannot be one is not found."""
    key: str = request.path_params["key"]
    if not _KEY.fullmatch(key):
        raise NotFound("rate_limit_unknown", f"there is no rate limit {key[:64]}")
    return key


def _dynamic_key(request: Request) -> str:
    key: str = request.path_params["key"]
    if not key or "\0" in key or len(key.encode()) > MAX_KEY_BYTES:
        raise Invalid("parameter_invalid", f"a dynamic key has 1 to {MAX_KEY_BYTES} bytes, and no NUL", field="key")
    return key

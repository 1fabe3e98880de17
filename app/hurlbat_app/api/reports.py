"""`/runs/{run_id}/attempts/{attempt}`: what a worker reports of an attempt that it did not answer on its connection.

The lease token of the attempt is the bearer token; nothing else opens these doors, and it opens no others.
"""

import hashlib
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hurlbat.jsontext import Member
from hurlbat.wire import MAX_MESSAGE_CHARS, BadLine, CancelledLine, FailedLine, Result, read_result
from hurlbat_app.api.answers import Json
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.gate import bearer_token
from hurlbat_app.api.reading import (
    Members,
    attempt_number,
    parameters,
    read_members,
    required,
    run_id,
    wrong,
)
from hurlbat_dispatcher import Engine, Invalid

MAX_ENTRIES: Final = 100
MAX_LEVEL_CHARS: Final = 32

_NOTHING: Final[frozenset[str]] = frozenset()
_COMPLETE: Final = frozenset({"output"})
_FAIL: Final = frozenset({"error", "retryable", "retry_after", "rate_limit_key"})
_CANCEL: Final = frozenset({"reason"})
_LOG: Final = frozenset({"entries"})
_FAILED: Final = Member("failed", '"failed"')
_CANCELLED: Final = Member("cancelled", '"cancelled"')
_RECORDED: Final = {"recorded": True}


class Reports:
    """The endpoints of the reporting API."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes

    async def heartbeat(self, request: Request) -> Response:
        """Renew the lease; the answer says whether the run was cancelled."""
        run, attempt, token = self._opened(request)
        await self._read(request, _NOTHING)
        reply = await self._engine.report_heartbeat(run, attempt, token)
        return Json({"cancelled": reply.cancelled, "lease": reply.lease})

    async def complete(self, request: Request) -> Response:
        """Take the output of an attempt that succeeded."""
        run, attempt, token = self._opened(request)
        found, digest = await self._read(request, _COMPLETE)
        output = found["output"].text if "output" in found else "null"
        await self._engine.report_complete(run, attempt, token, output, digest)
        return Json(_RECORDED)

    async def fail(self, request: Request) -> Response:
        """Take the error of an attempt that failed."""
        run, attempt, token = self._opened(request)
        found, digest = await self._read(request, _FAIL)
        line = _result({**found, "state": _FAILED}, run, attempt)
        assert isinstance(line, FailedLine)
        await self._engine.report_fail(run, attempt, token, line, digest)
        return Json(_RECORDED)

    async def cancel(self, request: Request) -> Response:
        """Take it that the task ended its run as cancelled."""
        run, attempt, token = self._opened(request)
        found, digest = await self._read(request, _CANCEL)
        line = _result({**found, "state": _CANCELLED}, run, attempt)
        assert isinstance(line, CancelledLine)
        await self._engine.report_cancel(run, attempt, token, line, digest)
        return Json(_RECORDED)

    async def log(self, request: Request) -> Response:
        """Take lines for the run's timeline."""
        run, attempt, token = self._opened(request)
        found, _ = await self._read(request, _LOG)
        await self._engine.report_log(run, attempt, token, _entries(found))
        return Json(_RECORDED)

    def _opened(self, request: Request) -> tuple[str, int, str]:
        """Return run, attempt and token, when the token opens them; before the body is read."""
        run, attempt, token = run_id(request), attempt_number(request), bearer_token(request)
        self._engine.check_lease(run, attempt, token)
        return run, attempt, token

    async def _read(self, request: Request, known: frozenset[str]) -> tuple[Members, bytes]:
        parameters(request)
        body = await read_body(request, self._limit)
        digest = hashlib.sha256(request.scope["path"].encode() + b"\n" + body).digest()
        return read_members(request, body, known), digest


def _result(found: Members, run: str, attempt: int) -> Result:
    try:
        return read_result(found, run, attempt)
    except BadLine as error:
        raise Invalid("member_invalid", str(error)) from error


def _entries(found: Members) -> list[tuple[str, str]]:
    listed = required(found, "entries")
    if not isinstance(listed, list) or len(listed) > MAX_ENTRIES:
        raise wrong("entries", f"must be a list of at most {MAX_ENTRIES}")
    entries = []
    for place, entry in enumerate(listed):
        field = f"entries[{place}]"
        if not isinstance(entry, dict) or not entry.keys() <= {"level", "message"}:
            raise wrong(field, "must be an object with level and message")
        level, message = entry.get("level", "info"), entry.get("message")
        if not isinstance(level, str) or len(level) > MAX_LEVEL_CHARS:
            raise wrong(f"{field}.level", f"must be a string of at most {MAX_LEVEL_CHARS} characters")
        if not isinstance(message, str):
            raise wrong(f"{field}.message", "must be a string")
        entries.append((level, message[:MAX_MESSAGE_CHARS]))
    return entries

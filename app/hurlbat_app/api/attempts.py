"""`/runs/{run_id}/attempts`: what was sent to the worker, what came back, and what was made of it."""

from typing import Any

from orjson import Fragment
from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json, page, rfc3339
from hurlbat_app.api.reading import attempt_number, page_parameters, parameters, run_id
from hurlbat_dispatcher import AttemptView, Engine

_REQUEST = ("url", "bytes", "sha256", "runs", "headers")


class Attempts:
    """The endpoints below `/runs/{run_id}/attempts` that need the API token."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list(self, request: Request) -> Response:
        """List the attempts of a run, the last one first."""
        cursor, limit = page_parameters(parameters(request, "cursor", "limit"))
        found = await self._engine.attempts.list(run_id(request), cursor=cursor, limit=limit)
        return Json(page([_show(one) for one in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show an attempt with what was sent and what came."""
        parameters(request)
        view = await self._engine.attempts.get(run_id(request), attempt_number(request))
        return Json(_show(view) | _show_delivery(view))


def _show(view: AttemptView) -> dict[str, Any]:
    attempt = view.attempt
    return {
        "run_id": attempt.run_id,
        "attempt": attempt.attempt,
        "task": attempt.task,
        "worker": attempt.worker,
        "state": attempt.state,
        "charged": attempt.charged,
        "code": attempt.code,
        "sentence": view.sentence,
        "started_at": None if attempt.started_at is None else rfc3339(attempt.started_at),
        "finished_at": None if attempt.finished_at is None else rfc3339(attempt.finished_at),
    }


def _show_delivery(view: AttemptView) -> dict[str, Any]:
    if view.delivery is None:
        return {"request": None, "response": None, "timings": None, "trouble": None}
    sent = view.delivery["request"]
    request = {
        "id": view.attempt.delivery,
        "method": "POST",
        **{name: sent[name] for name in _REQUEST},
        "key_ids": sent["headers"].get("hurlbat-key-ids", "").split(),
        "body": Fragment(view.message or "null"),
    }
    return {"request": request} | {name: view.delivery[name] for name in ("response", "timings", "trouble")}

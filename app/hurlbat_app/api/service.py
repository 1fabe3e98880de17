"""The server about itself: health, metrics, the contract."""

import asyncio
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from hurlbat_app.api.answers import Json
from hurlbat_app.api.contract import contract_json
from hurlbat_app.api.reading import parameters
from hurlbat_app.reference import reference
from hurlbat_dispatcher import Engine

_GZIP: Final = re.compile(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", re.IGNORECASE)
"""In `Accept-Encoding`: gzip, and not as what must not be."""


class Service:
    """The endpoints that are about no run and no worker."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def live(self, _: Request) -> Response:
        """Say that the process answers."""
        return Json({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """Say that runs are accepted, or 503 and why not."""
        self._engine.ready()
        return Json({"status": "ready"})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics in Prometheus' text format."""
        parameters(request)
        return Response(self._engine.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(self, request: Request) -> Response:
        """Return the contract in JSON."""
        parameters(request)
        return Response(contract_json(), media_type="application/json")

    async def docs(self, request: Request) -> Response:
        """Return the contract as a page to read. It is made when it is first asked for, beside the event loop."""
        parameters(request)
        page = await asyncio.to_thread(reference)
        headers = {
            "content-security-policy": page.policy,
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "vary": "accept-encoding",
        }
        if _GZIP.search(request.headers.get("accept-encoding", "")):
            return Response(page.gzipped, headers={**headers, "content-encoding": "gzip"}, media_type="text/html")
        return Response(page.html, headers=headers, media_type="text/html")

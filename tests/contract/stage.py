"""Every worker that made-up requests can name: a forward proxy that answers in their place.

A server whose `HURLBAT_PROXY` is this app finds a worker behind every plain http URL, and reaches nobody else:

    http://127.0.0.2/hurlbat/   a protocol worker, with the tasks `echo`, `fail` and `aside`
    any other                   a plain worker that takes an attempt and says that it will report it

`GET /taken/{run_id}` waits for such an attempt and tells its number and lease token.
"""

import asyncio
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Host, Mount, Route, Router

from hurlbat import Hurlbat, NonRetryable

SECRET = "whsec_Y29udHJhY3QtY29udHJhY3QtY29udHJhY3Qh"
PROTOCOL_URL = "http://127.0.0.2/hurlbat/"
PLAIN_URL = "http://127.0.0.3/"
TAKEN_SECONDS = 5.0

hurlbat = Hurlbat(signing_secret=SECRET)
taken: dict[str, dict[str, Any]] = {}
news = asyncio.Condition()


@hurlbat.task
async def echo(input: Any) -> Any:
    return input


@hurlbat.task
async def fail(input: Any) -> None:
    raise NonRetryable("as it was told")


@hurlbat.task(on_events="contract.aside")
async def aside(input: Any) -> None:
    return None


async def take(request: Request) -> Response:
    """Take what a plain worker is sent, and promise a report."""
    for run in (await request.json())["data"]["runs"]:
        taken[run["run_id"]] = {"attempt": run["attempt"], "lease_token": run["lease_token"]}
    async with news:
        news.notify_all()
    return Response(status_code=202, headers={"hurlbat-async": "1"})


async def tell(request: Request) -> Response:
    """Wait for an attempt of a run; 404 if none comes."""
    run_id = request.path_params["run_id"]
    try:
        async with asyncio.timeout(TAKEN_SECONDS), news:
            await news.wait_for(lambda: run_id in taken)
    except TimeoutError:
        return Response(status_code=404)
    return JSONResponse(taken.pop(run_id))


app = Starlette(
    routes=[
        Host("127.0.0.2", Router([Mount("/hurlbat", hurlbat.asgi())])),
        Host("127.0.0.1", Router([Route("/taken/{run_id}", tell)])),
        Route("/{rest:path}", take, methods=["POST"]),
    ]
)

"""The app whose tasks the tests here declare: each worker is mounted when a test asks for it, and has a journal.

`PUT /declare/{worker}` with a list of policies mounts a worker at `/{worker}/` that serves these tasks, in the place of
what was there. What a run does is said by its input: hold for `ms`, or until the file `gate` exists, or fail its first
attempt with `retry_after` (seconds, and the key of a rate limit or null). `FLOW_LOG` names the journal, to which the
start and the end of each attempt are appended at once, in ms of CLOCK_MONOTONIC.
"""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from hurlbat import Context, Hurlbat, RetryAfter

_log = os.open(os.environ["FLOW_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def tell(event: str, worker: str, ctx: Context) -> None:
    at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e6
    line = {"event": event, "at": at, "worker": worker, "task": ctx.task, "run_id": ctx.run_id, "attempt": ctx.attempt}
    os.write(_log, f"{json.dumps(line)}\n".encode())


def is_open(gate: str) -> bool:
    return Path(gate).exists()


def acting_at(worker: str) -> Callable[[dict[str, Any], Context], Awaitable[None]]:
    async def act(input: dict[str, Any], ctx: Context) -> None:
        tell("started", worker, ctx)
        try:
            await asyncio.sleep(input.get("ms", 0) / 1000)
            while "gate" in input and not is_open(input["gate"]):  # noqa: ASYNC110 - somebody else opens it
                await asyncio.sleep(0.005)
            if "retry_after" in input and ctx.attempt == 1:
                seconds, key = input["retry_after"]
                raise RetryAfter(seconds, rate_limit_key=key)
        finally:
            tell("ended", worker, ctx)

    return act


async def declare(request: Request) -> Response:
    worker = request.path_params["worker"]
    hurlbat = Hurlbat()
    task: Any = hurlbat.task
    for policy in await request.json():
        task(**policy)(acting_at(worker))
    app.routes.insert(0, Mount(f"/{worker}", hurlbat.asgi()))  # before one of that name, which it replaces
    return Response(status_code=204)


app = Starlette(routes=[Route("/declare/{worker}", declare, methods=["PUT"])])

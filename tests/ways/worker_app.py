"""A worker in plain HTTP that notes what it was sent, word for word, and does what the input says.

The input, or the first of a list, may say: hold for `ms`, hold until the file `gate` exists, or fail the first `fails`
attempts. `WAYS_LOG` names the journal, to which each run is appended as it comes.
"""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_log = os.open(os.environ["WAYS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def said_by(given: Any) -> dict[str, Any]:
    """Return what the input asks for."""
    first = given[0] if isinstance(given, list) and given else given
    return first if isinstance(first, dict) else {}


def is_open(gate: str) -> bool:
    return Path(gate).exists()


async def work(request: Request) -> Response:
    message = json.loads(await request.body())
    [run] = message["data"]["runs"]
    noted = {name: run.get(name) for name in ("run_id", "task", "attempt", "input", "metadata", "trigger")}
    os.write(_log, f"{json.dumps(noted)}\n".encode())
    said = said_by(run["input"])
    await asyncio.sleep(said.get("ms", 0) / 1000)
    while "gate" in said and not is_open(said["gate"]):  # noqa: ASYNC110 - somebody else opens it
        await asyncio.sleep(0.005)
    if run["attempt"] <= said.get("fails", 0):
        return Response("it was asked to fail", status_code=500)
    return JSONResponse({"done": run["input"]})


async def there(_: Request) -> Response:
    return Response(status_code=204)


app = Starlette(routes=[Route("/", there, methods=["GET"]), Route("/", work, methods=["POST"])])

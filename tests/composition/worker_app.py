"""The app whose tasks the tests here declare: nodes and children that do what their input says, and note what they do.

`PUT /declare/{worker}` with a list of policies mounts a worker by the SDK at `/{worker}/` that serves these tasks; one
with `"thread": true` is a sync function. `POST /plain/` is a plain worker of any task. A member `does` of the input
says for each node, or task, what its run does there:

- `spawn`: submit children first, `{"task", "inputs", "child_key", "wait", "return_exceptions"}`
- `ms`, `gate`: go on after so long, or when that file exists
- `hangs`, `fails`: never end, or fail, in so many first attempts; `raise`: fail for good; `give_up`: cancel itself
- `stubborn`: when it is cancelled go on until that file exists
- `output`: what to return, instead of the node's name and what it knows of its parents; `letters`: a text of so many;
  `text`: the raw body, of a plain worker

`FLOW_LOG` names the journal, to which each start, cancellation and end is appended at once, in ms of CLOCK_MONOTONIC.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from hurlbat import CancelRun, Context, Hurlbat, NonRetryable, RunError

_log = os.open(os.environ["FLOW_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
TICK = 0.005


def tell(event: str, run: Mapping[str, Any], **more: Any) -> None:
    at = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1e6
    os.write(_log, f"{json.dumps({'event': event, 'at': at, **run, **more})}\n".encode())


def is_open(gate: str) -> bool:
    return Path(gate).exists()


def name_of(task: str, trigger: Mapping[str, Any] | None) -> str:
    """Return the name of the node that a run is, or else that of its task."""
    return str((trigger or {}).get("node") or task)


def said_to(name: str, input: Any) -> dict[str, Any]:
    """Return what the input says to it."""
    does: dict[str, dict[str, Any]] = input.get("does", {}) if isinstance(input, dict) else {}
    return does.get(name, {})


def run_of(worker: str, name: str, ctx: Context) -> dict[str, Any]:
    """Return what the journal says of a run."""
    shown = {"worker": worker, "task": ctx.task, "run_id": ctx.run_id, "attempt": ctx.attempt, "node": name}
    parents = (ctx.trigger or {}).get("parents", {})
    shown["skipped"] = [parent for parent in parents if ctx.was_skipped(parent)]
    return shown | {"parents": dict(ctx.parents), "conditions": list(ctx.conditions), "metadata": dict(ctx.metadata)}


def end(said: Mapping[str, Any], run: Mapping[str, Any]) -> Any:
    """End as it is said."""
    if run["attempt"] <= said.get("fails", 0):
        raise ConnectionError("it was asked to fail")
    if "raise" in said:
        raise NonRetryable(said["raise"])
    if "give_up" in said:
        raise CancelRun(said["give_up"])
    if "letters" in said:
        return "x" * said["letters"]
    return said.get("output", {"node": run["node"], "parents": run["parents"]})


async def spawn(hurlbat: Hurlbat, asked: Mapping[str, Any]) -> Any:
    """Submit children, and wait for them if that is said; return their outputs, or what is raised as text."""
    task, inputs = hurlbat.stub(asked["task"]), asked["inputs"]
    more: Any = {"child_key": asked["child_key"]} if "child_key" in asked else {}
    if not asked.get("wait"):
        return [ref.id for ref in await task.run_many_no_wait(inputs, **more)]
    if len(inputs) == 1:
        return [await task.run(inputs[0], **more)]
    if asked.get("return_exceptions"):
        found = await task.run_many(inputs, return_exceptions=True, **more)
        return [type(one).__name__ if isinstance(one, RunError) else one for one in found]
    return await task.run_many(inputs, **more)


def acting(hurlbat: Hurlbat, worker: str) -> Callable[..., Any]:
    async def act(input: Any, ctx: Context) -> Any:
        name = name_of(ctx.task, ctx.trigger)
        said, run = said_to(name, input), run_of(worker, name, ctx)
        tell("started", run)
        try:
            if "spawn" in said:
                spawned = await spawn(hurlbat, said["spawn"])
                said = {"output": {"spawned": spawned}} | said
            if ctx.attempt <= said.get("hangs", 0):
                await asyncio.Event().wait()
            await asyncio.sleep(said.get("ms", 0) / 1000)
            while "gate" in said and not is_open(said["gate"]):  # noqa: ASYNC110 - somebody else opens it
                await asyncio.sleep(TICK)
            return end(said, run)
        except asyncio.CancelledError:
            tell("cancelled", run)
            if "stubborn" not in said:
                raise
            while not is_open(said["stubborn"]):  # noqa: ASYNC110 - somebody else opens it
                await asyncio.sleep(TICK)
            return "it went on"
        finally:
            tell("ended", run)

    return act


def acting_in_thread(worker: str) -> Callable[..., Any]:
    def act(input: Any, ctx: Context) -> Any:
        name = name_of(ctx.task, ctx.trigger)
        said, run = said_to(name, input), run_of(worker, name, ctx)
        tell("started", run)
        try:
            while "gate" in said and not is_open(said["gate"]):
                if ctx.cancelled:
                    tell("cancelled", run)
                    ctx.raise_if_cancelled()
                time.sleep(TICK)
            return end(said, run)
        finally:
            tell("ended", run)

    return act


async def declare(request: Request) -> Response:
    worker, hurlbat = request.path_params["worker"], Hurlbat()
    task: Any = hurlbat.task
    for policy in await request.json():
        in_thread = policy.pop("thread", False)
        task(**policy)(acting_in_thread(worker) if in_thread else acting(hurlbat, worker))
    app.routes.insert(0, Mount(f"/{worker}", hurlbat.asgi()))  # before one of that name, which it replaces
    return Response(status_code=204)


async def plain(request: Request) -> Response:
    [given] = json.loads(await request.body())["data"]["runs"]
    trigger, parents = given.get("trigger") or {}, given.get("parents", {})
    name = name_of(given["task"], trigger)
    said = said_to(name, given["input"])
    run = {member: given[member] for member in ("task", "run_id", "attempt", "metadata")}
    run |= {"worker": "plain", "node": name, "parents": parents, "conditions": trigger.get("conditions", [])}
    tell("started", run)
    try:
        await asyncio.sleep(said.get("ms", 0) / 1000)
        while "gate" in said and not is_open(said["gate"]):
            if await request.is_disconnected():
                tell("cancelled", run)
                return Response(status_code=204)
            await asyncio.sleep(TICK)
        if "text" in said:
            return Response(said["text"], media_type="application/json")
        return JSONResponse(end(said, run))
    except Exception as error:
        return Response(str(error), status_code=500)
    finally:
        tell("ended", run)


async def there(_: Request) -> Response:
    return Response(status_code=204)


app = Starlette(
    routes=[
        Route("/declare/{worker}", declare, methods=["PUT"]),
        Route("/plain/", there, methods=["GET"]),
        Route("/plain/", plain, methods=["POST"]),
    ]
)

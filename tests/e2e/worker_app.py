"""The app that is the worker here: FastAPI with tasks of every kind, mounted as a user would.

`E2E_LOG` names a file to which every start is appended at once, so that a killed process has told what it began.
"""

import asyncio
import json
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from hurlbat import Backoff, Context, Hurlbat, NonRetryable

hurlbat = Hurlbat()
_log = os.open(os.environ["E2E_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
SOON = Backoff(strategy="fixed", initial=0.1, jitter=False)


def tell(event: str, ctx: Context) -> None:
    line = {"event": event, "run_id": ctx.run_id, "attempt": ctx.attempt, "pid": os.getpid()}
    os.write(_log, f"{json.dumps(line)}\n".encode())


def is_open(gate: str) -> bool:
    return Path(gate).exists()


class Numbers(BaseModel):
    first: int
    second: int = 1


@dataclass
class Name:
    name: str


@hurlbat.task
async def add(input: Numbers, ctx: Context) -> int:
    tell("started", ctx)
    return input.first + input.second


@hurlbat.task
def greet(input: Name) -> dict[str, str]:
    return {"greeting": f"Hello, {input.name}!"}


@hurlbat.task(retries=3, backoff=SOON)
async def succeed_at_third(ctx: Context) -> int:
    tell("started", ctx)
    if ctx.attempt < 3:
        raise ConnectionError(f"not yet at attempt {ctx.attempt}")
    return ctx.attempt


@hurlbat.task(retries=5)
async def refuse(input: str) -> None:
    raise NonRetryable(f"{input} is out of the question")


@hurlbat.task
async def narrate(ctx: Context) -> dict[str, Any]:
    ctx.log("it has begun", "warning")
    ctx.progress(0.5, "half of it")
    return dict(ctx.metadata)


@hurlbat.task(execution_timeout=600)
async def hold(input: str, ctx: Context) -> str:
    """Go on until the file exists; a cancelled one says so."""
    tell("started", ctx)
    try:
        while not is_open(input):  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        tell("cancelled", ctx)
        raise
    return "let go"


@hurlbat.task(name="hold-in-thread", execution_timeout=600)
def hold_in_thread(input: str, ctx: Context) -> str:
    tell("started", ctx)
    while not is_open(input):
        if ctx.cancelled:
            tell("cancelled", ctx)
            ctx.raise_if_cancelled()
        time.sleep(0.01)
    return "let go"


@hurlbat.task(retries=10, backoff=SOON)
async def work(input: int, ctx: Context) -> int:
    """Take a moment, so that a kill meets it in the middle."""
    tell("started", ctx)
    await asyncio.sleep(random.uniform(0.005, 0.05))
    return input * 2


@hurlbat.task
async def once(input: int, ctx: Context) -> int:
    """Take a moment, with no second try."""
    tell("started", ctx)
    await asyncio.sleep(random.uniform(0.005, 0.05))
    return input


app = FastAPI(lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())


@app.get("/hello/{name}")
async def hello(name: str) -> dict[str, str]:
    return await greet.run(Name(name))


@app.get("/hello-sync/{name}")
def hello_sync(name: str) -> dict[str, str]:
    return greet.run_sync(Name(name))


@app.get("/sums/{count}")
async def sums(count: int) -> list[int]:
    return await add.run_many([Numbers(first=n) for n in range(count)])


@app.get("/later/{number}")
async def later(number: int) -> str:
    return (await add.run_no_wait(Numbers(first=number))).id

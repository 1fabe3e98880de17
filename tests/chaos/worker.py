"""The worker of a chaos run: tasks that note when they begin and when they end, before anybody else can know it.

A line is one write to a file that every worker process appends to: what a killed process has done stays noted.
"""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel

from hurlbat import Backoff, Context, Hurlbat, NonRetryable

hurlbat = Hurlbat()
app = hurlbat.asgi()

_log = os.open(os.environ["CHAOS_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_worker = os.environ["CHAOS_WORKER"]
_SOON = Backoff(strategy="fixed", initial=0.2, jitter=False)


class Order(BaseModel):
    """What a run is to do: take so long, and stumble at its first attempt or not."""

    number: int
    seconds: float = 0.0
    stumbles: bool = False


class Done(BaseModel):
    """Which attempt has done it."""

    number: int
    attempt: int


def note(event: str, ctx: Context) -> None:
    """Append a line to the log."""
    line = {
        "event": event,
        "run_id": ctx.run_id,
        "attempt": ctx.attempt,
        "worker": _worker,
        "pid": os.getpid(),
        "at": time.time(),
    }
    os.write(_log, f"{json.dumps(line)}\n".encode())


@contextmanager
def noted(ctx: Context) -> Iterator[None]:
    """Note the beginning and how it ended."""
    note("begin", ctx)
    try:
        yield
    except asyncio.CancelledError:
        note("stopped", ctx)
        raise
    except BaseException:
        note("failed", ctx)
        raise
    note("completed", ctx)


@hurlbat.task(retries=3, backoff=_SOON)
async def work(input: Order, ctx: Context) -> Done:
    """Take a while; stumble once if told to."""
    with noted(ctx):
        await asyncio.sleep(input.seconds)
        if input.stumbles and ctx.attempt == 1:
            raise ConnectionError("stumbled, as told")
    return Done(number=input.number, attempt=ctx.attempt)


@hurlbat.task
async def once(input: Order, ctx: Context) -> Done:
    """Take a while, with no second try."""
    with noted(ctx):
        await asyncio.sleep(input.seconds)
    return Done(number=input.number, attempt=ctx.attempt)


@hurlbat.task(retries=1, backoff=_SOON)
async def doomed(input: Order, ctx: Context) -> Done:
    """Fail, at every second number for good at once."""
    with noted(ctx):
        await asyncio.sleep(input.seconds)
        if input.number % 2:
            raise NonRetryable("out of the question")
        raise ConnectionError("fails at every attempt")

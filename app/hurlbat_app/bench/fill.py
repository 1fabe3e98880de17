"""Load a server with the runs of a scenario, through the API as anybody would: bulk submits over a few connections."""

import asyncio
import time
from collections.abc import Callable, Iterator
from itertools import islice

import orjson
import uvloop

from hurlbat_app.bench.client import REFUSED_PAUSE, SubmitFailed
from hurlbat_app.bench.wire import Connection, ConnectionLost

CONNECTIONS = 3
BATCH = 1_000
TOLD_EVERY = 10.0
"""Seconds between two words about how far it is."""


class FillFailed(Exception):
    """The runs could not be submitted; the message says why."""


def fill(url: str, token: str, runs: Iterator[bytes], count: int, say: Callable[[str], None]) -> float:
    """Submit all runs and return the seconds that it took. Raises `FillFailed`."""
    try:
        return uvloop.run(_fill(url, token, runs, count, say))
    except* (SubmitFailed, ConnectionLost, OSError) as failures:
        raise FillFailed(f"loading failed: {failures.exceptions[0]!r}") from failures


async def _fill(url: str, token: str, runs: Iterator[bytes], count: int, say: Callable[[str], None]) -> float:
    began = time.monotonic()
    done, told = 0, began

    async def submit(connection: Connection) -> None:
        nonlocal done, told
        while batch := list(islice(runs, BATCH)):
            while batch:
                refused = await _post(connection, batch)
                done += len(batch) - len(refused)
                batch = refused
            if time.monotonic() - told >= TOLD_EVERY:
                told = time.monotonic()
                say(f"  {done:,} of {count:,}, {done / (told - began):,.0f} a second")

    connections = [await Connection.open(f"{url}/runs/bulk", token) for _ in range(CONNECTIONS)]
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(submit(connection))
    for connection in connections:
        connection.close()
    return time.monotonic() - began


async def _post(connection: Connection, batch: list[bytes]) -> list[bytes]:
    """Submit a batch; return what was refused for want of room, after a pause."""
    status, text = await connection.post(b'{"runs":[' + b",".join(batch) + b"]}")
    if status == 503:
        await asyncio.sleep(REFUSED_PAUSE)
        return batch
    if status != 200:
        raise SubmitFailed(f"the server answered {status}: {text[:500].decode(errors='replace')}")
    refused = []
    for run, result in zip(batch, orjson.loads(text)["results"], strict=True):
        if "id" not in result:
            if result.get("status") != 503:
                raise SubmitFailed(f"a run was refused: {result}")
            refused.append(run)
    if refused:
        await asyncio.sleep(REFUSED_PAUSE)
    return refused

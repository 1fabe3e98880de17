"""The client process of the bench: submits runs as fast as they are acknowledged and writes down how long each took.

`python -m hurlbat_app.bench.client JSON` with the fields of `Load` prints one JSON object, the fields of `Done`.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import orjson
import uvloop

from hurlbat_app.bench.wire import Connection

PATIENCE = 120.0
"""Seconds that a load may take, besides 20 ms for each run."""
IDLE_PAUSE = 0.01
"""Seconds between two runs of an idle load: by then the first is stored."""
REFUSED_PAUSE = 0.02
"""Seconds before a run that was refused for want of room is submitted again."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to submit, and to which servers.

    `idle` is one run at a time with a pause between, to the first server; `batch` is runs in a bulk submit.
    """

    urls: list[str]
    token: str
    task: str
    runs: int
    submit: Literal["single", "bulk", "idle"]
    clients: int
    batch: int = 1


@dataclass(slots=True)
class Done:
    """What came of it, run by run: its id, when its submit began, and how long until that was acknowledged."""

    ids: list[str] = field(default_factory=list)
    began_ns: list[int] = field(default_factory=list)
    took_ns: list[int] = field(default_factory=list)
    refused: int = 0
    cpu_seconds: float = 0.0


class SubmitFailed(Exception):
    """The server answered something that the bench has no use for."""


async def submit(load: Load) -> Done:
    """Submit the whole load and return when every run is acknowledged."""
    done, used = Done(), time.process_time()
    run = {"task": load.task, "input": {"user_id": 12345, "plan": "pro", "items": [1, 2, 3, 4, 5]}}
    size = load.batch if load.submit == "bulk" else 1
    sizes = iter([min(size, load.runs - start) for start in range(0, load.runs, size)])
    bulk = load.submit == "bulk"
    path = "/runs/bulk" if bulk else "/runs"
    count = 1 if load.submit == "idle" else load.clients
    urls = [load.urls[n % len(load.urls)] + path for n in range(count)]
    connections = [await Connection.open(url, load.token) for url in urls]
    pause = IDLE_PAUSE if load.submit == "idle" else 0.0
    async with asyncio.timeout(PATIENCE + load.runs / 50), asyncio.TaskGroup() as clients:
        for connection in connections:
            clients.create_task(
                _bulk(connection, run, sizes, done) if bulk else _single(connection, run, sizes, done, pause)
            )
    for connection in connections:
        connection.close()
    done.cpu_seconds = time.process_time() - used
    return done


async def _single(connection: Connection, run: dict[str, Any], sizes: Iterator[int], done: Done, pause: float) -> None:
    body = orjson.dumps(run)
    for _ in sizes:
        began, ticks = time.time_ns(), time.perf_counter_ns()
        while True:
            status, text = await connection.post(body)
            if status == 201:
                break
            await _refused(status, text, done)
        done.took_ns.append(time.perf_counter_ns() - ticks)
        done.began_ns.append(began)
        done.ids.append(orjson.loads(text)["id"])
        if pause:
            await asyncio.sleep(pause)


async def _bulk(connection: Connection, run: dict[str, Any], sizes: Iterator[int], done: Done) -> None:
    for size in sizes:
        missing = size
        while missing:
            began, ticks = time.time_ns(), time.perf_counter_ns()
            status, text = await connection.post(orjson.dumps({"runs": [run] * missing}))
            took = time.perf_counter_ns() - ticks
            if status not in (200, 201, 207):
                await _refused(status, text, done)
                continue
            results = orjson.loads(text)["results"]
            accepted = [result["id"] for result in results if "id" in result]
            done.ids += accepted
            done.began_ns += [began] * len(accepted)
            done.took_ns += [took] * len(accepted)
            missing -= len(accepted)
            for result in results:
                if "id" not in result and result.get("status") != 503:
                    raise SubmitFailed(f"a run was refused: {result}")
            if missing:
                done.refused += missing
                await asyncio.sleep(REFUSED_PAUSE)


async def _refused(status: int, text: bytes, done: Done) -> None:
    if status != 503:
        raise SubmitFailed(f"the server answered {status}: {text[:500].decode(errors='replace')}")
    done.refused += 1
    await asyncio.sleep(REFUSED_PAUSE)


if __name__ == "__main__":
    found = uvloop.run(submit(Load(**orjson.loads(sys.argv[1]))))
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:  # Python's own may be unbuffered, and cut it short
        output.write(orjson.dumps(asdict(found)))

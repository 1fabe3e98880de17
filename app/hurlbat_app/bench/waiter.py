"""The process of the bench that waits for runs, as many clients would.

`python -m hurlbat_app.bench.waiter JSON` with the fields of `Wait`. First it parks: so many connections submit a run
each that will not start, and wait for its end; then it writes a line. It reads lines: for each it makes that many short
runs, one at a time, waits for each at the last server, and writes the milliseconds from the ends of the runs to the
answers as JSON. When it is killed, all who wait are gone with it.
"""

import asyncio
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import uvloop

from hurlbat_app.bench.wire import Connection

CONNECTS_AT_ONCE = 64
NAP = 0.03
"""Seconds that a run takes, so that somebody waits for it when it ends."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Whom to ask. Runs are submitted to the first server and waited for at the last; `parked` wait all the time."""

    urls: list[str]
    token: str
    task: str
    parked: int
    seconds: float
    """How long one who is parked waits at most."""


async def wait(given: Wait) -> None:
    """Park, and measure whenever a line comes."""
    parked = await _park(given)
    submitting = await Connection.open(f"{given.urls[0]}/runs", given.token)
    waiting = await Connection.open(given.urls[-1], given.token)
    _say({"parked": len(parked)})
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _say({"took_ms": [await _measured(given, submitting, waiting) for _ in range(int(line))]})
        if any(one.done() for one in parked):
            raise RuntimeError("one who was to wait has been answered")
    for one in parked:
        one.cancel()


async def _measured(given: Wait, submitting: Connection, waiting: Connection) -> float:
    """Return the milliseconds from when a run had ended, as it is stored, to the answer."""
    status, text = await submitting.post(orjson.dumps({"task": given.task, "input": {"nap": NAP}}))
    if status != 201:
        raise RuntimeError(f"a submit was answered {status}: {text[:500]!r}")
    status, text = await waiting.get(f"/runs/{orjson.loads(text)['id']}?wait={given.seconds}")
    answered = time.time()
    run: dict[str, Any] = orjson.loads(text)
    if run["state"] != "completed":
        raise RuntimeError(f"a run is {run['state']}, not completed: {run['error']}")
    return round(1000 * (answered - datetime.fromisoformat(run["finished_at"]).timestamp()), 3)


async def _park(given: Wait) -> list[asyncio.Future[Any]]:
    body = orjson.dumps({"task": given.task, "delay": 86_400})
    parked: list[asyncio.Future[Any]] = []
    url = f"{given.urls[-1]}/runs?wait={given.seconds}"
    while len(parked) < given.parked:
        some = [Connection.open(url, given.token) for _ in range(min(CONNECTS_AT_ONCE, given.parked - len(parked)))]
        parked += [asyncio.ensure_future(connection.post(body)) for connection in await asyncio.gather(*some)]
    return parked


def _say(said: dict[str, Any]) -> None:
    sys.stdout.write(f"{orjson.dumps(said).decode()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(wait(Wait(**orjson.loads(sys.argv[1]))))

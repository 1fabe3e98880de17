"""The worker that is pushed to while the bench runs: one task that does nothing, and a log of every start.

The log (`HURLBAT_BENCH_LOG`) has a line `run_id attempt nanoseconds` for each. A scenario adds a second task with rules
(`HURLBAT_BENCH_HELD`: its policy as JSON); what starts of it is in a log of its own and, if the input says `hang`, does
not end unless it is cancelled, which a third log tells; with a `nap` it takes so many seconds.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from hurlbat import Context, Hurlbat
from hurlbat.policy import Manifest

_path = Path(os.environ["HURLBAT_BENCH_LOG"])
_log = _path.open("a", buffering=1)
_delivery = int(os.environ["HURLBAT_BENCH_DELIVERY"])


class BenchWorker(Hurlbat):
    """A worker that takes so many runs in one delivery, and not as many as the protocol allows."""

    def manifest(self) -> Manifest:
        """Return the manifest with the bench's own limit."""
        return super().manifest().model_copy(update={"max_batch": _delivery})


hurlbat = BenchWorker()


@hurlbat.task(name=os.environ["HURLBAT_BENCH_TASK"])
async def nothing(input: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001 - as a real task would have
    """Note that the attempt has started."""
    _log.write(f"{ctx.run_id} {ctx.attempt} {time.time_ns()}\n")


if "HURLBAT_BENCH_HELD" in os.environ:
    _held_log = _path.with_name("held").open("a", buffering=1)
    _stopped_log = _path.with_name("stopped").open("a", buffering=1)

    async def held(input: dict[str, Any], ctx: Context) -> None:
        """Note that one has started which rules should hold, but for a few."""
        _held_log.write(f"{ctx.run_id} {ctx.attempt} {time.time_ns()}\n")
        if input.get("hang"):
            try:
                await asyncio.Event().wait()
            finally:
                _stopped_log.write(f"{ctx.run_id} {ctx.attempt} {time.time_ns()}\n")
        await asyncio.sleep(input.get("nap", 0))

    hurlbat.task(name=f"{os.environ['HURLBAT_BENCH_TASK']}-held", **json.loads(os.environ["HURLBAT_BENCH_HELD"]))(held)


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    async with hurlbat.lifespan(app):
        yield
    _log.close()


app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())], lifespan=_lifespan)

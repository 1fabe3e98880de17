"""The worker that is pushed to while the bench runs: one task that does nothing, and a log of every start.

The log (`HURLBAT_BENCH_LOG`) has a line `run_id attempt nanoseconds` for each, and is whole when the process has ended.
"""

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Mount

from hurlbat import Context, Hurlbat

_log = Path(os.environ["HURLBAT_BENCH_LOG"]).open("a", buffering=1 << 20)  # noqa: SIM115 - closed by the lifespan

hurlbat = Hurlbat(max_batch=int(os.environ["HURLBAT_BENCH_DELIVERY"]))


@hurlbat.task(name=os.environ["HURLBAT_BENCH_TASK"])
async def nothing(input: dict[str, Any], ctx: Context) -> None:  # noqa: ARG001 - as a real task would have
    """Note that the attempt has started."""
    _log.write(f"{ctx.run_id} {ctx.attempt} {time.time_ns()}\n")


@asynccontextmanager
async def _close_log(_: Starlette) -> AsyncIterator[None]:
    yield
    _log.close()


app = Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())], lifespan=_close_log)

"""A worker with a task that takes as long as its caller likes, to be told to stop in the middle of it."""

import asyncio
from pathlib import Path

from fastapi import FastAPI

from hurlbat import Hurlbat

hurlbat = Hurlbat()


@hurlbat.task
async def slow(end: str) -> str:
    """Go on until there is a file of this name."""
    while not Path(end).exists():  # noqa: ASYNC110, ASYNC240  # another process makes it
        await asyncio.sleep(0.02)
    return "done"


app = FastAPI(lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())

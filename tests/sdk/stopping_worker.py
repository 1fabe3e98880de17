"""A worker with a task that takes long, to be told to stop in the middle of it."""

import asyncio

from fastapi import FastAPI

from hurlbat import Hurlbat

hurlbat = Hurlbat()


@hurlbat.task
async def slow(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


app = FastAPI(lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())

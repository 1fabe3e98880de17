"""Calls of an API that allows ten in ten seconds: they wait their turn, however many are asked for at once."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI

from hurlbat import Hurlbat, RateLimit, RetryAfter

SERVICE = os.environ.get("WEATHER_URL", "http://127.0.0.1:8001")
LIMIT = int(os.environ.get("WEATHER_LIMIT", "10"))
SECONDS = float(os.environ.get("WEATHER_SECONDS", "10"))

hurlbat = Hurlbat()
service = httpx.AsyncClient(base_url=SERVICE)


# A call is counted when it starts, and so many start in no window of that time, wherever it is placed. If the service
# refuses one all the same, as others use its key, too, none is made until it allows that again.
@hurlbat.task(retries=5, rate_limits=RateLimit(dynamic_key="'weather'", limit=LIMIT, duration=SECONDS))
async def look_up(city: str) -> int:
    answer = await service.get(f"/weather/{city}")
    if answer.status_code == 429:
        raise RetryAfter(float(answer.headers["Retry-After"]), rate_limit_key="weather")
    answer.raise_for_status()
    return int(answer.json()["celsius"])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with service, hurlbat.lifespan(app):
        yield


app = FastAPI(title="Travel agency", lifespan=lifespan)
app.mount("/hurlbat", hurlbat.asgi())


@app.post("/trips", status_code=202)
async def plan(cities: list[str]) -> dict[str, list[str]]:
    """Answer at once, whatever the service allows."""
    return {"runs": [ref.id for ref in await look_up.run_many_no_wait(cities)]}

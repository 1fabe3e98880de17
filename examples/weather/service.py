"""Somebody else's API: it allows so many requests in any window of so many seconds, and counts what is too much.

uvicorn examples.weather.service:app --port 8001
"""

import os
import time
from collections import deque

from fastapi import FastAPI, HTTPException

LIMIT = int(os.environ.get("WEATHER_LIMIT", "10"))
SECONDS = float(os.environ.get("WEATHER_WINDOW", "8"))

app = FastAPI(title="Weather")
answered: deque[float] = deque()
counted = {"answered": 0, "refused": 0}


@app.get("/weather/{city}")
async def weather(city: str) -> dict[str, str | int]:
    now = time.monotonic()
    while answered and answered[0] <= now - SECONDS:
        answered.popleft()
    if len(answered) >= LIMIT:
        counted["refused"] += 1
        raise HTTPException(429, "too many requests", {"Retry-After": f"{answered[0] + SECONDS - now:.3f}"})
    answered.append(now)
    counted["answered"] += 1
    return {"city": city, "celsius": sum(city.encode()) % 35}


@app.get("/counted")
async def told() -> dict[str, int]:
    return counted

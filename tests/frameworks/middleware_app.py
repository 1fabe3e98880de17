"""Handlers behind middleware that reads, changes or compresses what goes through it, each at a path of its own.

`uvicorn tests.frameworks.middleware_app:app`.
"""

import gzip
import json
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hurlbat import Hurlbat

hurlbat = Hurlbat()


@hurlbat.task(name="behind.shout")
async def shout(text: str) -> str:
    return text.upper()


async def read_the_body(request: Request, call_next: RequestResponseEndpoint) -> Response:
    await request.body()
    return await call_next(request)


async def parse_the_body(request: Request, call_next: RequestResponseEndpoint) -> Response:
    if request.method == "POST":
        await request.json()
    return await call_next(request)


async def use_the_body_up(request: Request, call_next: RequestResponseEndpoint) -> Response:
    async for _ in request.stream():
        pass
    return await call_next(request)


class WriteItAnew:
    """Parses each body and passes on what it has made of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def anew() -> Message:
            body = b""
            while (message := await receive()).get("more_body"):
                body += message["body"]
            body += message.get("body", b"")
            return {"type": "http.request", "body": json.dumps(json.loads(body), indent=1).encode()}

        await self.app(scope, anew if scope["type"] == "http" else receive, send)


class CompressAnyway:
    """Compresses each answer, whatever the request accepts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def compressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [pair for pair in message["headers"] if pair[0] != b"content-length"]
                message["headers"] = [*headers, (b"content-encoding", b"gzip")]
            else:
                message["body"] = gzip.compress(message["body"])
            await send(message)

        await self.app(scope, receive, compressed)


def behind(*middleware: Middleware) -> Any:
    return Starlette(routes=[Mount("/hurlbat", hurlbat.asgi())], middleware=list(middleware))


def in_front_of(*middleware: Middleware) -> Any:
    return Starlette(middleware=[Middleware(hurlbat.mount), *middleware])


BAD = (
    Middleware(BaseHTTPMiddleware, dispatch=use_the_body_up),
    Middleware(WriteItAnew),
    Middleware(CompressAnyway),
)
PLACES = {
    "gzip": behind(Middleware(GZipMiddleware, minimum_size=0)),
    "read": behind(Middleware(BaseHTTPMiddleware, dispatch=read_the_body)),
    "parsed": behind(Middleware(BaseHTTPMiddleware, dispatch=parse_the_body)),
    "used-up": behind(BAD[0]),
    "written-anew": behind(BAD[1]),
    "compressed": behind(BAD[2]),
    "in-front": in_front_of(*BAD),
}
inner = FastAPI()
inner.add_middleware(hurlbat.mount)
middle = FastAPI()
middle.mount("/inner", inner)

app = FastAPI(lifespan=hurlbat.lifespan)
for place, mounted in PLACES.items():
    app.mount(f"/{place}", mounted)
app.mount("/outer", middle)

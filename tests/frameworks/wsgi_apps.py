"""Apps of WSGI frameworks with the same tasks, each mounted as its users would; `WORKER` begins the tasks' names.

`gunicorn tests.frameworks.wsgi_apps:flask_app`, or `django_app`, `alone`, `whole`.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from flask import Flask
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from hurlbat import Backoff, Context, Hurlbat, NonRetryable, conformance, wsgi

NAME = os.environ["WORKER"]
wsgi.HOLD_SECONDS = float(os.environ.get("HOLD_SECONDS", wsgi.HOLD_SECONDS))
imported_in = os.getpid()


@asynccontextmanager
async def life(hurlbat: Hurlbat) -> AsyncIterator[dict[str, int]]:
    yield {"pid": os.getpid(), "opener": threading.get_ident()}


hurlbat = Hurlbat(lifespan=life)
conformance.serve(hurlbat)
SOON = Backoff(strategy="fixed", initial=0.1, jitter=False)


@hurlbat.task(name=f"{NAME}.where")
async def where(ctx: Context) -> dict[str, Any]:
    """Tell where an async task runs."""
    ctx.log("looking", "warning")
    return {
        "pid": os.getpid(),
        "imported_in": imported_in,
        "thread": threading.current_thread().name,
        "opened_here": ctx.state == {"pid": os.getpid(), "opener": threading.get_ident()},
    }


@hurlbat.task(name=f"{NAME}.where-sync")
def where_sync(ctx: Context) -> dict[str, Any]:
    return {"thread": threading.current_thread().name, "opened": ctx.state["pid"] == os.getpid()}


@hurlbat.task(name=f"{NAME}.third", retries=3, backoff=SOON)
def succeed_at_third(ctx: Context) -> int:
    if ctx.attempt < 3:
        raise ConnectionError(f"not yet at attempt {ctx.attempt}")
    return ctx.attempt


@hurlbat.task(name=f"{NAME}.refuse", retries=3)
async def refuse(input: str) -> None:
    raise NonRetryable(f"{input} is out of the question")


def tell(path: str) -> None:
    Path(path).touch()


def is_open(gate: str) -> bool:
    return Path(gate).exists()


@hurlbat.task(name=f"{NAME}.hold", execution_timeout=120)
async def hold(input: str, ctx: Context) -> str:
    """Go on until the file exists, and tell in another who has begun; a cancelled one says so there."""
    tell(f"{input}.begun")
    try:
        while not is_open(input):  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        tell(f"{input}.cancelled")
        raise
    return "let go"


flask_app = Flask(__name__)
flask_app.wsgi_app = hurlbat.mount_wsgi(flask_app.wsgi_app)  # type: ignore[method-assign]


@flask_app.get("/")
def hello() -> str:
    return "Hello from Flask"


dispatched = Flask("dispatched")
dispatched.wsgi_app = DispatcherMiddleware(dispatched.wsgi_app, {"/hurlbat": hurlbat.wsgi()})  # type: ignore[method-assign]
dispatched.add_url_rule("/", view_func=hello)


def hello_django(request: HttpRequest) -> HttpResponse:
    return HttpResponse("Hello from Django")


urlpatterns = [path("", hello_django)]

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="not a secret", ALLOWED_HOSTS=["*"], DEBUG=False)
django.setup()
django_app = hurlbat.mount_wsgi(get_wsgi_application())

alone = hurlbat.wsgi()
whole = hurlbat.wsgi(stream=False)
if "START_EARLY" in os.environ:  # in the process that loads the app, which may not be the one that serves it
    alone.start()

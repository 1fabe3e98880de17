"""Put a worker beside an ASGI application of any kind: one path is the worker's, all else stays the application's.

The worker stands in front of the application with all its middleware, so that none of it reads a body, compresses an
answer, redirects to another slash or asks for a login. It lives within the application's lifespan.
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from traceback import format_exception
from typing import Any

from hurlbat.errors import ConfigError
from hurlbat.outbox import ASGIMessage, Receive, Send

Application = Callable[[Any, Any, Any], Awaitable[Any]]
"""Any ASGI application, whatever types it has for a scope and a message."""
Lifespan = Callable[[], AbstractAsyncContextManager[None]]

logger = logging.getLogger("hurlbat")


class Mounted:
    """An ASGI application with a worker at one path, with or without a slash behind. `Hurlbat.mount()` makes one."""

    def __init__(self, app: Application, path: str, handler: Application, lifespan: Lifespan) -> None:
        if not callable(app):
            raise ConfigError(f"mount() takes the ASGI application first, and the path second; {app!r} is none")
        if not path.startswith("/"):
            raise ConfigError(f"the path {path!r} does not begin with a slash")
        self._app = app
        self._path = path.rstrip("/")
        self._handler = handler
        self._lifespan = lifespan

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and _path_within(scope).rstrip("/") == self._path:
            await self._handler(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Any, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            life = _Life(self._lifespan, stack, receive, send)
            try:
                await self._app(scope, life.receive, life.send)
            except Exception as error:
                if life.answered:
                    raise
                # servers take it for no support as well; Django says so by an error
                logger.info("the application has no lifespan of its own: %s", error)
            if life.answered:
                await life.end()
            else:
                await self._handler(scope, life.again, send)


class _Life:
    """The lifespan of an application with another one within it, which starts after it and stops before it."""

    def __init__(self, within: Lifespan, stack: AsyncExitStack, receive: Receive, send: Send) -> None:
        self.answered = False
        """Whether the application has said how it started."""
        self._within = within
        self._stack = stack
        self._receive = receive
        self._send = send
        self._heard: list[ASGIMessage] = []
        self._runs = False
        self._failure: Exception | None = None

    async def receive(self) -> ASGIMessage:
        """Hear what the server says, as the application does."""
        if self.answered and not self._runs:  # it has failed to start, and the server says nothing more
            return {"type": "lifespan.shutdown"}
        message = await self._receive()
        self._heard.append(message)
        if message["type"] == "lifespan.shutdown":
            await self._stop()
        return message

    async def again(self) -> ASGIMessage:
        """Hear it anew, where the application has left it unanswered."""
        return self._heard.pop(0) if self._heard else await self._receive()

    async def send(self, message: ASGIMessage) -> None:
        """Tell the server what the application says, when what is within it has come as far."""
        match message["type"]:
            case "lifespan.startup.complete":
                self.answered = True
                await self._send(await self._start(message))
            case "lifespan.startup.failed":
                self.answered = True
                await self._send(message)
            case "lifespan.shutdown.complete" if self._failure is not None:
                if self._runs:
                    await self._send(_failed("shutdown", self._failure))
            case _:
                await self._send(message)

    async def end(self) -> None:
        """Wait for the end where the application did not. Raises what went wrong within it."""
        if self._runs and not self._heard_of("lifespan.shutdown"):
            while (await self.receive())["type"] != "lifespan.shutdown":
                pass
            await self.send({"type": "lifespan.shutdown.complete"})
        if self._failure is not None:
            raise self._failure

    async def _start(self, message: ASGIMessage) -> ASGIMessage:
        try:
            await self._stack.enter_async_context(self._within())
        except Exception as error:
            self._failure = error
            return _failed("startup", error)
        self._runs = True
        return message

    async def _stop(self) -> None:
        try:
            await self._stack.aclose()
        except Exception as error:
            self._failure = error

    def _heard_of(self, kind: str) -> bool:
        return any(message["type"] == kind for message in self._heard)


def _failed(phase: str, error: BaseException) -> ASGIMessage:
    return {"type": f"lifespan.{phase}.failed", "message": "".join(format_exception(error))}


def _path_within(scope: Any) -> str:
    """Return the path below the application's own; servers and proxies differ in whether they leave that in."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path

"""The worker's door under WSGI: drives the handler, which is an ASGI application, on an event loop in a thread.

The thread of the server that has a request waits here for what the handler says, and hands it to the server piece by
piece. Tasks run on the one loop and in its pool of threads, whichever thread has brought them.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import Any

from hurlbat.background import Background
from hurlbat.errors import ConfigError
from hurlbat.handler import Handler, Limit, problem
from hurlbat.outbox import ASGIMessage
from hurlbat.reading import CHANGED, CONSUMED, BodyRefused
from hurlbat.wire import HEADER_WORKER, PROBLEM_TYPE

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApplication = Callable[[Environ, StartResponse], Iterable[bytes]]

HOLD_SECONDS = 5.0
"""How long a delivery holds a server that answers one request at a time; its runs go on then, and report."""
LOOK_SECONDS = 5.0
"""How often a thread that hears nothing looks whether the loop is blocked."""

_HOP_BY_HOP = frozenset({"connection", "keep-alive", "proxy-authenticate", "te", "trailer", "transfer-encoding"})
_OUTSIDE = "Put Hurlbat outside of it: app.wsgi_app = hurlbat.mount_wsgi(app.wsgi_app)"

logger = logging.getLogger("hurlbat")


class WSGIHandler:
    """A WSGI application for a worker's URL. Use `Hurlbat.wsgi()` to make one."""

    def __init__(self, handler: Handler, background: Background) -> None:
        self._handler = handler
        self._background = background

    def start(self) -> None:
        """Start the event loop of the tasks, and with it the registration, before the first request does.

        Not before the server forks: in gunicorn's `post_worker_init`, say.
        """
        self._background.loop()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        exchange = _Exchange(self._handler, environ, self._background)
        head = exchange.begin()
        if head is None:
            return self._busy(start_response)
        status = int(head["status"])
        listed = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in head["headers"]]
        start_response(_line(status), [pair for pair in listed if pair[0].lower() not in _HOP_BY_HOP])
        return exchange

    def _busy(self, start_response: StartResponse) -> Iterable[bytes]:
        body = problem(503, "loop_blocked", "the event loop of the tasks is blocked; nothing of this request was begun")
        mark = [(HEADER_WORKER, self._handler.mark()), ("retry-after", "1")]
        start_response(_line(503), [*mark, ("content-type", PROBLEM_TYPE), ("content-length", str(len(body)))])
        return [body]


class MountedWSGI:
    """A WSGI application with a worker at one path, with or without a slash. `Hurlbat.mount_wsgi()` makes one."""

    def __init__(self, app: WSGIApplication, path: str, handler: WSGIHandler) -> None:
        if not callable(app):
            raise ConfigError(f"mount_wsgi() takes the WSGI application first, and the path second; {app!r} is none")
        if not path.startswith("/"):
            raise ConfigError(f"the path {path!r} does not begin with a slash")
        self.app = app
        self.path = path.rstrip("/")
        self.handler = handler

    def start(self) -> None:
        """Start the event loop of the tasks, as `WSGIHandler.start` does."""
        self.handler.start()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or have the app answer it."""
        self.start()  # any request shows that the server has forked: it is time to register
        if environ.get("PATH_INFO", "").rstrip("/") == self.path:
            return self.handler(environ, start_response)
        return self.app(environ, start_response)


class _Exchange:
    """One request: the thread of the server takes the parts of the answer, the handler gives them on the loop.

    The handler gives the next part only when the last was taken, so that a slow client holds back what is sent to it.
    """

    def __init__(self, handler: Handler, environ: Environ, background: Background) -> None:
        self._handler = handler
        self._environ = environ
        self._background = background
        self._said: SimpleQueue[ASGIMessage | BaseException | None] = SimpleQueue()
        self._taken = asyncio.Event()
        self._taken.set()
        self._first = True
        self._gone = asyncio.Event()
        self._claim = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._body: bytes | BodyRefused | None = None
        self._bodyless = environ["REQUEST_METHOD"] == "HEAD"

    # -- in the thread of the server -------------------------------------------------------------------------------

    def begin(self) -> ASGIMessage | None:
        """Return the head of the answer, or None where the loop is blocked and nothing was begun."""
        self._body = _body(self._environ, self._handler.max_body_bytes)
        self._loop = self._background.loop()
        asyncio.run_coroutine_threadsafe(self._answer(), self._loop)
        return self._next(begun=False)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._first:
            self._tell(self._taken)
        self._first = False
        while (message := self._next(begun=True)) is not None:
            if not self._bodyless:
                chunk: bytes = message.get("body", b"")
                return chunk
            self._tell(self._taken)
        raise StopIteration

    def close(self) -> None:
        """Hear from the server that nobody takes the rest."""
        self._tell(self._gone, self._taken)

    def _next(self, *, begun: bool) -> ASGIMessage | None:
        told = False
        while True:
            try:
                said = self._said.get(timeout=LOOK_SECONDS)
            except Empty:
                place = self._background.blocked()
                if place is not None and not told:
                    told = True
                    logger.error(
                        "the event loop of the tasks is blocked at %s: an async task must not block; make it a sync "
                        "task (def), or await. Meanwhile no task goes on and no heartbeat is sent",
                        place,
                    )
                if place is not None and not begun and self._claim.acquire(blocking=False):
                    return None
                continue
            if isinstance(said, BaseException):
                raise said
            return said

    def _tell(self, *events: asyncio.Event) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                for event in events:
                    self._loop.call_soon_threadsafe(event.set)

    # -- on the loop -----------------------------------------------------------------------------------------------

    async def _answer(self) -> None:
        if not self._claim.acquire(blocking=False):
            return  # refused meanwhile
        try:
            await self._handler(_scope(self._environ), self._receive, self._send)
        except BaseException as error:
            self._said.put(error if isinstance(error, Exception) else ConnectionError("the worker has stopped"))
            raise
        self._said.put(None)

    async def _receive(self) -> ASGIMessage:
        body, self._body = self._body, None
        if body is None:
            await self._gone.wait()
            return {"type": "http.disconnect"}
        if isinstance(body, BodyRefused):
            raise body
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: ASGIMessage) -> None:
        if message["type"] == "http.response.body":
            await self._taken.wait()
            self._taken.clear()
        if self._gone.is_set():
            raise ConnectionError("the server closed the answer")
        self._said.put(message)


def _line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def _scope(environ: Environ) -> dict[str, Any]:
    headers = [
        (name.removeprefix("HTTP_").lower().replace("_", "-").encode("latin-1"), str(value).encode("latin-1"))
        for name, value in environ.items()
        if name.startswith("HTTP_") or (name in ("CONTENT_TYPE", "CONTENT_LENGTH") and value)
    ]
    scope: dict[str, Any] = {
        "type": "http",
        "method": environ["REQUEST_METHOD"],
        "path": environ.get("PATH_INFO", ""),
        "root_path": environ.get("SCRIPT_NAME", ""),
        "headers": headers,
    }
    if _has_one_thread(environ):
        scope["extensions"] = {"hurlbat": Limit(HOLD_SECONDS)}
    return scope


def _has_one_thread(environ: Environ) -> bool:
    """Whether a stream keeps this process from all other requests, a cancellation's too, and may be ended early.

    A CGI's process ends with its answer, and what uWSGI runs in threads may rest until the next request.
    """
    goes_on = not environ.get("wsgi.run_once") and "uwsgi.version" not in environ
    return goes_on and not environ.get("wsgi.multithread", True)


def _body(environ: Environ, limit: int) -> bytes | BodyRefused:
    """Read the body, or say why it is not to be had."""
    said = environ.get("CONTENT_LENGTH") or ""
    if said.isascii() and said.isdigit():
        declared = int(said[:20])
        if declared > limit or environ["REQUEST_METHOD"] != "POST":
            return b""
        body = _read(environ["wsgi.input"], declared)
        return body if len(body) == declared else _missing(declared, len(body))
    if environ["REQUEST_METHOD"] != "POST":
        return b""
    if environ.get("wsgi.input_terminated"):
        return _read(environ["wsgi.input"], limit + 1)
    if environ.get("HTTP_TRANSFER_ENCODING"):
        sentence = "this server cannot tell where a chunked body ends (wsgi.input_terminated); send a content-length"
        return BodyRefused(411, "length_required", sentence)
    return b""


def _read(stream: Any, size: int) -> bytes:
    chunks: list[bytes] = []
    while size > 0 and (chunk := stream.read(size)):
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _missing(declared: int, size: int) -> BodyRefused:
    if size:
        came = f"content-length says {declared:,} bytes, and {size:,} came: a part of the body was read before it"
        return BodyRefused(401, CHANGED, f"{came} came here, or the connection broke. {_OUTSIDE}")
    return BodyRefused(
        401,
        CONSUMED,
        f"the body was read before it came here: content-length says {declared:,} bytes, and nothing came. A "
        f"middleware or a view has read it (request.get_data(), request.form, request.json). {_OUTSIDE}",
    )

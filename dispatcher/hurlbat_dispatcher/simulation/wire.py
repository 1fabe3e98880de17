"""One request and its answer on their way: head and pieces in order, each with its delay, and an end to both sides.

Whoever answers writes to a `Wire` and never waits for the reader; whoever asked reads from it. Either may leave first.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

import httpx

from hurlbat_dispatcher.simulation.loop import VirtualLoop

Headers = Sequence[tuple[bytes, bytes]]
Message = MutableMapping[str, Any]
AsgiApp = Callable[[Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]
FarSide = Callable[[httpx.Request, "Wire"], Awaitable[None]]
"""Answers a request over its wire."""

_APART: Final = 1e-6
"""Seconds between two pieces that would come at once: they keep their order."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer."""

    status: int
    headers: Headers


@dataclass(frozen=True, slots=True)
class End:
    """The end of an answer: with what error it broke off, if any."""

    error: Exception | None = None


Piece = Head | bytes | End


class Wire:
    """An answer on its way. `delay` says how long each piece takes, None for ever; `change` what becomes of it."""

    def __init__(
        self,
        loop: VirtualLoop,
        delay: Callable[[], float | None],
        change: Callable[[Piece], Sequence[Piece]] | None = None,
    ) -> None:
        self.left = asyncio.Event()
        """Whether whoever asked is gone."""
        self._loop = loop
        self._delay = delay
        self._change = change
        self._arrived: asyncio.Queue[Piece] = asyncio.Queue()
        self._last = 0.0
        self._ended = False
        self._leaving: list[Callable[[], object]] = []

    # -- the far side --------------------------------------------------------------------------------------------------

    def put(self, piece: Piece) -> None:
        """Send a piece; nothing comes after an end."""
        for changed in self._change(piece) if self._change is not None else (piece,):
            if self._ended:
                return
            self._ended = isinstance(changed, End)
            seconds = self._delay()
            if seconds is None:
                continue
            self._last = max(self._last + _APART, self._loop.time() + seconds)
            self._loop.call_at(self._last, self._arrived.put_nowait, changed, context=Context())

    def break_off(self) -> None:
        """Let the connection be reset."""
        self.put(End(httpx.ReadError("connection reset by the far side")))

    def when_left(self, leaving: Callable[[], object]) -> None:
        """Call this when whoever asked is gone; at once when that is so."""
        if self.left.is_set():
            leaving()
        else:
            self._leaving.append(leaving)

    # -- whoever asked -------------------------------------------------------------------------------------------------

    async def head(self) -> Head:
        """Return the head when it has come. Raises what the answer broke off with."""
        piece = await self._arrived.get()
        if isinstance(piece, Head):
            return piece
        error = piece.error if isinstance(piece, End) else None
        raise error or httpx.RemoteProtocolError("the connection was closed without an answer")

    async def next(self) -> bytes | None:
        """Return the next piece of the body, or None at its end. Raises what the answer broke off with."""
        while True:
            piece = await self._arrived.get()
            if isinstance(piece, bytes):
                return piece
            if isinstance(piece, End):
                if piece.error is not None:
                    raise piece.error
                return None

    def leave(self) -> None:
        """Go; the far side hears of it."""
        if not self.left.is_set():
            self.left.set()
            leaving, self._leaving = self._leaving, []
            for told in leaving:
                told()


class Body(httpx.AsyncByteStream):
    """The body of an answer, as httpx takes it. `patience` is how long (seconds) a piece may be waited for."""

    def __init__(self, wire: Wire, patience: float | None) -> None:
        self._wire = wire
        self._patience = patience

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._patience) as timer:
                    piece = await self._wire.next()
            except TimeoutError as error:
                if not timer.expired():
                    raise
                raise httpx.ReadTimeout(f"nothing more within {self._patience:g} s") from error
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        """Leave the wire."""
        self._wire.leave()


def answering(answer: Callable[[httpx.Request], Awaitable[httpx.Response]]) -> FarSide:
    """Make a far side of a function from request to response; its body is read as it is made."""

    async def serve(request: httpx.Request, wire: Wire) -> None:
        task = asyncio.current_task()
        assert task is not None
        wire.when_left(task.cancel)
        response = await answer(request)
        wire.put(Head(response.status_code, response.headers.raw))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        try:
            async for piece in response.stream:
                wire.put(piece)
        finally:
            await response.aclose()
        wire.put(End())

    return serve


def asgi(app: AsgiApp) -> FarSide:
    """Make a far side of an ASGI application."""

    async def serve(request: httpx.Request, wire: Wire) -> None:
        asked = iter([{"type": "http.request", "body": request.content, "more_body": False}])

        async def receive() -> Message:
            for message in asked:
                return message
            await wire.left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                wire.put(Head(message["status"], list(message.get("headers", ()))))
            elif message["type"] == "http.response.body":
                if message.get("body"):
                    wire.put(bytes(message["body"]))
                if not message.get("more_body", False):
                    wire.put(End())

        await app(_scope(request), receive, send)

    return serve


def _scope(request: httpx.Request) -> dict[str, Any]:
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.partition(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (url.host, url.port or (443 if url.scheme == "https" else 80)),
        "client": ("192.0.2.1", 50_000),
    }

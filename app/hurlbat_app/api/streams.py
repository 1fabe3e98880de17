"""Server-sent events: what happens to a run, told while it happens (WHATWG HTML, section 9.2).

Who reads slowly is waited for; what happened meanwhile is read from the database then, so that nothing is queued here.
"""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hurlbat_app.api.answers import show_entry, show_run
from hurlbat_app.api.reading import parameters
from hurlbat_dispatcher import Invalid, NotFound, Unavailable, Watch

KEEP_ALIVE_SECONDS: Final = 15.0
"""After this long without anything to tell a comment says that the stream is alive."""
AGAIN_SECONDS: Final = 1.0
"""Before the next look at a run while the database is in trouble."""
MOST_IN_PIECE: Final = 64
"""Entries of one piece of the answer; who reads slowly is waited for between two."""
_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store, no-transform"),
    (b"x-accel-buffering", b"no"),
]
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
_LINE_ENDS: Final = re.compile(rb"\r\n|\r|\n")


def last_event_id(request: Request) -> int:
    """Return after which entry a stream goes on: by the header `Last-Event-ID`, else by a parameter; 0 from the start.

    The header comes first: who comes again by itself sends it, to the address of the first time.
    """
    given = parameters(request, "last_event_id").get("last_event_id")
    header = request.headers.get("last-event-id") or None
    for name, text in (("Last-Event-ID", header), ("last_event_id", given)):
        if text is not None and not _NUMBER.fullmatch(text):
            raise Invalid("parameter_invalid", f"{name} must be the id of an event of this stream", field=name)
    return int(header or given or 0)


class Story(Response):
    """The timeline of a run from an entry on, as a stream that ends with the run, or with this server."""

    def __init__(self, watch: Watch, after: int) -> None:
        super().__init__()
        self._watch = watch
        self._after = after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell the run's story until it ends, the client goes or the server stops; then leave nothing behind."""
        with self._watch:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            telling = asyncio.ensure_future(self._tell(send))
            leaving = asyncio.ensure_future(_left(receive))
            try:
                await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
                if telling.done():
                    telling.result()
            finally:
                telling.cancel()
                leaving.cancel()
                await asyncio.gather(telling, leaving, return_exceptions=True)

    async def _tell(self, send: Send) -> None:
        with suppress(NotFound):  # it was removed: there is no more to tell
            while True:
                for piece in self._pieces():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                if self._watch.run.is_final:
                    shown = orjson.dumps(show_run(self._watch.run, timeline=False))
                    await send({"type": "http.response.body", "body": _event(b"end", shown), "more_body": True})
                    break
                try:
                    if await self._watch.news(KEEP_ALIVE_SECONDS):
                        continue
                except Unavailable:
                    if self._watch.over:
                        break
                    await asyncio.sleep(AGAIN_SECONDS)
                await send({"type": "http.response.body", "body": b": nothing new\n\n", "more_body": True})
        await send({"type": "http.response.body"})

    def _pieces(self) -> Iterator[bytes]:
        """Yield what the story has besides, some entries at a time."""
        entries = self._watch.run.timeline
        while self._after < len(entries):
            some = entries[self._after : self._after + MOST_IN_PIECE]
            piece = b"".join(
                b"id: %d\n" % number + _event(entry.kind.encode(), orjson.dumps(show_entry(entry)))
                for number, entry in enumerate(some, self._after + 1)
            )
            self._after += len(some)
            yield piece


def _event(kind: bytes, data: bytes) -> bytes:
    """Return an event. Payloads are the text that came in, and may have lines."""
    return b"event: %b\ndata: %b\n\n" % (kind, _LINE_ENDS.sub(b"\ndata: ", data))


async def _left(receive: Receive) -> Any:
    while (await receive())["type"] != "http.disconnect":
        pass

"""A connection of the bench to the server: one request at a time, and little more work than the bytes need.

On a machine with few cores whatever a load generator uses is taken from what it measures.
"""

import asyncio
from typing import Any, Self
from urllib.parse import urlsplit

import httptools


class ConnectionLost(Exception):
    """The server closed the connection before it answered."""


class Connection(asyncio.Protocol):
    """A kept-alive HTTP/1.1 connection that posts JSON to one path, and gets from any."""

    def __init__(self, url: str, token: str) -> None:
        at = urlsplit(url)
        path = f"{at.path}?{at.query}" if at.query else at.path
        self._tail = f" HTTP/1.1\r\nhost: {at.netloc}\r\nauthorization: Bearer {token}\r\n".encode()
        self._head = f"POST {path}".encode() + self._tail + b"content-type: application/json\r\ncontent-length: "
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.WriteTransport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []

    @classmethod
    async def open(cls, url: str, token: str) -> Self:
        """Connect."""
        at = urlsplit(url)
        _, made = await asyncio.get_running_loop().create_connection(
            lambda: cls(url, token), at.hostname or "", at.port or 80
        )
        return made

    async def post(self, body: bytes) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises `ConnectionLost`."""
        return await self._ask(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    async def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of the answer. Raises `ConnectionLost`."""
        return await self._ask(b"GET %b%b\r\n" % (path.encode(), self._tail))

    async def _ask(self, request: bytes) -> tuple[int, bytes]:
        if self._transport is None:
            raise ConnectionLost
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    # -- called by the event loop ----------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:  # uvloop's is none of asyncio's
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes of an answer."""
        self._parser.feed_data(data)

    def connection_lost(self, _: Exception | None) -> None:
        """Fail who waits."""
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionLost())

    # -- called by the parser --------------------------------------------------------------------------------------

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Hand over the answer."""
        body, self._body = b"".join(self._body), []
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), body))

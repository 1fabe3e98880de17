"""A proxy that spoils answers: it passes a request on to the server, and what comes back is lost on its way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum


class Fate(StrEnum):
    """What becomes of an answer."""

    LOST = "lost"
    """The server has answered; the connection is closed without a byte of it."""
    CUT = "cut"
    """It breaks off in its first line."""
    BUSY = "busy"
    """Something between answers 503, and nothing reaches the server."""
    HURRIED = "hurried"
    """Something between asks to come again at once, by 429; nothing reaches the server."""


_SAID = {
    Fate.BUSY: b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy",
    Fate.HURRIED: b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 0\r\ncontent-length: 4\r\n\r\nbusy",
}


class Cutter:
    """Listens on a port of its own. `fates` are those of the next POSTs and PATCHes; what comes after is passed on."""

    def __init__(self, port: int) -> None:
        self.fates: list[Fate] = []
        self.requests: list[str] = []
        """The first line of each request."""
        self.url = ""
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection, each by the server on a connection of its own."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line = head.split(b"\r\n", 1)[0].decode()
                body = await reader.readexactly(_length(head))
                self.requests.append(line)
                fate = self.fates.pop(0) if self.fates and not line.startswith("GET") else None
                if fate in _SAID:
                    writer.write(_SAID[fate])
                else:
                    answer = await self._ask(head, body)
                    if fate is not None:
                        writer.write(answer[:12] if fate is Fate.CUT else b"")
                        break
                    writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(
                head.replace(b"connection: keep-alive", b"connection: close", 1).replace(
                    b"Connection: keep-alive", b"Connection: close", 1
                )
                + body
            )
            return await reader.read()
        finally:
            writer.close()


@asynccontextmanager
async def cutter(port: int) -> AsyncIterator[Cutter]:
    """Run a proxy before the server on this port."""
    made = Cutter(port)
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        listening.close()


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0

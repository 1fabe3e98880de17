"""A TCP proxy before PostgreSQL, on a thread of its own, that makes the trouble a network makes.

PASS           everything goes through
REFUSE         who connects is sent away
HANG           nothing goes through, in either direction, and nobody is told
CUT_BEFORE     the next COMMIT never arrives: connection lost, nothing stored
CUT_AFTER      the next COMMIT arrives and is done, and its answer is lost with the connection
"""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto

COMMITS = (b"COMMIT\0", b"COMMIT;\0")
READS = b"BEGIN READ ONLY"
DONE = b"C\0\0\0\x0bCOMMIT\0"


class Mode(Enum):
    """What the proxy does to what it carries."""

    PASS = auto()
    REFUSE = auto()
    HANG = auto()
    CUT_BEFORE = auto()
    CUT_AFTER = auto()


class Proxy:
    """Carries connections on `port` to a port of this machine."""

    def __init__(self, target: int) -> None:
        self.mode = Mode.PASS
        self.target = target
        self.port = 0
        self.connections = 0
        """How many there were, refused ones included."""
        self.cuts = 0
        """How many commits were cut."""
        self._links: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._closed = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def cut_all(self) -> None:
        """Break every connection, as a network does that comes and goes."""
        self._loop.call_soon_threadsafe(self._break)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        async with server:
            await self._closed.wait()
        self.mode = Mode.PASS
        self._break()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the sockets to be closed

    def _break(self) -> None:
        for link in self._links:
            link.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._links.add(writer)
        try:
            if self.mode is not Mode.REFUSE:
                await self._join(reader, writer)
        finally:
            self._links.discard(writer)
            self._reading.discard(writer)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            ahead, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            return
        ways = [asyncio.create_task(self._there(reader, back, writer)), asyncio.create_task(self._back(ahead, writer))]
        self._tasks.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, back):
            end.transport.abort()
        await asyncio.wait(ways)
        self._tasks.difference_update(ways)

    async def _there(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: asyncio.StreamWriter
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._unless_hanging()
                if READS in data:
                    self._reading.add(link)
                elif (
                    self.mode is Mode.CUT_BEFORE
                    and link not in self._reading
                    and any(commit in data for commit in COMMITS)
                ):
                    self.mode, self.cuts = Mode.PASS, self.cuts + 1
                    return
                writer.write(data)
                await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._unless_hanging()
                if self.mode is Mode.CUT_AFTER and writer not in self._reading and DONE in data:
                    self.mode, self.cuts = Mode.PASS, self.cuts + 1
                    return
                writer.write(data)
                await writer.drain()

    async def _unless_hanging(self) -> None:
        while self.mode is Mode.HANG:  # noqa: ASYNC110 - set by another thread
            await asyncio.sleep(0.01)


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Carry connections to the port for as long as the block lasts."""
    proxy = Proxy(port)
    proxy._thread.start()
    assert proxy._ready.wait(120)
    try:
        yield proxy
    finally:
        proxy._loop.call_soon_threadsafe(proxy._closed.set)
        proxy._thread.join(120)

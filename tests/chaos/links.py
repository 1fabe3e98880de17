"""Connections that pass through this process, so that they can be cut or fall silent without any privilege.

Cut: every connection is reset and new ones are refused, as when a host is rejected. Silent: connections stay, new ones
are taken, and nothing passes in either direction until the link is mended, as when packets vanish on the way.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK: Final = 65_536
RESET: Final = struct.pack("ii", 1, 0)
"""Lingering for no time: the other side hears of a reset, and not of an end."""

Ports = Callable[[], Sequence[int]]


class Link:
    """A port that leads to the first of some others that takes a connection. `ports` is asked for every connection."""

    def __init__(self, port: int, ports: Ports) -> None:
        self.port = port
        self._ports = ports
        self._listening: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def open(self) -> None:
        """Take connections."""
        if self._listening is None:
            self._listening = await asyncio.start_server(self._accept, HOST, self.port)

    async def close(self) -> None:
        """Take no more, and end those that there are."""
        self.cut()
        tasks = list(self._pairs)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def refuse(self) -> None:
        """Take no new connections; those that there are end when a side ends them."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self.refuse()
        for pair in list(self._pairs.values()):
            for writer in pair:
                with suppress(OSError):  # it has ended already
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                writer.transport.abort()

    def silence(self) -> None:
        """Let nothing pass any more."""
        self._flowing.clear()

    async def mend(self) -> None:
        """Let everything pass again; what was held back goes on."""
        self._flowing.set()
        await self.open()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        pair = self._pairs[task] = [writer]
        try:
            await self._flowing.wait()
            far = await self._connect()
            if far is None:
                return
            far_reader, far_writer = far
            pair.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer))
                group.create_task(self._pump(far_reader, writer))
        except asyncio.CancelledError:
            pass  # only `close` does this, and waits for it
        finally:
            del self._pairs[task]
            for one in pair:
                one.transport.abort()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for port in self._ports():
            with suppress(OSError):
                return await asyncio.open_connection(HOST, port)
        return None

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes; the end of one direction is passed on too, a reset ends both."""
        try:
            while chunk := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
            await self._flowing.wait()
            writer.write_eof()
        except OSError:
            await self._flowing.wait()
            writer.transport.abort()

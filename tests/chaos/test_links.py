"""Links do what they say: what is cut refuses and resets, what is silent keeps everything until it is mended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.chaos.links import HOST, Link
from tests.support.ports import free_port

pytestmark = pytest.mark.anyio

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes."""
    with suppress(ConnectionResetError):
        while line := await reader.readline():
            writer.write(line)
    writer.close()


@asynccontextmanager
async def linked() -> AsyncIterator[Link]:
    """A link that leads to an echo."""
    far = await asyncio.start_server(echo, HOST, 0)
    port = far.sockets[0].getsockname()[1]
    link = Link(free_port(), lambda: [port])
    await link.open()
    try:
        yield link
    finally:
        await link.close()
        far.close()
        await far.wait_closed()


async def connected(link: Link) -> Streams:
    """Connect to it."""
    return await asyncio.open_connection(HOST, link.port)


async def said(streams: Streams, word: bytes) -> bytes:
    """Say a word and return what comes back."""
    streams[1].write(word)
    return await streams[0].readline()


async def test_what_is_said_passes_a_link_in_both_directions() -> None:
    async with linked() as link:
        streams = await connected(link)

        assert await said(streams, b"hello\n") == b"hello\n"

        streams[1].close()


async def test_a_cut_link_resets_what_there_is_and_refuses_what_comes_until_it_is_mended() -> None:
    async with linked() as link:
        before = await connected(link)
        await said(before, b"hello\n")

        link.cut()

        with pytest.raises(ConnectionResetError):
            await before[0].readline()
        with pytest.raises(ConnectionRefusedError):
            await connected(link)
        await link.mend()
        after = await connected(link)
        assert await said(after, b"again\n") == b"again\n"
        for streams in (before, after):
            streams[1].close()


async def test_a_link_that_refuses_leaves_what_there_is() -> None:
    async with linked() as link:
        before = await connected(link)
        await said(before, b"hello\n")

        link.refuse()

        with pytest.raises(ConnectionRefusedError):
            await connected(link)
        assert await said(before, b"again\n") == b"again\n"
        before[1].close()


async def test_a_silent_link_takes_connections_and_passes_nothing_until_it_is_mended() -> None:
    async with linked() as link:
        before = await connected(link)
        await said(before, b"hello\n")

        link.silence()

        during = await connected(link)
        answers = [asyncio.create_task(said(streams, b"again\n")) for streams in (before, during)]
        there = await connected(link)  # by then a link that passes anything would have passed it
        assert not any(answer.done() for answer in answers)
        await link.mend()
        assert await asyncio.gather(*answers) == [b"again\n", b"again\n"]
        for streams in (before, during, there):
            streams[1].close()

"""Bodies of requests on their way: how long one may take, and how much all of them may hold together.

Who sends a body keeps memory of ours for as long as it takes, and may have no token: the sender of a webhook proves
himself by the body. So one that stands still, or comes by drops, is given up; and what is held for large ones has a
bound, of which those without a token get a half.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Final, Self

from starlette.requests import ClientDisconnect, Request

from hurlbat_dispatcher import Problem, TooLarge, Unavailable

STILL_SECONDS: Final = 10.0
"""How long a body may stand still."""
SECONDS: Final = 60.0
"""How long it may take, and one more for each `BYTES_A_SECOND` that came."""
BYTES_A_SECOND: Final = 16_384
SMALL: Final = 65_536
"""Bytes up to which a body is not counted."""
MOST_HELD: Final = 64 * 1_048_576
"""Bytes of all other bodies on their way, but at least so many of the largest that one may be:"""
AT_LEAST: Final = 8

BODY_READ: Final = "hurlbat.body_read"
"""Set in the ASGI scope when nothing of the request's body is left on the connection."""
BODY_HERE: Final = "hurlbat.body_here"
"""Set in the ASGI scope by a server that has all of the request's body, so that nobody waits for it."""
ROOM: Final = "hurlbat.room"
"""Where the ASGI scope has the `Room` of a request's body."""


class TooSlow(Problem):
    """The body does not come, or not fast enough; `seconds` says what was waited for."""

    status: ClassVar[int] = 408
    title: ClassVar[str] = "Request timeout"


class Room:
    """How many bytes bodies on their way may hold; those of a room `within` another count there as well."""

    def __init__(self, most: int, within: Self | None = None) -> None:
        self.most = most
        self.held = 0
        self._within = within

    def take(self, size: int) -> None:
        """Hold so many bytes more. Raises `Unavailable` where there is no room for them."""
        if self.held + size > self.most:
            raise Unavailable(
                "too_many_bodies",
                f"large bodies on their way would hold more than {self.most:,} bytes, the most at a time; try again",
                limit=self.most,
                retry_after=2,
            )
        if self._within is not None:
            self._within.take(size)
        self.held += size

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        if self._within is not None:
            self._within.give_back(size)
        self.held -= size


def rooms(largest: int) -> tuple[Room, Room]:
    """Return the room of all bodies, and that of strangers within it; a body has up to `largest` bytes."""
    room = Room(max(MOST_HELD, AT_LEAST * largest))
    return room, Room(room.most // 2, room)


async def read_body(request: Request, limit: int) -> bytes:
    """Return the whole body; a larger one than `limit` is refused before it is read.

    Raises `TooLarge`, `TooSlow`, `Unavailable`, `ClientDisconnect`.
    """
    read = bytearray()
    first = await _read(request, limit, read.extend)
    return bytes(read) if first is None else first


async def pass_over_body(request: Request, limit: int, into: Callable[[bytes], object]) -> None:
    """Read the whole body as `read_body` does, without holding it; it goes `into` something piece by piece."""
    first = await _read(request, limit, into)
    if first is not None:
        into(first)


def declared_size(request: Request) -> int:
    """Return the size that a request says of its body, 0 where it says none."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isdecimal() else 0


async def _read(request: Request, limit: int, into: Callable[[bytes], object]) -> bytes | None:
    """Let the pieces of a body go `into` something; return it instead where it came in one."""
    declared = declared_size(request)
    if declared > limit:
        raise _too_large(limit)
    room: Room = request.scope[ROOM]
    clock = asyncio.get_running_loop().time
    began, size, taken = clock(), 0, 0
    try:
        if declared > SMALL:
            room.take(declared)
            taken = declared
        while True:
            piece, more = await _next(request, began + SECONDS + size / BYTES_A_SECOND - clock(), size)
            size += len(piece)
            if size > limit:
                raise _too_large(limit)
            if size > max(taken, SMALL):
                room.take(size - taken)
                taken = size
            if not more:
                request.scope[BODY_READ] = True
                if size == len(piece):
                    return piece
            into(piece)
            if not more:
                return None
    finally:
        room.give_back(taken)


async def _next(request: Request, left: float, size: int) -> tuple[bytes, bool]:
    """Return the next piece of a body, and whether there are more; `left` is how many seconds it may still take."""
    if BODY_HERE in request.scope:  # the usual case, for which a timer would take longer than all the rest
        message = await request.receive()
    else:
        try:
            async with asyncio.timeout(min(STILL_SECONDS, left)):
                message = await request.receive()
        except TimeoutError:
            raise _too_slow(left, size) from None
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


def _too_large(limit: int) -> TooLarge:
    return TooLarge("body_too_large", f"the request body is larger than the limit of {limit} bytes", limit=limit)


def _too_slow(left: float, size: int) -> TooSlow:
    if left >= STILL_SECONDS:
        said = f"nothing more of the request body came within {STILL_SECONDS:g} s, after {size:,} bytes"
        return TooSlow("body_too_slow", said, seconds=STILL_SECONDS)
    seconds = round(SECONDS + size / BYTES_A_SECOND)
    said = f"the request body was not there after {seconds} s, only {size:,} bytes of it"
    return TooSlow("body_too_slow", said, seconds=seconds)

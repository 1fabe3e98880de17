"""Gather the lines of a delivery and answer with them: in a stream, what is ready together in one send, or at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from hurlbat.wire import (
    JSON_TYPE,
    STREAM_TYPE,
    CancelledLine,
    CompletedLine,
    FailedLine,
    HeartbeatLine,
    Line,
    LogLine,
    ProgressLine,
    write_line,
)

ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]

MAX_WAITING_LINES = 1_000
"""Log and progress lines beyond this many unsent ones are dropped; results never are."""

_AT_ONCE = [(b"cache-control", b"no-store, no-transform"), (b"x-accel-buffering", b"no")]
"""What proxies are told: neither keep, nor compress, nor hold back."""

logger = logging.getLogger("hurlbat")


class StreamBroken(Exception):
    """The answer ended before it was complete: the other side is gone, or this one closed it."""


class Outbox:
    """The lines that a delivery's answer still has to send. `waiting` is how many of its results are not there yet."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.accepted = False
        """Whether the answer was that all results will be reported."""
        self._lines: list[Line] = []
        self._dropped = 0
        self._closed = False
        self._gone = False
        self._wake = asyncio.Event()

    def put(self, line: Line) -> None:
        """Take a line."""
        if isinstance(line, CompletedLine | FailedLine | CancelledLine):
            self.waiting -= 1
        elif len(self._lines) >= MAX_WAITING_LINES and isinstance(line, LogLine | ProgressLine):
            self._dropped += 1
            return
        self._lines.append(line)
        self._wake.set()

    def close(self) -> None:
        """End the answer from this side, in good order but with results missing."""
        self._closed = True
        self._wake.set()

    async def stream(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]], silence: float) -> None:
        """Answer 200 with the lines as they come, until no result is waited for. Raises `StreamBroken`.

        After so many seconds of `silence` a heartbeat is sent.
        """
        await asyncio.sleep(0)  # tasks that need not wait for anything end in this turn of the loop
        start = {"type": "http.response.start", "status": 200}
        await _send(send, start | {"headers": [*headers, (b"content-type", STREAM_TYPE.encode()), *_AT_ONCE]})
        if await self._send_ready(send):
            return
        watcher = asyncio.create_task(self._watch(receive))
        try:
            while not await self._send_next(send, silence):
                pass
        finally:
            watcher.cancel()

    async def answer(self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        """Answer 200 with all results in one piece, when no other is waited for.

        Answers 202 if it is closed before, as all of them will be reported. Raises `StreamBroken` then, and where the
        other side is gone.
        """
        watcher = asyncio.create_task(self._watch(receive))
        try:
            while self.waiting > 0 and not (self._closed or self._gone):
                self._wake.clear()
                await self._wake.wait()
        finally:
            watcher.cancel()
        if self._gone:
            raise StreamBroken
        self.accepted = self.waiting > 0
        results = [
            write_line(line) for line in self._lines if isinstance(line, CompletedLine | FailedLine | CancelledLine)
        ]
        body = b"{}" if self.accepted else f'{{"results":[{",".join(results)}]}}'.encode()
        about = [(b"content-type", JSON_TYPE.encode()), (b"content-length", str(len(body)).encode())]
        status = 202 if self.accepted else 200
        await _send(send, {"type": "http.response.start", "status": status, "headers": [*headers, *about]})
        await _send(send, {"type": "http.response.body", "body": body})
        if self.accepted:
            raise StreamBroken

    async def _send_next(self, send: Send, silence: float) -> bool:
        try:
            async with asyncio.timeout(silence):
                await self._wake.wait()
        except TimeoutError:
            self.put(HeartbeatLine())
        if self._gone:
            raise StreamBroken
        await asyncio.sleep(0)  # what ends in the same turn of the loop travels together
        return await self._send_ready(send)

    async def _send_ready(self, send: Send) -> bool:
        """Send all lines that are there in one message; return whether the answer is complete."""
        if self._dropped:
            logger.warning("%d log and progress lines were dropped: the stream is too slow for them", self._dropped)
            self._dropped = 0
        lines, self._lines = self._lines, []
        self._wake.clear()
        complete = self.waiting <= 0
        more = not (complete or self._closed)
        body = "".join([f"{write_line(line)}\n" for line in lines]).encode()
        await _send(send, {"type": "http.response.body", "body": body, "more_body": more})
        if self._closed and not complete:
            raise StreamBroken
        return complete

    async def _watch(self, receive: Receive) -> None:
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
        except Exception as error:  # some servers raise where others say http.disconnect
            logger.debug("the connection broke: %r", error)
        self._gone = True
        self._wake.set()


async def _send(send: Send, message: ASGIMessage) -> None:
    try:
        await send(message)
    except Exception as error:  # servers differ in what they raise to say that the client is gone
        raise StreamBroken from error

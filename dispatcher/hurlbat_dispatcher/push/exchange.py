"""One request on its way: how far it has come, until when it may take, and what it means if it fails here.

Whether any byte of a request was sent decides whether an attempt is charged, so the phase is kept by whoever does the
work and read when something breaks. One timer serves the whole exchange; each phase moves it.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from hurlbat_dispatcher.domain.outcome import ErrorCode

MAX_HEAD_BYTES: Final = 262_144
"""What may come before the head of an answer is complete, with interim (1xx) answers."""
MAX_KEPT_BYTES: Final = 4_096
"""What is kept of an answer's body for people to look at."""


class Phase(IntEnum):
    """How far a request has come. From `SENDING` on, the worker may have seen it."""

    QUEUED = 0
    RESOLVING = 1
    CONNECTING = 2
    TUNNELLING = 3
    HANDSHAKING = 4
    SENDING = 5
    READING = 6


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an exchange may take (seconds) and how much may come back (bytes).

    `connect` covers the name, the connection and TLS; `head` and `total` count from sending; `silence` is the longest
    pause within the body, None for no such limit.
    """

    total: float
    connect: float = 5.0
    head: float = 15.0
    silence: float | None = None
    size: int = 1_048_576


class TransportFailure(Exception):
    """The exchange failed below HTTP's meaning.

    `sent`: could a byte of the request have reached the worker? `local`: the fault is on our side of the network (the
    proxy, sockets used up) and says nothing of the worker. `heard`: something of an answer had come.
    """

    def __init__(self, code: ErrorCode, message: str, *, sent: bool, local: bool = False, heard: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.sent = sent
        self.local = local
        self.heard = heard


LastLook = Callable[[], str | None]
"""Asked before the first byte of a request is sent, however long it took to connect: None, or why it must not be."""


@dataclass(slots=True)
class Exchange:
    """The state of one request. Belongs to the task that makes it; `finish` may be called by a callback."""

    limits: Limits
    https: bool
    proxied: bool = False
    last_look: LastLook | None = None
    refusal: str | None = None
    """Why it must not be sent, by the last look."""
    phase: Phase = Phase.QUEUED
    room: int = 0
    """How many connections there may be at once."""
    received: int = 0
    lost: BaseException | None = None
    """What ended the connection, where that was an error."""
    finishing: bool = False
    began: float = field(init=False)
    ended: float | None = None
    first_byte: float | None = None
    marks: dict[Phase, float] = field(default_factory=dict)
    """When each phase was entered, by the event loop's clock."""
    kept: bytearray = field(default_factory=bytearray)
    """The beginning of the answer's body, and how long it is."""
    body_bytes: int = 0
    timer: asyncio.Timeout = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _end: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        self.timer = asyncio.timeout(None)

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase, with its own share of time."""
        self.phase = phase
        now = self._loop.time()
        self.marks.setdefault(phase, now)
        if phase is Phase.QUEUED:
            self.timer.reschedule(now + self.limits.connect)
        elif phase is Phase.SENDING:
            self._end = now + self.limits.total
            self.timer.reschedule(min(now + self.limits.head, self._end))
        elif phase is Phase.READING:
            self._wait_on(now)

    def heard(self, size: int) -> None:
        """Count what came over the wire."""
        if self.first_byte is None:
            self.first_byte = self._loop.time()
        self.received += size

    def over(self) -> None:
        """Note that it has ended, however it did."""
        self.ended = self._loop.time()

    def may_send(self) -> bool:
        """Ask for the last time, before the first byte."""
        self.refusal = None if self.last_look is None else self.last_look()
        return self.refusal is None

    def refused(self) -> TransportFailure:
        """Return what it means that it must not be sent."""
        return TransportFailure(ErrorCode.CONNECT_FAILED, str(self.refusal), sent=False, local=True)

    def heard_chunk(self, chunk: bytes) -> None:
        """Start a new pause: the body goes on."""
        self.body_bytes += len(chunk)
        if len(self.kept) < MAX_KEPT_BYTES:
            self.kept += chunk[: MAX_KEPT_BYTES - len(self.kept)]
        if self.limits.silence is not None:
            self._wait_on(self._loop.time())

    def go_on(self) -> None:
        """Let the body take as long as it likes; only silence ends it."""
        self._end = math.inf
        self._wait_on(self._loop.time())

    def finish(self, within: float) -> None:
        """Give the exchange so many seconds to end by itself; nothing more is wanted of it."""
        if not self.timer.expired():
            self.finishing = True
            self._end = min(self._end, self._loop.time() + within)
            self.timer.reschedule(self._end)

    def timed_out(self) -> TransportFailure:
        """Return what it means that the timer ran out in this phase."""
        match self.phase:
            case Phase.QUEUED:
                message = (
                    f"no connection became free within {self.limits.connect:g} s: this server opens "
                    f"{self.room:,} at most, and to one worker half of them (HURLBAT_MAX_CONNECTIONS)"
                )
                return TransportFailure(ErrorCode.CONNECT_FAILED, message, sent=False, local=True)
            case Phase.RESOLVING | Phase.CONNECTING | Phase.TUNNELLING | Phase.HANDSHAKING if self.proxied:
                message = f"no connection through the proxy within {self.limits.connect:g} s"
                return TransportFailure(ErrorCode.PROXY_ERROR, message, sent=False, local=True)
            case Phase.RESOLVING:
                message = f"the name was not resolved within {self.limits.connect:g} s"
                return TransportFailure(ErrorCode.DNS_ERROR, message, sent=False)
            case Phase.CONNECTING | Phase.TUNNELLING | Phase.HANDSHAKING:
                message = f"no connection within {self.limits.connect:g} s"
                return TransportFailure(ErrorCode.CONNECT_TIMEOUT, message, sent=False)
            case Phase.SENDING:
                seconds = min(self.limits.head, self.limits.total)
                message = f"no answer within {seconds:g} s of sending"
                return TransportFailure(ErrorCode.ATTEMPT_TIMEOUT, message, sent=True, heard=self.received > 0)
            case Phase.READING:
                if self.limits.silence is not None and self._loop.time() < self._end:
                    message = f"the worker was silent for {self.limits.silence:g} s"
                    return TransportFailure(ErrorCode.HEARTBEAT_LOST, message, sent=True, heard=True)
                message = f"the answer was not complete {self.limits.total:g} s after sending"
                return TransportFailure(ErrorCode.ATTEMPT_TIMEOUT, message, sent=True, heard=True)

    def _wait_on(self, now: float) -> None:
        silence = self.limits.silence
        until = self._end if silence is None else min(self._end, now + silence)
        self.timer.reschedule(None if until == math.inf else until)

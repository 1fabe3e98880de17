"""The network of a simulated world: brings requests to a host by its name, and answers back, as badly as the seed says.

A far side works in a process of its own: what it does goes on when whoever asked is dead, and dies when it is killed.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Final

import httpx

from hurlbat_dispatcher.simulation.clock import VirtualClock
from hurlbat_dispatcher.simulation.faults import Fault, Trouble
from hurlbat_dispatcher.simulation.loop import VirtualLoop
from hurlbat_dispatcher.simulation.process import Process, current
from hurlbat_dispatcher.simulation.trace import WORLD, Trace
from hurlbat_dispatcher.simulation.wire import Body, End, FarSide, Head, Piece, Wire

CONNECT_SECONDS: Final = 5.0
"""After which an attempt to connect is given up where nobody answers."""
_OVERTAKEN_SECONDS: Final = (0.1, 4.0)
_AGAIN_SECONDS: Final = (0.0, 20.0)
_STATUSES: Final = (404, 429, 500, 502, 502, 503, 503, 504, 307, 403)
_RUBBISH: Final = (b"{what\n", b"\xff\xfe\x00", b'{"type":"result"}\n', b"<html>moved</html>\n", b"\n")
_OF_A_REQUEST: Final = (
    *(Fault.REFUSED, Fault.UNCONNECTED, Fault.BLACK_HOLE, Fault.ANSWER_LOST, Fault.LATE, Fault.DUPLICATED),
    *(Fault.REORDERED, Fault.SLOW, Fault.CUT, Fault.ENDED_EARLY, Fault.WRONG_STATUS, Fault.GARBAGE),
)


@dataclass(slots=True)
class Host:
    """Who answers for a name. `away`: connections are refused."""

    far_side: FarSide
    process: Process
    away: bool = False


class SimulatedNetwork(httpx.AsyncBaseTransport):
    """The one network of a world; what goes wrong depends on the process that asks and on chance."""

    def __init__(self, loop: VirtualLoop, clock: VirtualClock, trouble: Trouble, trace: Trace) -> None:
        self.hosts: dict[str, Host] = {}
        self.spares_the_world = False
        """Whether nothing goes wrong with requests that no process makes."""
        self._loop = loop
        self._clock = clock
        self._trouble = trouble
        self._trace = trace
        self._closed = False

    def serve(self, host: str, far_side: FarSide, process: Process) -> Host:
        """Let a process answer for a host from now on."""
        found = self.hosts[host] = Host(far_side, process)
        return found

    def close(self) -> None:
        """End it with the world."""
        self._closed = True

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Bring a request to its host. Raises what httpx raises, also when its client's patience to read is over."""
        await request.aread()
        trouble = self._trouble
        await trouble.io("a request", trouble.faults.network_seconds)
        spared = self.spares_the_world and current() is None
        fault = None if spared else trouble.first_of(*_OF_A_REQUEST)
        self._trace.note(_who(), f"asks {request.url.host}{f', but {fault}' if fault else ''}")
        patience: float | None = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(patience) as timer:
                return await self._bring(request, fault, patience)
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise httpx.ReadTimeout(f"no answer within {patience:g} s", request=request) from error

    async def _bring(self, request: httpx.Request, fault: Fault | None, patience: float | None) -> httpx.Response:
        trouble = self._trouble
        host = await self._connect(request, fault)
        if fault is Fault.REORDERED:
            await self._clock.sleep(trouble.seconds(_OVERTAKEN_SECONDS))
        if fault is Fault.WRONG_STATUS and trouble.one_of(2):
            return self._answer_between(request)
        wire = Wire(self._loop, self._delay(fault), self._change(fault))
        asking = current()
        if asking is not None:
            wire.when_left(asking.when_killed(wire.leave))
        self._attach(host, request, wire)
        if fault is Fault.DUPLICATED:
            again = trouble.seconds(_AGAIN_SECONDS)
            self._loop.call_later(again, self._attach_again, host, request, context=Context())
        try:
            head = await wire.head()
            await trouble.io("an answer", trouble.faults.network_seconds)
        except BaseException:
            wire.leave()
            raise
        return httpx.Response(head.status, headers=list(head.headers), stream=Body(wire, patience), request=request)

    async def _connect(self, request: httpx.Request, fault: Fault | None) -> Host:
        host = self.hosts.get(request.url.host)
        if self._closed or host is None or host.away or not host.process.alive or fault is Fault.REFUSED:
            raise httpx.ConnectError("connection refused", request=request)
        if fault is Fault.UNCONNECTED:
            await self._clock.sleep(CONNECT_SECONDS)
            raise httpx.ConnectTimeout("nobody answered", request=request)
        if fault is Fault.BLACK_HOLE:
            await self._loop.create_future()  # whoever waits gives up by himself
        return host

    def _attach(self, host: Host, request: httpx.Request, wire: Wire) -> None:
        """Let the far side work in its process."""

        async def work() -> None:
            try:
                await host.far_side(request, wire)
            except httpx.ConnectError as error:
                wire.put(End(error))
            except Exception as error:
                self._trace.note(host.process.name, f"failed: {type(error).__name__}")
                wire.break_off()
            finally:
                unwatch()

        unwatch = host.process.when_killed(wire.break_off)
        host.process.spawn(work())

    def _attach_again(self, host: Host, request: httpx.Request) -> None:
        if host.process.alive:
            self._attach(host, request, Wire(self._loop, lambda: None))

    def _answer_between(self, request: httpx.Request) -> httpx.Response:
        status = _STATUSES[self._trouble.one_of(len(_STATUSES))]
        headers = {"location": "https://elsewhere.example.com/"} if status == 307 else {}
        return httpx.Response(status, headers=headers, content=b"from between", request=request)

    # -- what becomes of an answer -------------------------------------------------------------------------------------

    def _delay(self, fault: Fault | None) -> Callable[[], float | None]:
        trouble, faults = self._trouble, self._trouble.faults
        if fault is Fault.LATE:
            late = trouble.seconds(faults.late_seconds)
            return lambda: late
        if fault is Fault.SLOW:
            return lambda: trouble.seconds(faults.slow_seconds)
        if fault is Fault.ANSWER_LOST and trouble.one_of(2):
            return lambda: None
        return lambda: trouble.seconds(faults.network_seconds)

    def _change(self, fault: Fault | None) -> Callable[[Piece], Sequence[Piece]] | None:
        trouble = self._trouble
        if fault is Fault.ANSWER_LOST:
            return lambda _: [End(httpx.ReadError("connection reset"))]
        if fault is Fault.WRONG_STATUS:
            return lambda _: [Head(_STATUSES[trouble.one_of(len(_STATUSES))], ()), b"from between", End()]
        if fault is Fault.CUT or fault is Fault.ENDED_EARLY:
            error = httpx.ReadError("connection reset") if fault is Fault.CUT else None
            return _Breaking(trouble.one_of(3), error)
        if fault is Fault.GARBAGE:
            rubbish = _RUBBISH[trouble.one_of(len(_RUBBISH))]
            at = trouble.one_of(2)
            return _Garbling(at, rubbish)
        return None


class _Breaking:
    """Lets so many pieces of a body through, and half of the next."""

    def __init__(self, whole: int, error: Exception | None) -> None:
        self._left = whole
        self._error = error

    def __call__(self, piece: Piece) -> Sequence[Piece]:
        if not isinstance(piece, bytes):
            return [piece]
        self._left -= 1
        return [piece] if self._left >= 0 else [piece[: len(piece) // 2], End(self._error)]


class _Garbling:
    """Puts something else in the place of one piece of a body."""

    def __init__(self, at: int, rubbish: bytes) -> None:
        self._left = at
        self._rubbish = rubbish

    def __call__(self, piece: Piece) -> Sequence[Piece]:
        if not isinstance(piece, bytes):
            return [piece]
        self._left -= 1
        return [self._rubbish] if self._left == -1 else [piece]


def _who() -> str:
    process = current()
    return WORLD if process is None else process.name

"""A push client with a far side that misbehaves at the level of HTTP, by respx."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import respx

from hurlbat.wire import DeliveredRun
from hurlbat_dispatcher.clock import Chance, Ids
from hurlbat_dispatcher.domain.workers import Mode
from hurlbat_dispatcher.push.client import PushClient
from hurlbat_dispatcher.push.guard import Guard
from hurlbat_dispatcher.push.heard import Delivery, Detached, Ended, Heard
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.push.transport import Transport
from hurlbat_dispatcher.simulation.loop import VirtualLoop

VIRTUAL_TIME: Final[tuple[str, dict[str, Any]]] = "asyncio", {"loop_factory": VirtualLoop}
"""The backend of tests whose time passes only when nothing else is to be done: nothing is measured or waited for."""
URL = "https://x.example/hurlbat"
KEY = "whsec_" + "A" * 32
PROTOCOL = Target("billing", URL, Mode.PROTOCOL, (KEY,), {"authorization": "Bearer x"})
PLAIN = Target("billing", URL, Mode.PLAIN, (KEY,))
MARK = {"hurlbat-worker": "m1"}
STREAM = MARK | {"content-type": "application/x-ndjson"}

RUN_A = "0199a3c0-0000-7000-8000-00000000000a"
RUN_B = "0199a3c0-0000-7000-8000-00000000000b"


class StillClock:
    """A clock that stands at one moment for whoever asks for the time; sleeping is the loop's."""

    def now_ms(self) -> int:
        return 1_700_000_000_123

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(run_id: str = RUN_A, attempt: int = 1, timeout: float = 30.0) -> DeliveredRun:
    return DeliveredRun(run_id, "bill", attempt, 3, '{"n":1}', "{}", timeout, "token", f"https://me/runs/{run_id}")


class Pieces(httpx.AsyncByteStream):
    """A body that comes in these pieces; an exception among them is raised in its place, a coroutine awaited."""

    def __init__(self, *pieces: bytes | Exception | Callable[[], Awaitable[object]]) -> None:
        self._pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            if isinstance(piece, bytes):
                yield piece
            else:
                await piece()

    async def aclose(self) -> None:
        self.closed = True


def make_client(router: respx.Router, *, heartbeat: float = 5.0, head_timeout: float = 15.0) -> PushClient:
    clock = StillClock()
    transport = Transport(Guard(), transport=httpx.MockTransport(router.async_handler))
    ids = Ids(clock, Chance(1))
    return PushClient(transport, clock, ids=ids, heartbeat=heartbeat, head_timeout=head_timeout)


@dataclass
class Result:
    """Everything that a delivery told: call by call, and at its end."""

    calls: list[list[Heard]] = field(default_factory=list)
    delivery: Delivery | None = None
    accepted: int = 0

    @property
    def heard(self) -> list[Heard]:
        return [one for call in self.calls for one in call]

    @property
    def ends(self) -> dict[str, object]:
        """Each run's one end: its answer, or `Detached`."""
        found: dict[str, object] = {}
        for one in self.heard:
            if isinstance(one, Ended | Detached):
                assert one.run_id not in found, f"two ends for {one.run_id}"
                found[one.run_id] = one.answer if isinstance(one, Ended) else Detached
        return found


async def deliver(
    answer: httpx.Response | Exception,
    runs: Sequence[DeliveredRun] = (run(),),
    target: Target = PROTOCOL,
    client: PushClient | None = None,
) -> Result:
    """Deliver the runs to a far side that answers so, and check that each has exactly one end."""
    result = Result()
    if client is None:
        router = respx.Router()
        route = router.post(URL)
        if isinstance(answer, Exception):
            route.mock(side_effect=answer)
        else:
            route.mock(return_value=answer)
        client = make_client(router)

    def accepted() -> None:
        result.accepted += 1

    result.delivery = await client.deliver(
        target, runs, lambda heard: result.calls.append(list(heard)), on_accepted=accepted
    )
    assert set(result.ends) == {one.run_id for one in runs}
    return result

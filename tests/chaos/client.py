"""The client of a chaos run: it submits without a pause, cancels and replays some, and keeps a log of every word.

What it asks for follows from the seed and a number alone. A submit with an idempotency key is repeated until it is
acknowledged; one without is sent again only where the answer says that nothing was stored.
"""

import asyncio
import heapq
import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

import httpx

from tests.chaos.history import Submission
from tests.support.processes import TOKEN

HANDS: Final = 6
PATIENCE: Final = 3.0
"""Seconds after which a request counts as never answered."""
AGAIN: Final = 0.1
KEPT: Final = 86_400
ASKS: Final = 8
"""How often a cancel or a replay is tried where the server cannot be reached or the run has not ended."""
UNSTORED: Final = range(400, 500)
SUBMIT, CANCEL, REPLAY = "submit", "cancel", "replay"

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What the client wants of one run. `cancel_after` and `replay_after` are seconds from its acknowledgement."""

    number: int
    task: str
    seconds: float
    stumbles: bool = False
    keyed: bool = False
    delay: float = 0.0
    cancel_after: float | None = None
    replay_after: float | None = None

    @property
    def body(self) -> Object:
        """The request."""
        wanted = {"number": self.number, "seconds": self.seconds, "stumbles": self.stumbles}
        body: Object = {"task": self.task, "input": wanted}
        if self.keyed:
            body |= {"idempotency_key": f"number-{self.number}", "idempotency_ttl": KEPT}
        return body | ({"delay": self.delay} if self.delay else {})


def order(seed: int, number: int) -> Order:
    """Return what to ask for at this number."""
    chance = random.Random(f"{seed}:{number}")
    [kind] = chance.choices(["quick", "medium", "slow", "stumbling", "doomed", "once"], [50, 20, 7, 5, 4, 14])
    shortest, longest = {"medium": (0.1, 0.5), "slow": (1.0, 2.5), "once": (0.005, 0.5)}.get(kind, (0.005, 0.05))
    return Order(
        number,
        kind if kind in ("doomed", "once") else "work",
        round(chance.uniform(shortest, longest), 3),
        stumbles=kind == "stumbling",
        keyed=chance.random() < 0.6,
        delay=round(chance.uniform(0.5, 3.0), 3) if chance.random() < 0.08 else 0.0,
        cancel_after=chance.uniform(0.0, 1.0) if chance.random() < 0.05 else None,
        replay_after=chance.uniform(1.0, 4.0) if chance.random() < 0.04 else None,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; `code` names what kept the request from being obeyed."""

    status: int | None
    code: str
    run_id: str | None = None

    @property
    def good(self) -> bool:
        """Whether it was acknowledged."""
        return self.status in (200, 201)

    @property
    def maybe(self) -> bool:
        """Whether it may have been obeyed, for all that a client can know."""
        unavailable = self.status == 503 and self.code != "outcome_unknown"
        return not (self.code == "refused" or self.status in UNSTORED or unavailable)


@dataclass
class Client:
    """Submits to all servers, some at a time, a few requests beside each other."""

    urls: Sequence[str]
    log: Path
    seed: int
    rate: float
    """Submits per second, as long as servers answer."""
    orders: Callable[[int, int], Order] = order
    acknowledged: int = 0
    submitted: int = 0
    _over: asyncio.Event = field(default_factory=asyncio.Event)
    _later: list[tuple[float, int, str, str]] = field(default_factory=list)

    async def run(self) -> None:
        """Submit until told to `stop`, then see everything through that was begun."""
        with self.log.open("a", buffering=1) as file:
            async with asyncio.TaskGroup() as group:
                for hand in range(HANDS):
                    group.create_task(self._submit_all(hand, file))
                group.create_task(self._ask_later(file))

    def stop(self) -> None:
        """Submit nothing more."""
        self._over.set()

    async def _submit_all(self, hand: int, file: TextIO) -> None:
        servers = deque(self.urls)
        servers.rotate(-hand)
        chance = random.Random(f"{self.seed}:hand:{hand}")
        async with _http() as http:
            while not self._over.is_set():
                self.submitted += 1
                await self._submit(http, servers, self.orders(self.seed, self.submitted), file)
                await self._rest(chance.uniform(0.5, 1.5) * HANDS / self.rate)

    async def _submit(self, http: httpx.AsyncClient, servers: deque[str], wanted: Order, file: TextIO) -> None:
        while True:
            answer = await _ask(http, f"{servers[0]}/runs", wanted.body, file, SUBMIT, wanted.number)
            if answer.good and answer.run_id is not None:
                self.acknowledged += 1
                for action, after in ((CANCEL, wanted.cancel_after), (REPLAY, wanted.replay_after)):
                    if after is not None:
                        heapq.heappush(self._later, (time.monotonic() + after, wanted.number, action, answer.run_id))
                return
            if answer.maybe and not wanted.keyed:
                return
            servers.rotate(-1)
            await asyncio.sleep(AGAIN)

    async def _ask_later(self, file: TextIO) -> None:
        servers = deque(self.urls)
        async with _http() as http:
            while not self._over.is_set():
                while self._later and self._later[0][0] <= time.monotonic():
                    _, number, action, run_id = heapq.heappop(self._later)
                    for _ in range(ASKS):
                        answer = await _ask(http, f"{servers[0]}/runs/{run_id}/{action}", {}, file, action, number)
                        if answer.good or answer.code == "run_finished":
                            break
                        servers.rotate(-1)
                        await self._rest(AGAIN)
                await self._rest(AGAIN)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            pass


def _http() -> httpx.AsyncClient:
    return httpx.AsyncClient(headers={"authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE, trust_env=False)


async def _ask(http: httpx.AsyncClient, url: str, body: Object, file: TextIO, action: str, number: int) -> Answer:
    """Send a request; note it before it goes, and what came of it."""
    common = {"action": action, "number": number, "url": url}
    _note(file, common)
    answer = await _answered(http, url, body)
    _note(file, common | {"status": answer.status, "code": answer.code, "run_id": answer.run_id})
    return answer


async def _answered(http: httpx.AsyncClient, url: str, body: Object) -> Answer:
    try:
        async with asyncio.timeout(PATIENCE):
            response = await http.post(url, json=body)
    except httpx.ConnectError:
        return Answer(None, "refused")
    except (httpx.HTTPError, TimeoutError):
        return Answer(None, "unanswered")
    found = response.json()
    if response.is_success:
        return Answer(response.status_code, "ok", found["id"])
    return Answer(response.status_code, found["code"])


def _note(file: TextIO, line: Object) -> None:
    file.write(f"{json.dumps({'at': time.time()} | line)}\n")


# -- the log -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """What the log says: the submissions, when submits were acknowledged, and what clients were answered instead."""

    submissions: Sequence[Submission]
    acknowledged_at: Sequence[float]
    refusals: Counter[str]


def read(lines: Iterable[Object], orders: Callable[[int], Order]) -> Told:
    """Tell from the log what was asked for and what was promised."""
    numbers: dict[int, Counter[str]] = {}
    ids: dict[int, dict[str, None]] = {}
    acknowledged_at: list[float] = []
    refusals: Counter[str] = Counter()
    for line in lines:
        seen = numbers.setdefault(line["number"], Counter())
        action = line["action"]
        if "status" not in line:
            seen[f"{action} sent"] += 1
            continue
        answer = Answer(line["status"], line["code"], line["run_id"])
        seen[f"{action} answered"] += 1
        seen[f"{action} maybe"] += answer.maybe
        seen[f"{action} good"] += answer.good
        if not answer.good:
            refusals[f"{action}: {' '.join(str(word) for word in (answer.status, answer.code) if word)}"] += 1
        elif action == SUBMIT and answer.run_id is not None:
            ids.setdefault(line["number"], {})[answer.run_id] = None
            acknowledged_at.append(line["at"])
    return Told(
        [_submission(orders(n), seen, [*ids.get(n, ())]) for n, seen in numbers.items()], acknowledged_at, refusals
    )


def _submission(wanted: Order, seen: Counter[str], ids: Sequence[str]) -> Submission:
    def maybe(action: str) -> int:
        return seen[f"{action} maybe"] + seen[f"{action} sent"] - seen[f"{action} answered"]

    return Submission(
        number=wanted.number,
        task=wanted.task,
        keyed=wanted.keyed,
        stumbles=wanted.stumbles,
        doomed=wanted.task == "doomed",
        at_most_once=wanted.task == "once",
        delay=wanted.delay,
        maybe=maybe(SUBMIT),
        acknowledged=tuple(ids),
        cancels=maybe(CANCEL),
        cancelled=seen[f"{CANCEL} good"],
        replays=maybe(REPLAY),
        replayed=seen[f"{REPLAY} good"],
    )

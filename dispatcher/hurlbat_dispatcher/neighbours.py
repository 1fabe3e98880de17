"""What servers on one database tell each other after a commit.

All of it is a hint: the sweep makes up for what is lost.

A message is a JSON object; who does not know a word in it leaves that word alone.
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import structlog

from hurlbat_dispatcher.domain.holding import Holding, as_json, from_json
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import End, Freed, Operation, Signal, Take, Tick

log = structlog.get_logger("hurlbat.neighbours")

MAX_CHARS: Final = 7_500
"""How much is said in one message: a payload of PostgreSQL's holds 8,000 bytes."""
MAX_ANSWER: Final = 7_000
"""Characters of an answer to a question, quoted as it is in a message."""
ASK_SECONDS: Final = 3.0
KINDS: Final = ["started", "cancelled", "asked", "answered", "signals", "good", "unsent", "back", "freed", "finished"]
"""Of news, in the order in which they are told."""
MAX_GATHERED: Final = 20_000
"""Items of a kind that wait to be told; the oldest are dropped beyond."""


class Listener(Protocol):
    """What a message may ask of this server."""

    def finished(self, run_ids: Sequence[str]) -> None:
        """Wake who waits for these runs."""

    def let_go(self, attempts: Sequence[tuple[str, str, int]]) -> None:
        """Stop to send cancelled attempts (worker, run id, attempt)."""

    def reload(self) -> None:
        """Read the registry anew."""

    def look(self) -> None:
        """See who is there, and whether somebody must start the runs."""


class Neighbours:
    """The other servers, as far as this one talks to them.

    One message is on its way at a time; what is to be told meanwhile is gathered, so that a busy server says more at
    once and not more often.
    """

    def __init__(
        self,
        desk: Desk,
        listener: Listener,
        *,
        put: Callable[[Operation], None],
        notify: Callable[[str], Awaitable[None]],
        spawn: Callable[[Awaitable[None]], None],
        look: Callable[[int], Awaitable[Holding | None]],
    ) -> None:
        self._desk = desk
        self._listener = listener
        self._put = put
        self._notify = notify
        self._spawn = spawn
        self._look = look
        self._news: dict[str, deque[Any]] = {}
        self._flags: dict[str, bool] = {}
        self._telling = False
        self._asked = 0
        self._answers: dict[int, asyncio.Future[str]] = {}

    def committed(self, ledger: Ledger) -> None:
        """Tell what a commit of this server means to others."""
        for sender, run_id in ledger.assigned:
            self._add("started", (sender, run_id))
        for order in ledger.cancels:
            if order.sender not in (None, self._desk.me):
                self._add("cancelled", (order.sender, order.worker, order.run_id, order.attempt))
        for signal in ledger.signals:
            self._add("signals", self._told(signal))
        if not self._desk.owns:
            for worker, good in ledger.good.items():
                self._add("good", (worker, good))
            for attempt in ledger.freed:
                self._add("freed", attempt)
                if attempt in ledger.unsent:
                    self._add("unsent", attempt)
            for back in ledger.back:
                self._add("back", back)
            if ledger.queued:
                self._flags["queued"] = True
        for run_id in ledger.finished:
            self._add("finished", run_id)
        self._tell()

    def registry_changed(self) -> None:
        """Tell that the registry should be read anew."""
        self._flags["registry"] = True
        self._tell()

    async def ask(self, lane: int) -> Holding | None:
        """Ask the server that starts the runs how a lane stands. Raises `TimeoutError`."""
        self._asked += 1
        question = (self._asked, self._desk.me)
        answer = self._answers[question[0]] = asyncio.get_running_loop().create_future()
        try:
            self._add("asked", (*question, lane))
            self._tell()
            async with asyncio.timeout(ASK_SECONDS):
                return from_json(await answer)
        finally:
            del self._answers[question[0]]

    async def _answer(self, number: int, asker: str, lane: int) -> None:
        self._add("answered", (number, asker, as_json(await self._look(lane), MAX_ANSWER)))
        self._tell()

    def moved(self) -> None:
        """Tell that this server has come, or takes no more work."""
        self._flags["moved"] = True
        self._tell()

    def heard(self, message: str) -> None:
        """Do what another server's message asks for."""
        try:
            said = json.loads(message)
            self._do(said)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            log.warning("a message of another server was not understood", error=repr(error))

    def _do(self, said: dict[str, Any]) -> None:
        self._listener.finished([str(run_id) for run_id in said.get("finished", ())])
        started = [str(run_id) for sender, run_id in said.get("started", ()) if sender == self._desk.me]
        if started:
            self._put(Take(started))
        self._listener.let_go(
            [
                (str(worker), str(run_id), int(attempt))
                for sender, worker, run_id, attempt in said.get("cancelled", ())
                if sender == self._desk.me
            ]
        )
        if self._desk.owns:
            freed = [(str(run_id), int(attempt)) for run_id, attempt in said.get("freed", ())]
            unsent = frozenset((str(run_id), int(attempt)) for run_id, attempt in said.get("unsent", ()))
            over = [str(run_id) for run_id in said.get("finished", ()) if run_id in self._desk.picture.members]
            back = [(str(run_id), int(attempt), bool(begun)) for run_id, attempt, begun in said.get("back", ())]
            if freed or over or back:
                self._put(Freed(freed, unsent, over, back))
            if said.get("queued"):
                self._put(Tick())
            for worker, good in said.get("good", ()):
                self._put(End((), worker=str(worker), good=int(good)))
            for number, asker, lane in said.get("asked", ()):
                self._spawn(self._answer(int(number), str(asker), int(lane)))
        for number, asker, text in said.get("answered", ()):
            waiting = self._answers.get(int(number)) if asker == self._desk.me else None
            if waiting is not None and not waiting.done():
                waiting.set_result(str(text))
        for worker, unreachable, trouble, pushed_back, rest, age in said.get("signals", ()):
            self._put(
                Signal(
                    str(worker),
                    unreachable=bool(unreachable),
                    trouble=bool(trouble),
                    pushed_back=None if pushed_back is None else int(pushed_back),
                    rest=None if rest is None else int(rest),
                    sent_at=None if age is None else self._desk.clock.monotonic() - float(age),
                    relayed=True,
                )
            )
        if said.get("registry"):
            self._listener.reload()
        if said.get("moved"):
            self._listener.look()

    def _told(self, signal: Signal) -> tuple[object, ...]:
        """Say a signal so that a server with another monotonic clock understands it."""
        age = None if signal.sent_at is None else self._desk.clock.monotonic() - signal.sent_at
        return signal.worker, signal.unreachable, signal.trouble, signal.pushed_back, signal.rest, age

    def _add(self, kind: str, item: Any) -> None:
        self._news.setdefault(kind, deque(maxlen=MAX_GATHERED)).append(item)

    def _tell(self) -> None:
        if not self._telling and (self._flags or any(self._news.values())):
            self._telling = True
            self._spawn(self._tell_all())

    async def _tell_all(self) -> None:
        try:
            while self._flags or any(self._news.values()):
                await self._notify(self._message())
        finally:
            self._telling = False

    def _message(self) -> str:
        """Take as much of the news as one message holds."""
        said: dict[str, Any] = dict(self._flags)
        self._flags.clear()
        room = MAX_CHARS
        for kind in KINDS:
            gathered = self._news.get(kind) or deque()
            items: list[Any] = []
            while gathered:
                text = json.dumps(gathered[0])
                if len(text) >= MAX_CHARS:  # it never fits, and would be in the way of all that comes after it
                    log.error("what is to be told is too long for a message, and is left out", kind=kind)
                    gathered.popleft()
                    continue
                if len(text) >= room:
                    break
                room -= len(text) + 1
                items.append(gathered.popleft())
            if items:
                said[kind] = items
        return json.dumps(said, separators=(",", ":"))

"""Sends started attempts to their workers and tells the writer what became of them.

A worker's attempts leave in deliveries. Only so many deliveries of a worker are in their sending phase at a time, so
under load they fill up; once a worker has begun to answer, or has taken its time to, its delivery may stay open for
hours and holds back nothing. Deliveries of one run, as plain workers get them, have nothing to fill and never wait.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Final

import structlog

from hurlbat.wire import DeliveredRun
from hurlbat_dispatcher.domain.answers import Signal
from hurlbat_dispatcher.domain.outcome import (
    Answer,
    ErrorCode,
    Failed,
    Held,
    NotSent,
    PushedBack,
    Unstarted,
    shows_health,
)
from hurlbat_dispatcher.domain.workers import Mode
from hurlbat_dispatcher.parcels import Key, Parcel, Tray, take
from hurlbat_dispatcher.push.client import PushClient
from hurlbat_dispatcher.push.heard import Delivery, Detached, Ended, Heard, Logged, Progressed, Started
from hurlbat_dispatcher.push.request import Target
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.turn.ledger import CancelOrder
from hurlbat_dispatcher.turn.operations import AttemptEnd, Detach, End, Note, Operation, Stopped

log = structlog.get_logger("hurlbat.outbox")

SENDING: Final = 8
"""Deliveries of one worker that may be in their sending phase, where they have room for more than one run."""
PARTIAL: Final = 2
"""Of these, how many may leave with room to spare without lingering (in the manner of Nagle's algorithm, RFC 896)."""
SENDING_SECONDS: Final = 0.25
"""How long a delivery counts as being sent, at most, when its answer does not begin."""
LINGER: Final = 0.005
"""Seconds that further runs wait, at most, for others to fill their delivery."""
MAX_NOTES: Final = 500
"""Log and progress lines that are kept of one attempt."""


class Outbox:
    """All deliveries of this server."""

    def __init__(
        self,
        push: PushClient,
        registry: Registry,
        *,
        put: Callable[[Operation], None],
        heard_of: Callable[[str, Delivery, float], None],
        began: Callable[[str], None],
        small: Callable[[str], bool],
        may_send: Callable[[], bool],
        stale: Callable[[], None],
        recorded: bool = False,
    ) -> None:
        self._push = push
        self._registry = registry
        self._put = put
        self._heard_of = heard_of
        self._began = began
        self._small = small
        self._may_send = may_send
        self._stale = stale
        self._recorded = recorded
        self._trays: dict[str, Tray] = {}
        self._live: dict[Key, Parcel] = {}
        self._refusing: set[Parcel] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._hurried = asyncio.Event()

    @property
    def handed_over(self) -> frozenset[Key]:
        """Return all attempts that are in this server's hands, sent or not."""
        waiting = ((run.run_id, run.attempt) for tray in self._trays.values() for run in tray.queue)
        refused = ((end.run_id, end.attempt) for parcel in self._refusing for end in parcel.refused)
        return frozenset((*self._live, *waiting, *refused))

    @property
    def in_flight(self) -> int:
        """Return how many attempts are with workers now, connected to this server."""
        return len(self._live)

    def send(self, deliveries: Iterable[tuple[str, DeliveredRun]]) -> None:
        """Take attempts whose start was committed."""
        touched: dict[str, Tray] = {}
        for worker, run in deliveries:
            tray = self._trays.get(worker)
            if tray is None:
                tray = self._trays[worker] = Tray()
            tray.queue.append(run)
            touched[worker] = tray
        for worker, tray in touched.items():
            self._pump(worker, tray)

    def cancel(self, orders: Sequence[CancelOrder]) -> None:
        """Tell workers of cancelled attempts; one that was not sent yet stays here."""
        by_worker: dict[str, list[CancelOrder]] = {}
        for order in orders:
            if not self._take_back(order.worker, (order.run_id, order.attempt)):
                by_worker.setdefault(order.worker, []).append(order)
        for worker, listed in by_worker.items():
            target = self._registry.targets.get(worker)
            if target is not None:
                self._spawn(self._tell(target, listed))

    def give_back(self, why: str) -> None:
        """Give back all that was not sent yet."""
        for tray in self._trays.values():
            self._give_back(tray.queue, NotSent(ErrorCode.CONNECT_FAILED, why))
            tray.queue.clear()

    def let_go(self, attempts: Iterable[tuple[str, str, int]]) -> None:
        """Stop to send attempts (worker, run id, attempt) that another server has cancelled, and told the worker of."""
        keys = [
            (run_id, attempt) for worker, run_id, attempt in attempts if not self._take_back(worker, (run_id, attempt))
        ]
        self._close(keys)

    async def drain(self, grace: float) -> None:
        """Give back what was not sent, wait for answers, then leave the runs that started to leases of their own."""
        self._closing = True
        self.give_back("the server stopped before it was sent")
        deliveries = [parcel.task for parcel in self._parcels() if parcel.task is not None]
        if deliveries:
            answered = asyncio.ensure_future(asyncio.wait(deliveries))
            hurried = asyncio.ensure_future(self._hurried.wait())
            await asyncio.wait({answered, hurried}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
            hurried.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def hurry(self) -> None:
        """Let a drain wait for answers no longer."""
        self._hurried.set()

    # -- sending -----------------------------------------------------------------------------------------------------

    def _pump(self, worker: str, tray: Tray, *, lingered: bool = False) -> None:
        if self._closing:
            self._give_back(tray.queue, NotSent(ErrorCode.CONNECT_FAILED, "the server is stopping"))
            tray.queue.clear()
        while tray.queue:
            target = self._registry.targets.get(worker)
            if target is None or not self._may_send():
                if target is None:  # or this server has not heard of it yet
                    self._stale()
                why = "the worker was removed" if target is None else "the server's lease ran out"
                self._give_back(tray.queue, NotSent(ErrorCode.CONNECT_FAILED, f"{why} before it was sent"))
                tray.queue.clear()
                return
            most = 1 if target.mode is Mode.PLAIN else max(1, self._registry.workers[worker].max_batch)
            fills = most > 1
            if fills and tray.sending >= SENDING:
                return
            if len(tray.queue) < most and tray.sending >= PARTIAL and not lingered:
                self._linger(worker, tray)
                return
            batch = take(tray.queue, most)
            parcel = Parcel(target, {(run.run_id, run.attempt): run for run in batch}, sending=fills)
            self._live.update((key, parcel) for key in parcel.waiting)
            tray.sending += fills
            parcel.task = self._spawn(self._deliver(worker, tray, parcel, batch))

    def _linger(self, worker: str, tray: Tray) -> None:
        def over() -> None:
            tray.lingering = None
            self._pump(worker, tray, lingered=True)

        if tray.lingering is None:
            tray.lingering = asyncio.get_running_loop().call_later(LINGER, over)

    async def _deliver(self, worker: str, tray: Tray, parcel: Parcel, batch: Sequence[DeliveredRun]) -> None:
        def accepted() -> None:
            if parcel.sending:
                parcel.sending = False
                tray.sending -= 1
                self._pump(worker, tray)

        parcel.sent_at = asyncio.get_running_loop().time()
        delivery_id = self._push.delivery_id(parcel.target, batch)
        if self._recorded:
            parcel.delivery = delivery_id
        # an answer in one piece begins when its tasks end; until then nobody is held back
        patience = asyncio.get_running_loop().call_later(SENDING_SECONDS, accepted)
        try:
            delivery = await self._push.deliver(
                parcel.target,
                batch,
                lambda heard: self._hear(worker, parcel, heard),
                delivery_id=delivery_id,
                last_look=lambda: self._last_look(parcel),
                on_accepted=accepted,
            )
            self._heard_of(worker, delivery, parcel.sent_at)
            self._abandon(parcel, "the delivery ended without a word of it")
        except asyncio.CancelledError:
            self._abandon(parcel, "the server stopped before it was answered")
            raise
        except Exception as error:
            log.error("a delivery failed", worker=worker, error=repr(error), exc_info=error)
            self._abandon(parcel, f"the delivery failed: {error!r}")
        finally:
            patience.cancel()
            accepted()

    def _last_look(self, parcel: Parcel) -> str | None:
        if not self._may_send():
            return "the server's lease ran out before it was sent"
        parcel.sent = True
        return None

    def _hear(self, worker: str, parcel: Parcel, heard: Sequence[Heard]) -> None:
        ends: list[AttemptEnd] = []
        detached: list[Key] = []
        notes: list[tuple[str, int, str, dict[str, object]]] = []
        overdue: list[CancelOrder] = []
        good = 0
        for event in heard:
            match event:
                case Started(run_id, attempt):
                    if not parcel.started:
                        self._began(worker)
                    good += 1
                    parcel.started[run_id, attempt] = asyncio.get_running_loop().time()
                case Ended(run_id, attempt, answer, whole):
                    end = AttemptEnd(run_id, attempt, answer, delivery=parcel.delivery)
                    if whole and isinstance(answer, NotSent | PushedBack | Held):
                        parcel.refused.append(end)
                        self._refusing.add(parcel)
                    else:
                        ends.append(end)
                    self._forget(parcel, (run_id, attempt))
                    if shows_health(answer):
                        good += (run_id, attempt) not in parcel.started
                    elif isinstance(answer, Failed) and answer.code is ErrorCode.EXECUTION_TIMEOUT:
                        overdue.append(CancelOrder(worker, run_id, attempt, "execution_timeout", None))
                case Detached(run_id, attempt):
                    detached.append((run_id, attempt))
                    self._forget(parcel, (run_id, attempt))
                case Logged(run_id, attempt, level, message):
                    if self._counts(parcel, (run_id, attempt)):
                        notes.append((run_id, attempt, "log", {"level": level, "message": message}))
                case Progressed(run_id, attempt, value, message):
                    if self._counts(parcel, (run_id, attempt)):
                        notes.append((run_id, attempt, "progress", {"value": value, "message": message}))
                case _:
                    pass
        if notes:
            self._put(Note(notes))
        if ends or (good and self._small(worker)):
            self._put(End(ends, worker=worker, good=good))
        if detached:
            self._put(Detach(detached, parcel.ages(), delivery=parcel.delivery))
        if overdue and parcel.target.mode is Mode.PROTOCOL:
            said = "an attempt ran into its execution timeout"
            self._heard_of(worker, Delivery(Signal.TROUBLE, None, said), parcel.sent_at)
            self._spawn(self._tell(parcel.target, overdue))

    def _abandon(self, parcel: Parcel, why: str) -> None:
        """Settle what is left of a delivery that will not go on."""
        if parcel.refused:
            self._put(End(parcel.refused))
            self._refusing.discard(parcel)
        left = list(parcel.waiting)
        stopped = [key for key in left if key in parcel.cancelled]
        gone_on = [key for key in left if key in parcel.started and key not in parcel.cancelled]
        others = [key for key in left if key not in parcel.started and key not in parcel.cancelled]
        for key in left:
            self._forget(parcel, key)
        if stopped:
            self._put(Stopped(stopped, delivery=parcel.delivery))
        if gone_on:
            self._put(Detach(gone_on, parcel.ages(), delivery=parcel.delivery))
        if others:
            plain = parcel.target.mode is Mode.PLAIN
            answer: Answer = Failed(ErrorCode.CONNECTION_RESET, why) if plain else Unstarted(why)
            if not parcel.sent:
                answer = NotSent(ErrorCode.CONNECT_FAILED, why)
            by = parcel.delivery
            self._put(End([AttemptEnd(run_id, attempt, answer, delivery=by) for run_id, attempt in others]))

    def _give_back(self, runs: Iterable[DeliveredRun], answer: NotSent) -> None:
        ends = [AttemptEnd(run.run_id, run.attempt, answer) for run in runs]
        if ends:
            self._put(End(ends))

    # -- cancelling --------------------------------------------------------------------------------------------------

    def _take_back(self, worker: str, key: Key) -> bool:
        tray = self._trays.get(worker)
        for run in tray.queue if tray else ():
            if (run.run_id, run.attempt) == key:
                assert tray is not None
                tray.queue.remove(run)
                self._put(Stopped([key]))
                return True
        return False

    async def _tell(self, target: Target, orders: Sequence[CancelOrder]) -> None:
        told: dict[Key, str] = {}
        if target.mode is Mode.PROTOCOL:
            told = dict(await self._push.cancel(target, [(one.run_id, one.attempt, one.reason) for one in orders]))
        stopped = [key for key, status in told.items() if status == "stopped"]
        for key in stopped:
            parcel = self._live.get(key)
            self._put(Stopped([key], delivery=None if parcel is None else parcel.delivery))
        self._close([(order.run_id, order.attempt) for order in orders])

    def _close(self, keys: Iterable[Key]) -> None:
        """Expect no more of cancelled attempts, and close a delivery that carries nothing else."""
        parcels: dict[Parcel, None] = {}
        for key in keys:
            parcel = self._live.get(key)
            if parcel is not None:
                parcel.cancelled.add(key)
                parcels[parcel] = None
        for parcel in parcels:
            if parcel.task is not None and all(key in parcel.cancelled for key in parcel.waiting):
                parcel.task.cancel()

    # -- small things ------------------------------------------------------------------------------------------------

    def _forget(self, parcel: Parcel, key: Key) -> None:
        parcel.waiting.pop(key, None)
        if self._live.get(key) is parcel:
            del self._live[key]

    def _counts(self, parcel: Parcel, key: Key) -> bool:
        parcel.notes[key] = parcel.notes.get(key, 0) + 1
        return parcel.notes[key] <= MAX_NOTES

    def _parcels(self) -> list[Parcel]:
        return list(dict.fromkeys(self._live.values()))

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

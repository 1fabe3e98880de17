"""The health of workers: what their answers say of them, and another look at those that were away."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.answers import Signal
from hurlbat_dispatcher.domain.workers import SERVING, Mode, WorkerState
from hurlbat_dispatcher.errors import Problem
from hurlbat_dispatcher.fleet import GONE, Fleet, unproven
from hurlbat_dispatcher.keyring import waits_for_its_secret
from hurlbat_dispatcher.push.heard import Delivery
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.rotating import Rotating
from hurlbat_dispatcher.standing import Move
from hurlbat_dispatcher.store.database import Clash, DatabaseTrouble
from hurlbat_dispatcher.turn import operations
from hurlbat_dispatcher.turn.operations import Operation

log = structlog.get_logger("hurlbat.health")

SETTLE_SECONDS: Final = 60.0
"""A changed manifest is adopted when the older one has not been seen for so long: a rolling deploy is over then."""
RECHECK_FIRST: Final = 2.0
RECHECK_MAX: Final = 60.0
"""Seconds between two proofs of a worker that is away: doubled each time."""
MAX_PROOFS: Final = 16
"""Proofs that go on at the same time in the background."""
_MORE_ROOM: Final = 1.0
_IN_USE: Final = SERVING | {WorkerState.UNREACHABLE}


class Health:
    """Watches all workers."""

    def __init__(
        self,
        fleet: Fleet,
        rotating: Rotating,
        registry: Registry,
        clock: Clock,
        *,
        put: Callable[[Operation], None],
    ) -> None:
        self._fleet = fleet
        self._rotating = rotating
        self._registry = registry
        self._clock = clock
        self._put = put
        self._tasks: set[asyncio.Task[None]] = set()
        self._sightings: dict[str, tuple[str, float]] = {}
        self._manifest_seen: dict[str, float] = {}
        self._proving: set[str] = set()
        self._checks: dict[str, tuple[float, float]] = {}

    def heard_of(self, name: str, delivery: Delivery, sent_at: float | None = None) -> None:
        """Take what a delivery says of its worker, which was sent then (monotonic), or a second ago."""
        sentence = delivery.sentence
        match delivery.signal:
            case Signal.OK:
                self._seen(name, delivery.manifest)
            case Signal.UNREACHABLE:
                self._put(operations.Signal(name, unreachable=True))
                self._move(name, SERVING, WorkerState.UNREACHABLE, f"the worker cannot be reached: {sentence}")
            case Signal.PUSHED_BACK:
                wait = _MORE_ROOM if delivery.retry_after is None else delivery.retry_after
                self._put(operations.Signal(name, pushed_back=int(wait * 1000), sent_at=sent_at))
            case Signal.TROUBLE:
                self._put(operations.Signal(name, trouble=True, sent_at=sent_at))
            case Signal.UNAUTHORIZED:
                self._move(name, _IN_USE, WorkerState.REJECTED, f"{sentence}; mend it, then sync the worker")
            case Signal.GONE:
                self._move(name, _IN_USE, WorkerState.DISABLED, GONE)
            case Signal.LOCAL:
                self._put(operations.Signal(name, rest=int(_MORE_ROOM * 1000)))

    def began(self, name: str) -> None:
        """Know that a worker has begun with a run: it is back, however long that run takes."""
        worker = self._registry.workers.get(name)
        if worker is not None and worker.state is WorkerState.UNREACHABLE:
            self._seen(name, None)

    async def recheck(self) -> None:
        """Prove again the workers that could not be reached, and those whose manifest or keys have changed for good.

        Each proof goes on by itself: a worker that answers slowly keeps no other waiting.
        """
        self._spawn(self._fleet.standing.store())
        if self._rotating.over():
            self._spawn(self._rotating.settle())
        now = self._clock.monotonic()
        due = [name for name in dict.fromkeys((*self._settled(now), *self._away(now))) if name not in self._proving]
        for name in sorted(due, key=lambda one: self._checks.get(one, (0.0, 0.0))[0]):
            if len(self._proving) >= MAX_PROOFS:
                return
            self._sightings.pop(name, None)
            wait = self._checks.get(name, (0.0, RECHECK_FIRST / 2))[1] * 2
            self._checks[name] = (now + wait, min(wait, RECHECK_MAX))
            self._proving.add(name)
            self._spawn(self._prove(name))

    async def _prove(self, name: str) -> None:
        try:
            worker = await self._fleet.look_again(name)
        except Problem:  # it was removed meanwhile
            self._checks.pop(name, None)
        except (DatabaseTrouble, Clash) as trouble:
            log.warning("a worker could not be proven", worker=name, error=str(trouble))
        else:
            if worker.state is WorkerState.READY:
                self._checks.pop(name, None)
        finally:
            self._proving.discard(name)

    def _settled(self, now: float) -> list[str]:
        return [
            name
            for name, (_, since) in self._sightings.items()
            if now - max(since, self._manifest_seen.get(name, since)) >= SETTLE_SECONDS
            and name in self._registry.workers
            and self._registry.workers[name].state in _IN_USE  # a proof would wake one that was paused
        ]

    def _away(self, now: float) -> list[str]:
        return [
            worker.name
            for worker in self._registry.workers.values()
            if worker.mode is Mode.PROTOCOL
            and worker.state in (WorkerState.UNREACHABLE, WorkerState.PENDING)
            and not waits_for_its_secret(self._registry.secrets[worker.name])
            and self._checks.get(worker.name, (0.0, 0.0))[0] <= now
        ]

    async def close(self) -> None:
        """Stop what goes on in the background."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _seen(self, name: str, manifest: str | None) -> None:
        worker = self._registry.workers.get(name)
        if worker is None:
            return
        self._fleet.standing.saw(name)
        now = self._clock.monotonic()
        if worker.mode is Mode.PROTOCOL and manifest:
            if manifest == worker.manifest:
                self._manifest_seen[name] = now
            elif self._sightings.get(name, ("", 0.0))[0] != manifest:
                self._sightings[name] = (manifest, now)
        if worker.state is WorkerState.UNREACHABLE:
            plain = worker.mode is Mode.PLAIN
            back = WorkerState.UNVERIFIED if plain else WorkerState.READY
            self._move(name, frozenset({worker.state}), back, unproven() if plain else None)

    def _move(self, name: str, among: frozenset[WorkerState], to: WorkerState, problem: str | None) -> None:
        """Change a worker's state at once in memory, and soon in the database."""
        before = self._fleet.standing.move(Move(name, among, to, problem))
        if before is None:
            return
        log.warning("a worker changed its state", worker=name, was=before.state, state=to, problem=problem)
        self._put(operations.Refresh())
        self._spawn(self._fleet.standing.store())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

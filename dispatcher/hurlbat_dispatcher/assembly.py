"""Puts the engine's parts together, starts them in order, and stops them in reverse."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from hurlbat_dispatcher.attempts import Attempts
from hurlbat_dispatcher.awaiting import Awaiting
from hurlbat_dispatcher.bulk import Bulk
from hurlbat_dispatcher.clock import AgreedClock, Clock, Ids
from hurlbat_dispatcher.deliveries import Deliveries
from hurlbat_dispatcher.events import Events
from hurlbat_dispatcher.explaining import Explainer
from hurlbat_dispatcher.filters import Filters
from hurlbat_dispatcher.fleet import Fleet
from hurlbat_dispatcher.health import Health
from hurlbat_dispatcher.limits import Limits
from hurlbat_dispatcher.listening import Listening
from hurlbat_dispatcher.loops import every
from hurlbat_dispatcher.loops.bulk import BulkWork
from hurlbat_dispatcher.loops.lease import Lease
from hurlbat_dispatcher.loops.retention import Retention
from hurlbat_dispatcher.neighbours import Neighbours
from hurlbat_dispatcher.outbox import Outbox
from hurlbat_dispatcher.outside import Outside
from hurlbat_dispatcher.push.client import PushClient
from hurlbat_dispatcher.push.guard import Guard, own_destinations
from hurlbat_dispatcher.push.transport import Transport
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.rotating import Rotating
from hurlbat_dispatcher.schedules import Schedules
from hurlbat_dispatcher.secrecy import LeaseTokens, Vault, WrongKey, digest_of, key_beside, new_token
from hurlbat_dispatcher.settings import Settings
from hurlbat_dispatcher.store.database import CannotOpen, Database, DatabaseTrouble
from hurlbat_dispatcher.store.leases import Ownership, leave
from hurlbat_dispatcher.store.tokens import good_tokens, keep_first_token
from hurlbat_dispatcher.submitting import Submitting
from hurlbat_dispatcher.taken import Taken
from hurlbat_dispatcher.telemetry import Telemetry
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Refresh, Tick
from hurlbat_dispatcher.waiters import Waiters
from hurlbat_dispatcher.waiting import LOOK_AGAIN, WATCH_AGAIN, Waiting
from hurlbat_dispatcher.webhooks import Webhooks
from hurlbat_dispatcher.workflows import Workflows
from hurlbat_dispatcher.writer import Writer

log = structlog.get_logger("hurlbat.engine")

TENANT: Final = 1
SWEEP_ALONE: Final = 60.0
SWEEP_SHARED: Final = 5.0
RECHECK_SECONDS: Final = 2.0
RETENTION_SECONDS: Final = 60.0


@dataclass(slots=True)
class Parts:
    """Everything of a running engine."""

    settings: Settings
    clock: Clock
    ids: Ids
    database: Database
    registry: Registry
    desk: Desk
    transport: Transport
    lease_tokens: LeaseTokens
    waiters: Waiters
    telemetry: Telemetry
    tokens: set[str]
    first_token: str | None
    writer: Writer = field(init=False)
    outbox: Outbox = field(init=False)
    fleet: Fleet = field(init=False)
    limits: Limits = field(init=False)
    bulk: Bulk = field(init=False)
    bulk_work: BulkWork = field(init=False)
    events: Events = field(init=False)
    schedules: Schedules = field(init=False)
    awaiting: Awaiting = field(init=False)
    submitting: Submitting = field(init=False)
    webhooks: Webhooks = field(init=False)
    workflows: Workflows = field(init=False)
    rotating: Rotating = field(init=False)
    health: Health = field(init=False)
    lease: Lease = field(init=False)
    neighbours: Neighbours = field(init=False)
    explainer: Explainer = field(init=False)
    deliveries: Deliveries = field(init=False)
    attempts: Attempts = field(init=False)
    waiting: Waiting = field(init=False)
    taken: Taken = field(default_factory=Taken)
    _duties: list[asyncio.Task[Any]] = field(default_factory=list)
    _writing: asyncio.Task[None] | None = None
    _telling: set[asyncio.Task[Any]] = field(default_factory=set)

    def committed(self, ledger: Ledger) -> None:
        """Do what follows a commit: send, cancel, wake those who wait, tell the other servers."""
        self.telemetry.committed(ledger, self.writer.last_size)
        self.waiting.committed(ledger)
        taken = [one for one in ledger.deliveries if self.taken.take(one[1].run_id, one[1].attempt)]
        for run_id in ledger.finished:
            self.taken.over(run_id)
        for run_id, _ in ledger.freed:
            self.taken.over(run_id)
        if ledger.connected is not None:
            self.taken.keep(ledger.connected)
        self.outbox.send(taken)
        if ledger.outdated:
            self.reload()
        if ledger.pauses:
            # whoever read the registry meanwhile has a snapshot from before the commit
            self.registry.pauses.update((row.key, row.until) for row in ledger.pauses)
            self.registry_changed()
        if ledger.cancels:
            self.outbox.cancel(ledger.cancels)
        if self.database.shared:
            self.neighbours.committed(ledger)

    def registry_changed(self) -> None:
        """Tell the other servers that they should read the registry anew."""
        if self.database.shared:
            self.neighbours.registry_changed()

    def finished(self, run_ids: Sequence[str]) -> None:
        """Wake who waits for runs that have ended elsewhere."""
        self.waiters.finished(run_ids)

    def let_go(self, attempts: Sequence[tuple[str, str, int]]) -> None:
        """Stop to send what was cancelled elsewhere, and do not begin to: the word of its start may come later."""
        for _, run_id, attempt in attempts:
            self.taken.take(run_id, attempt)
        self.outbox.let_go(attempts)

    def reload(self) -> None:
        """Read the registry anew, soon."""
        self.spawn(self._reload())

    def look(self) -> None:
        """See who is there, soon."""
        self.spawn(self.lease.run_once())

    def held(self, ownership: Ownership, lapsed: bool) -> None:
        """Know who starts the runs, and who else may be given work.

        `lapsed`: others may have rescued what was not sent yet, and nothing could be started meanwhile.
        """
        self.desk.peers = ownership.peers
        if lapsed:
            self.outbox.give_back("the server's lease ran out before it was sent")
            self.writer.put(Tick(sweep=True))
        self.writer.own(ownership.epoch if ownership.owner == self.desk.me else None)

    def handed_over(self) -> None:
        """Look for what this server was still given, and let the others see that it takes no more."""
        self.writer.recall()
        self.neighbours.moved()

    async def begin(self) -> None:
        """Start all duties."""
        if len(self.settings.secret_key) > 1:
            await self.fleet.rekey()
            await self.webhooks.rekey()
        await self.fleet.load()
        self._writing = asyncio.create_task(self.writer.run(), name="hurlbat writer")
        await self.lease.run_once()
        await self.bulk_work.run_once()
        await self.database.listen(self.neighbours.heard)
        sweep = SWEEP_SHARED if self.database.shared else SWEEP_ALONE
        kept = self.settings.delivery_retention
        retention = Retention(TENANT, self.database, self.clock, seconds=self.settings.retention, delivery_seconds=kept)
        self._duty("sweep", sweep, self._sweep)
        self._duty("recheck", RECHECK_SECONDS, self.health.recheck)
        self._duty("wait", LOOK_AGAIN, self.waiting.look_again)
        self._duty("retention", RETENTION_SECONDS, retention.run_once)
        self._duty("bulk", sweep, self.bulk_work.run_once)
        if self.database.shared:
            self._duty("watch", WATCH_AGAIN, self.waiting.watch_again)
            self._duty("lease", self.lease.pause, self.lease.run_once)
            self.neighbours.moved()

    async def stop(self, grace: float) -> None:
        """Stop everything in reverse order."""
        self.desk.draining = True
        self.bulk_work.stop()
        if self.database.shared:
            with suppress(DatabaseTrouble):  # else it is done instead of the next renewal
                await self.lease.hand_over()
            self.writer.own(None)
        await self.outbox.drain(grace)
        for duty in self._duties:
            duty.cancel()
        await self.health.close()
        await self.deliveries.close()
        self.writer.close()
        if self._writing is not None:
            await self._writing
        with suppress(DatabaseTrouble):
            await self.database.write(leave(self.desk.me))
        for task in (*self._duties, *self._telling):
            task.cancel()
        await asyncio.gather(*self._duties, *self._telling, return_exceptions=True)
        await self.transport.aclose()
        await self.database.close()

    async def _sweep(self) -> None:
        await self.database.listen(self.neighbours.heard)
        self.tokens = await _tokens(self.settings, self.database)
        await self._reload()
        self.writer.recall()
        self.writer.put(Tick(sweep=True))
        await self.database.cut_off()  # operations and retention pass over what is locked

    async def _reload(self) -> None:
        await self.fleet.load()
        self.writer.put(Refresh())
        self.writer.put(Tick())  # schedules may have changed

    def _duty(self, name: str, seconds: float | Callable[[], float], run_once: Any) -> None:
        self._duties.append(asyncio.create_task(every(seconds, self.clock, name, run_once), name=f"hurlbat {name}"))

    def spawn(self, work: Awaitable[None]) -> None:
        """Do something beside; a failure is logged."""
        task = asyncio.ensure_future(work)
        self._telling.add(task)
        task.add_done_callback(self._told)

    def _told(self, task: asyncio.Future[Any]) -> None:
        self._telling.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("what was done beside failed", error=repr(task.exception()))


async def assemble(settings: Settings, outside: Outside) -> Parts:
    """Open the database and start a server's parts. Raises `CannotOpen`, `DatabaseTrouble`."""
    store = outside.database(settings.database_url, outside.clock, settings.lease)
    await store.open()
    try:
        await store.prepare()
        parts = await _build(settings, outside, store)
    except BaseException:
        await store.close()
        raise
    try:
        await parts.begin()
    except WrongKey as error:
        await parts.stop(0)
        raise CannotOpen(str(error)) from error
    except BaseException:
        await parts.stop(0)
        raise
    return parts


async def _build(settings: Settings, outside: Outside, store: Database) -> Parts:
    clock = AgreedClock(outside.clock)
    ids = Ids(clock, outside.chance)
    vault = Vault(_keys(settings, store))
    first = await _first_token(settings, store)
    tokens = await _tokens(settings, store)
    registry = Registry()
    lease_tokens = LeaseTokens(vault.lease_key)
    desk = Desk(
        me=Ids(outside.clock, outside.chance).new(),  # ids of runs begin when the clocks have agreed
        registry=registry,
        chance=outside.chance,
        lease=int(settings.lease * 1000),
        report_base=settings.base_url,
        lease_tokens=lease_tokens,
        ids=Ids(clock, outside.chance),  # its own, as turns are made on a thread of theirs
        clock=clock,
        most_input=settings.max_body_bytes,
    )
    own = own_destinations(settings.host, settings.port, settings.base_url)
    guard = Guard(settings.allowed_networks, own=own)
    network = Transport(
        guard, transport=outside.network, proxy=settings.proxy, max_connections=settings.max_connections
    )
    await network.start()
    parts = Parts(
        settings, clock, ids, store, registry, desk, network, lease_tokens, Waiters(), Telemetry(), tokens, first
    )
    parts.deliveries = Deliveries(TENANT, store, clock, spawn=parts.spawn)
    parts.attempts = Attempts(TENANT, store, registry, parts.deliveries, report_base=settings.base_url)
    keep = parts.deliveries.keep if settings.delivery_retention else None
    push = PushClient(network, clock, ids=ids, heartbeat=settings.heartbeat, keep=keep)
    parts.waiting = Waiting(TENANT, store, clock, parts.waiters)
    parts.writer = Writer(
        store,
        desk,
        clock,
        limit=settings.queue_limit,
        committed=parts.committed,
        handed_over=lambda: parts.outbox.handed_over,
        took=lambda: parts.taken.attempts,
    )
    parts.lease = Lease(desk.me, store, clock, seconds=settings.lease, held=parts.held, handed_over=parts.handed_over)
    desk.may_start = parts.lease.holds
    parts.neighbours = Neighbours(
        desk, parts, put=parts.writer.put, notify=store.notify, spawn=parts.spawn, look=parts.writer.look
    )
    parts.explainer = Explainer(TENANT, store, desk, registry, look=parts.writer.look, ask=parts.neighbours.ask)
    parts.fleet = Fleet(
        TENANT,
        store,
        registry,
        vault,
        guard,
        push,
        clock,
        put=parts.writer.put,
        changed=parts.registry_changed,
    )
    parts.limits = Limits(TENANT, store, registry, desk, clock, announce=parts.fleet.announce)
    parts.workflows = Workflows(TENANT, store, registry, announce=parts.fleet.announce)
    parts.bulk_work = BulkWork(
        TENANT,
        desk.me,
        store,
        clock,
        put=parts.writer.put,
        others=lambda: parts.writer.queued,
        spawn=parts.spawn,
        keep=settings.retention,
    )
    parts.bulk = Bulk(TENANT, store, ids, desk, parts.bulk_work)
    parts.awaiting = Awaiting(TENANT, store, registry, desk)
    parts.submitting = Submitting(
        TENANT, store, registry, desk, clock, ids, parts.waiting, parts.awaiting, put=parts.writer.put
    )
    listening = Listening(registry, ids)
    filters = Filters(TENANT, store, registry, listening, ids, announce=parts.fleet.announce)
    parts.events = Events(TENANT, store, desk, listening, ids, filters, put=parts.writer.put)
    parts.schedules = Schedules(
        TENANT, store, registry, desk, clock, ids, put=parts.writer.put, changed=parts.registry_changed
    )
    parts.webhooks = Webhooks(
        TENANT, store, registry, vault, clock, publish=parts.events.publish, announce=parts.fleet.announce
    )
    parts.rotating = Rotating(TENANT, store, registry, vault, parts.fleet)
    parts.health = Health(parts.fleet, parts.rotating, registry, clock, put=parts.writer.put)
    parts.outbox = Outbox(
        push,
        registry,
        put=parts.writer.put,
        heard_of=parts.health.heard_of,
        began=parts.health.began,
        small=desk.small,
        may_send=parts.lease.holds,
        stale=parts.reload,
        recorded=keep is not None,
    )
    return parts


def _keys(settings: Settings, store: Database) -> list[str]:
    if settings.secret_key:
        return [key.get_secret_value() for key in settings.secret_key]
    if store.file is None:
        raise CannotOpen("this database has no place for a key beside it; set HURLBAT_SECRET_KEY")
    return [key_beside(store.file)]


async def _first_token(settings: Settings, store: Database) -> str | None:
    """Make a token where there is none at all, and return it."""
    if settings.api_token is not None:
        return None
    made = new_token()
    return made if await store.write(keep_first_token(digest_of(made), TENANT)) else None


async def _tokens(settings: Settings, store: Database) -> set[str]:
    """Return the digests of all good tokens."""
    stored = set(await store.read(good_tokens()))
    return stored if settings.api_token is None else stored | {digest_of(settings.api_token.get_secret_value())}

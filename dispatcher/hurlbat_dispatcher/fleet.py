"""The workers: registering and proving them, and what their answers say of their health.

A registration never sends runs to a worker that did not prove itself; a plain one cannot, and is shown as unverified.
What is wrong with a worker is kept as one sentence that says what to fix.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

import structlog

from hurlbat.policy import Manifest, TaskPolicy
from hurlbat.signing import new_secret
from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.declaring import declare
from hurlbat_dispatcher.disputes import Disputes
from hurlbat_dispatcher.domain.outcome import ErrorCode
from hurlbat_dispatcher.domain.workers import SERVING, Mode, Worker, WorkerState
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound
from hurlbat_dispatcher.keyring import Stored, check_secret, new_key, registered, signing, waits_for_its_secret
from hurlbat_dispatcher.push.client import PushClient
from hurlbat_dispatcher.push.guard import Guard, check_headers
from hurlbat_dispatcher.push.proof import ProofFailed
from hurlbat_dispatcher.registry import Registry, to_target
from hurlbat_dispatcher.secrecy import Vault
from hurlbat_dispatcher.standing import Standing
from hurlbat_dispatcher.store import workers as store
from hurlbat_dispatcher.store.database import Clash, Database
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.workers import WorkerRow
from hurlbat_dispatcher.turn import operations
from hurlbat_dispatcher.turn.operations import Operation

log = structlog.get_logger("hurlbat.fleet")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What is said of a worker at its registration. None: as before, or the default."""

    name: str
    url: str
    slots: int | None = None
    mode: Mode | None = None
    tasks: tuple[TaskPolicy, ...] | None = None
    secret: str | None = field(default=None, repr=False)
    labels: Mapping[str, str] | None = None
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    window: int | Literal["auto"] | None = None
    """The size that its window is pinned at; `auto` lets it adapt."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A worker as it is registered now. `secret` is there only when it was made just now: it is shown this once."""

    worker: Worker
    secret: str | None = field(repr=False)
    created: bool


DEFAULT_SLOTS: Final = 100
RESTING: Final = frozenset({WorkerState.PAUSED, WorkerState.DISABLED})
"""States that no proof ends: somebody has to."""
PAUSED: Final = "paused; resume it to send runs again"
GONE: Final = "it answered 410 (gone); resume it when it is back"


class Fleet:
    """All registered workers."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        vault: Vault,
        guard: Guard,
        push: PushClient,
        clock: Clock,
        *,
        put: Callable[[Operation], None],
        changed: Callable[[], None],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._vault = vault
        self._guard = guard
        self._push = push
        self._put = put
        self._changed = changed
        self._disputes = Disputes(tenant, database, registry)
        self.standing = Standing(tenant, database, registry, vault, clock, changed=changed)

    # -- what people ask for -----------------------------------------------------------------------------------------

    async def rekey(self) -> None:
        """Encrypt everything with the newest key, so that older ones can be dropped."""

        def script() -> Script[None]:
            workers, _ = yield from store.all_registered()
            for row in workers:
                if self._renewed(row) != row:
                    current = yield from store.locked_worker(row.tenant, row.name)
                    if current is not None:
                        yield from store.save_worker(self._renewed(current), new=False)

        await self._database.write(script())

    async def load(self) -> None:
        """Read what is registered."""
        await self.standing.load()

    async def register(self, spec: WorkerSpec) -> Registered:
        """Register a worker, or change the one of that name. Raises `Invalid`."""
        destination = self._guard.check_url(spec.url)
        headers = check_headers(spec.headers or {})
        await self._disputes.settle(spec.tasks or (), spec.name, field="tasks")
        if spec.secret is not None:
            check_secret(spec.secret)
        row, made, new = await self._agreed(lambda: self._upsert(spec, destination.url, headers))
        if row.mode == Mode.PROTOCOL and not waits_for_its_secret(self._secrets(row)):
            await self._prove(row)
        await self.announce()
        return Registered(self.get(row.name), made, new)

    async def update(self, name: str, changes: Mapping[str, Any]) -> Worker:
        """Change some of what is said of a worker. Raises `NotFound`, `Invalid`."""
        worker = self.get(name)
        spec = WorkerSpec(name=name, **({"url": worker.url} | dict(changes)))
        return (await self.register(spec)).worker

    async def sync(self, name: str) -> Worker:
        """Prove a worker again and take its manifest; a plain one is taken at its word. Raises `NotFound`.

        This lets a disabled one work again; a paused one stays paused.
        """
        return await self._looked_at(name, wakes=frozenset({WorkerState.DISABLED}))

    async def look_again(self, name: str) -> Worker:
        """Prove a worker again where nobody asked for it: one that rests goes on resting. Raises `NotFound`."""
        return await self._looked_at(name, wakes=frozenset())

    async def pause(self, name: str) -> Worker:
        """Send no more runs to it; what is with it goes on. Raises `NotFound`."""
        await self._change(name, lambda row: row._replace(state=WorkerState.PAUSED, problem=PAUSED))
        await self.announce()
        return self.get(name)

    async def resume(self, name: str) -> Worker:
        """Let a paused, disabled or rejected worker get runs again, once it has proven itself. Raises `NotFound`."""
        return await self._looked_at(name, wakes=RESTING)

    async def remove(self, name: str) -> None:
        """Forget a worker; runs that only it served wait for another. Raises `NotFound`."""
        self.get(name)
        await self._database.write(store.remove_worker(self._tenant, name))
        await self.announce()

    def get(self, name: str) -> Worker:
        """Return a worker. Raises `NotFound`."""
        worker = self._registry.workers.get(name)
        if worker is None:
            raise _unknown(name)
        return worker

    async def announce(self) -> None:
        """Have all servers know what was stored, and return when it is in force on this one."""
        await self.load()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put(operations.Refresh(reply=done))
        self._put(operations.Tick())  # schedules may have changed
        self._changed()
        await done

    # -- inside ------------------------------------------------------------------------------------------------------

    def _upsert(
        self, spec: WorkerSpec, url: str, headers: dict[str, str]
    ) -> Script[tuple[WorkerRow, str | None, bool]]:
        now = yield from database_now()
        old = yield from store.locked_worker(self._tenant, spec.name)
        mode = spec.mode or (Mode(old.mode) if old else Mode.PROTOCOL)
        secrets = self._secrets(old) if old else []
        made = None
        if spec.secret is not None:
            secrets = registered(secrets, spec.secret, now)
        elif not secrets:
            made = new_secret()
            secrets = [new_key(made, made=True, now=now)]
        tasks = (
            [policy.name for policy in spec.tasks] if spec.tasks is not None else json.loads(old.tasks) if old else []
        )
        same = old is not None and old.url == url and old.mode == mode
        if old is not None and (old.state == WorkerState.PAUSED or (same and old.state in SERVING)):
            state, problem = old.state, old.problem
        elif mode is Mode.PLAIN:
            state, problem = WorkerState.UNVERIFIED, unproven()
        else:
            state, problem = WorkerState.PENDING, "give it its secret, then sync it: it has not proven itself yet"
        slots = spec.slots or (old.slots if old else DEFAULT_SLOTS)
        row = WorkerRow(
            tenant=self._tenant,
            name=spec.name,
            url=url,
            mode=mode,
            slots=slots,
            pinned=_pinned(spec.window, slots, old),
            state=state,
            problem=problem,
            labels=json.dumps(dict(spec.labels)) if spec.labels is not None else old.labels if old else "{}",
            headers=self._vault.lock(headers) if spec.headers is not None or old is None else old.headers,
            secrets=self._vault.lock(secrets),
            tasks=json.dumps(tasks),
            declared=int(spec.tasks is not None or bool(old and old.declared)),
            max_batch=old.max_batch if old else 1,
            manifest=old.manifest if old else "",
            streams=old.streams if old else 1,
            created_at=old.created_at if old else now,
            updated_at=now,
            last_seen_at=old.last_seen_at if old else None,
        )
        yield from store.save_worker(row, new=old is None)
        if spec.tasks:
            yield from declare(self._tenant, spec.tasks, now)
        return row, made, old is None

    async def _looked_at(self, name: str, wakes: frozenset[WorkerState]) -> Worker:
        def begin(row: WorkerRow) -> WorkerRow:
            if row.state in wakes or (row.mode == Mode.PLAIN and row.state not in RESTING):
                return _awake(row)
            return row

        await self.standing.store()  # what was learned before a proof must not come after it
        row = await self._change(name, begin)
        if row.mode == Mode.PROTOCOL:
            await self._prove(row)
        await self.announce()
        return self.get(name)

    async def _prove(self, row: WorkerRow) -> None:
        """Prove the worker and store what came of it."""
        target = to_target(row, self._vault, await self._database.read(database_now()))
        try:
            manifest = await self._push.prove(target)
            try:
                await self._disputes.settle(manifest.tasks, row.name)
            except (Invalid, Conflict) as problem:
                raise ProofFailed(ErrorCode.BAD_RESULT, problem.detail) from problem
        except ProofFailed as error:
            failed = error
            await self._change(row.name, lambda now: _failed_proof(now, failed) if self._condemned(now, row) else now)
        else:
            await self._agreed(lambda: self._adopt(row, manifest))

    async def _agreed(self, script: Callable[[], Script[T]]) -> T:
        """Write, and once more where another server has just stored the same worker or task."""
        try:
            return await self._database.write(script())
        except Clash:
            return await self._database.write(script())

    def _adopt(self, row: WorkerRow, manifest: Manifest) -> Script[None]:
        now = yield from database_now()
        current = yield from store.locked_worker(self._tenant, row.name)
        if current is None or not self._proven(current, row, now):
            return
        rests = current.state in RESTING
        adopted = current._replace(
            state=current.state if rests else WorkerState.READY,
            problem=_resting_problem(current) if rests else None,
            tasks=json.dumps([task.name for task in manifest.tasks]),
            max_batch=manifest.max_batch,
            manifest=manifest.version,
            streams=int(manifest.streams),
            updated_at=now,
            last_seen_at=now,
            secrets=self._vault.lock([one | {"made": False} for one in self._secrets(current)]),
        )
        yield from store.save_worker(adopted, new=False)
        yield from declare(self._tenant, manifest.tasks, now)

    def _proven(self, current: WorkerRow, proven: WorkerRow, now: int) -> bool:
        """Tell whether a good proof of what was registered then is one of what is now: one of its keys still signs."""
        by = [one["secret"] for one in self._secrets(proven)]
        return _is(current, proven) and any(one["secret"] in by for one in signing(self._secrets(current), now))

    def _condemned(self, current: WorkerRow, proven: WorkerRow) -> bool:
        """Tell whether a proof that failed says something of now: one without the newest key does not."""
        by = [one["secret"] for one in self._secrets(proven)]
        return _is(current, proven) and self._secrets(current)[0]["secret"] in by

    async def _change(self, name: str, edit: Callable[[WorkerRow], WorkerRow]) -> WorkerRow:
        """Change a worker's row as it is now, held by its lock. Raises `NotFound`."""

        def script() -> Script[WorkerRow | None]:
            now = yield from database_now()
            current = yield from store.locked_worker(self._tenant, name)
            if current is None:
                return None
            edited = edit(current)
            if edited != current:
                edited = edited._replace(updated_at=now)
                yield from store.save_worker(edited, new=False)
            return edited

        row = await self._database.write(script())
        if row is None:
            raise _unknown(name)
        return row

    def _renewed(self, row: WorkerRow) -> WorkerRow:
        return row._replace(secrets=self._vault.renew(row.secrets), headers=self._vault.renew(row.headers))

    def _secrets(self, row: WorkerRow) -> list[Stored]:
        found: list[Stored] = self._vault.unlock(row.secrets)
        return found


def _pinned(asked: int | Literal["auto"] | None, slots: int, old: WorkerRow | None) -> int | None:
    """Return the size that a worker's window is pinned at. Raises `Invalid` for more than its slots.

    A pin from before stays where there are fewer slots now: it counts as far as they go.
    """
    if asked is None:
        return old.pinned if old else None
    if asked == "auto":
        return None
    if asked > slots:
        raise Invalid("window_above_slots", f"window must be at most the worker's slots, {slots}", field="window")
    return asked


def _unknown(name: str) -> NotFound:
    return NotFound("worker_unknown", f"there is no worker {name}")


def _is(current: WorkerRow, proven: WorkerRow) -> bool:
    """Tell whether what was proven is what is registered now."""
    return (current.url, current.mode, current.created_at) == (proven.url, proven.mode, proven.created_at)


def _awake(row: WorkerRow) -> WorkerRow:
    if row.mode == Mode.PLAIN:
        return row._replace(state=WorkerState.UNVERIFIED, problem=unproven())
    return row._replace(state=WorkerState.PENDING, problem="it is being proven")


def _failed_proof(row: WorkerRow, failed: ProofFailed) -> WorkerRow:
    if row.state in RESTING:
        return row._replace(problem=f"{_resting_problem(row)} (its last proof failed: {failed.sentence})")
    if failed.transient:
        proven_before = bool(row.manifest)
        state = WorkerState.UNREACHABLE if proven_before else WorkerState.PENDING
        return row._replace(state=state, problem=f"{failed.sentence}; it is tried again by itself")
    return row._replace(state=WorkerState.REJECTED, problem=failed.sentence)


def _resting_problem(row: WorkerRow) -> str | None:
    return PAUSED if row.state == WorkerState.PAUSED else GONE


def unproven() -> str:
    """Return what is shown of every plain worker."""
    return "a plain worker cannot prove that it checks signatures; make sure that it does"

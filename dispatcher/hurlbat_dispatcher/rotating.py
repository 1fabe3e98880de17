"""Rotates the signing keys of workers: a new key beside the old ones, and the end of those when their time is over.

While keys overlap, every request carries a signature by each, so a worker may learn of the new one when it likes. At
the end it is proven by the new one alone: one that still does not know it is rejected then, and its runs wait.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from hurlbat.signing import algorithm_of, key_id
from hurlbat_dispatcher.domain.workers import SERVING, Mode, WorkerState
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound, Problem
from hurlbat_dispatcher.fleet import RESTING, Fleet, Registered
from hurlbat_dispatcher.keyring import (
    MAX_OVERLAP_SECONDS,
    MAX_REPLACED,
    OVERLAP_SECONDS,
    Stored,
    check_secret,
    made_for,
    rotated,
    settled,
    signing,
    told_of,
    waits_for_its_secret,
)
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.secrecy import Vault
from hurlbat_dispatcher.store import workers as store
from hurlbat_dispatcher.store.database import Clash, Database, DatabaseTrouble
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.workers import WorkerRow
from hurlbat_dispatcher.telling import rfc3339

log = structlog.get_logger("hurlbat.rotating")

MAX_PROOFS: Final = 16
"""Workers that are proven at the same time at the end of their overlaps."""


class Rotating:
    """The signing keys of all workers."""

    def __init__(self, tenant: int, database: Database, registry: Registry, vault: Vault, fleet: Fleet) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._vault = vault
        self._fleet = fleet
        self._settling = False

    async def rotate(
        self,
        name: str,
        *,
        secret: str | None = None,
        algorithm: str | None = None,
        overlap: float = OVERLAP_SECONDS,
    ) -> Registered:
        """Sign by a new key, given or made here, and for so many seconds by the old ones as well.

        A made `v1` secret is in the answer, this once. Rotating to the key that is the newest already ends the old ones
        after so many seconds, if that is sooner. Raises `NotFound`, `Invalid`, and `Conflict` where `MAX_REPLACED` old
        ones still sign.
        """
        self._fleet.get(name)
        if not 0 <= overlap <= MAX_OVERLAP_SECONDS:
            said = f"overlap must be from 0 to {MAX_OVERLAP_SECONDS} seconds (30 days)"
            raise Invalid("member_invalid", said, field="overlap", limit=MAX_OVERLAP_SECONDS)
        if secret is not None:
            check_secret(secret)
        if secret is not None and algorithm is not None and algorithm_of(secret) != algorithm:
            said = f"this is a secret for {algorithm_of(secret)}, not {algorithm}; leave one of the two out"
            raise Invalid("secret_invalid", said, field="algorithm")
        new = made_for(algorithm or "v1") if secret is None else secret
        await self._fleet.standing.store()  # what was learned before must not come after it
        lasts = round(overlap * 1000)
        row = await self._database.write(self._rotate(name, new, made=secret is None, overlap=lasts))
        keys: list[Stored] = self._vault.unlock(row.secrets)
        # with the old key at hand nothing needs to be proven of a worker that serves; without it everything does
        serves = row.state in SERVING and lasts > 0
        log.info("a worker's signing key was rotated", worker=name, key=key_id(new), overlap=overlap)
        await self._fleet.announce()
        if row.mode == Mode.PROTOCOL and not serves and not waits_for_its_secret(keys):
            await self._fleet.look_again(name)
        shown = new if secret is None and algorithm_of(new) == "v1" else None
        return Registered(self._fleet.get(name), shown, created=False)

    def over(self) -> bool:
        """Tell whether an overlap has ended that was not settled yet, as far as this server's clock knows."""
        return not self._settling and self._fleet.standing.overlap_is_over()

    async def settle(self) -> None:
        """Prove the workers whose overlaps are over by what signs now, and forget the secrets that do not."""
        self._settling = True
        try:
            now = await self._database.read(database_now())
            await self._fleet.load()
            due = [name for name, keys in self._registry.secrets.items() if _left(keys, now)]
            room = asyncio.Semaphore(MAX_PROOFS)
            ended = await asyncio.gather(*(self._settle(name, room) for name in due), return_exceptions=True)
            for trouble in ended:
                if trouble is not None:
                    raise trouble
            if due:
                await self._fleet.announce()
        except (DatabaseTrouble, Clash) as trouble:
            log.warning("the end of a rotation waits", detail=str(trouble))
        finally:
            self._settling = False

    async def _settle(self, name: str, room: asyncio.Semaphore) -> None:
        worker = self._registry.workers.get(name)
        told = name in self._registry.secrets and not waits_for_its_secret(self._registry.secrets[name])
        try:
            if worker is not None and worker.mode is Mode.PROTOCOL and told:
                async with room:
                    worker = await self._fleet.look_again(name)
                if worker.state is WorkerState.REJECTED:
                    log.warning("a worker does not know its new key", worker=name, problem=worker.problem)
            await self._database.write(self._edit(name, lambda row, keys, now: (row, settled(keys, now))))
        except Problem:  # it was removed meanwhile
            return

    def _rotate(self, name: str, new: str, *, made: bool, overlap: int) -> Script[WorkerRow]:
        def edit(row: WorkerRow, keys: list[Stored], now: int) -> tuple[WorkerRow, list[Stored]]:
            alive = signing(keys, now)
            old = [one for one in alive if one["secret"] != new]
            if overlap and len(old) > MAX_REPLACED:
                first = min(map(told_of, old[1:]), key=lambda key: key.until or 0)
                raise Conflict(
                    "rotation_under_way",
                    f"{MAX_REPLACED} replaced keys of worker {name} still sign; wait for the end of key {first.id} at"
                    f" {rfc3339(first.until or 0)}, or end them all at once by overlap 0",
                )
            keys = rotated(keys, new, made=made, now=now, overlap=overlap)
            if row.mode == Mode.PROTOCOL and waits_for_its_secret(keys) and WorkerState(row.state) not in RESTING:
                said = f"its secret was replaced; give it the new one (key {key_id(new)}), then sync it"
                row = row._replace(state=WorkerState.PENDING, problem=said)
            return row, keys

        return self._edit(name, edit)

    def _edit(
        self,
        name: str,
        edit: Callable[[WorkerRow, list[Stored], int], tuple[WorkerRow, list[Stored]]],
    ) -> Script[WorkerRow]:
        """Change a worker's keys as they are now, held by its lock. Raises `NotFound`."""
        row = yield from store.locked_worker(self._tenant, name)
        if row is None:
            raise NotFound("worker_unknown", f"there is no worker {name}")
        now = yield from database_now()
        before: list[Stored] = self._vault.unlock(row.secrets)
        edited, keys = edit(row, before, now)
        if keys != before:
            edited = edited._replace(secrets=self._vault.lock(keys), updated_at=now)
            yield from store.save_worker(edited, new=False)
        return edited


def _left(keys: list[Stored], now: int) -> bool:
    """Tell whether a secret is left of a key that has ended."""
    return any(one["secret"] is not None and one["until"] is not None and one["until"] <= now for one in keys)

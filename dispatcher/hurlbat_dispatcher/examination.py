"""Look a live database over without disturbing it: what `hurlbat doctor` shows."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

from hurlbat_dispatcher.checkup import Code, Finding, gathered, violations, warn
from hurlbat_dispatcher.clock import Clock, SystemClock
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.workers import SERVING
from hurlbat_dispatcher.flow_checkup import slots_taken
from hurlbat_dispatcher.lateness import OVERDUE_MS, warnings
from hurlbat_dispatcher.settings import Settings
from hurlbat_dispatcher.store.beside import is_served, read_beside
from hurlbat_dispatcher.store.checkup import Sight, Vessel, look_at_rows, look_at_vessel
from hurlbat_dispatcher.store.database import CannotOpen
from hurlbat_dispatcher.store.kinds import database
from hurlbat_dispatcher.store.statement import Script

MOST: Final = 20_000
"""Runs of a kind that are looked at."""
CLOCK_OFF: Final = 5.0
"""Seconds by which clocks may differ before that is a finding."""
LOOK_SECONDS: Final = 60.0
NAMED: Final = 3
"""Tasks that are named of all that wait."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """A server that has entered the database; times are ms. `alive` is None where nobody can tell from outside."""

    id: str
    started_at: int
    alive: bool | None
    owner: bool


@dataclass(frozen=True, slots=True)
class Examination:
    """What a look at a database gave.

    `clock_ahead` is by how many seconds the database's clock is ahead of this host's. `runs` says how many runs were
    looked at, and `whole` whether that is all of them. `waits` tells in two sentences what waits and why.
    """

    database: str
    schema: str
    clock_ahead: float
    servers: tuple[ServerSeen, ...]
    epoch: int | None
    runs: int
    whole: bool
    running: int
    waits: tuple[str, str]
    findings: tuple[Finding, ...]


class _Reader(Protocol):
    async def __call__(self, script: Callable[[], Script[T]]) -> T: ...


async def examine(settings: Settings, *, most: int = MOST, clock: Clock | None = None) -> Examination:
    """Look a database over. Raises `CannotOpen`, also where the schema is not this version's, and `DatabaseTrouble`.

    Nothing is locked, written or migrated. A SQLite file is read in the calling thread.
    """
    clock = clock or SystemClock()
    store = database(settings.database_url, clock)
    if not store.shared:
        path = store.file
        if path is None:
            raise CannotOpen("a database in memory is seen by its own server alone")

        async def read_file(script: Callable[[], Script[T]]) -> T:
            return read_beside(path, script, clock, seconds=LOOK_SECONDS)

        return await _examine(read_file, path, clock, most, alone=True, served=is_served(path))
    where = urlsplit(settings.database_url)
    await store.open()
    try:

        async def read_shared(script: Callable[[], Script[T]]) -> T:
            return await store.read(script())

        return await _examine(read_shared, f"{where.hostname or ''}{where.path}", clock, most, alone=False)
    finally:
        await store.close()


async def _examine(
    read: _Reader, name: str, clock: Clock, most: int, *, alone: bool, served: bool | None = None
) -> Examination:
    vessel = await read(look_at_vessel)
    _refuse_other_versions(vessel)
    before = clock.now_ms()
    vessel = await read(look_at_vessel)
    after = clock.now_ms()
    sight = await read(lambda: look_at_rows(most=most, overdue=OVERDUE_MS))
    servers = _servers(sight, alone=alone, served=served)
    alive = any(server.alive for server in servers)
    findings = [
        *violations(sight),
        *warnings(sight, alive=alive),
        *_of_vessel(vessel, before, after),
    ]
    return Examination(
        database=name,
        schema=vessel.version or "",
        clock_ahead=(vessel.now - (before + after) / 2) / 1000,
        servers=servers,
        epoch=sight.shards[0].epoch if sight.shards else None,
        runs=len(sight.runs),
        whole=len(sight.runs) < most,
        running=sum(run.state == RunState.RUNNING for run in sight.runs),
        waits=(_for_room(sight), _for_time(sight)),
        findings=tuple(gathered(findings)),
    )


def _refuse_other_versions(vessel: Vessel) -> None:
    if vessel.version is None:
        raise CannotOpen("this is no database of Hurlbat's: it has no schema; start a server on it to make one")
    if vessel.newer:
        raise CannotOpen(
            f"the database's schema (version {vessel.version}) is newer than this version of Hurlbat; "
            "use the doctor of the version that made it"
        )
    if vessel.older:
        raise CannotOpen(
            f"the database's schema (version {vessel.version}) is older than this version of Hurlbat; "
            "run `hurlbat migrate` first, or use the doctor of the version that serves it"
        )


def _servers(sight: Sight, *, alone: bool, served: bool | None) -> tuple[ServerSeen, ...]:
    """Return the servers. One that is alone with its file renews no lease: there the file's lock tells (`served`)."""
    owners = {shard.owner for shard in sight.shards}
    return tuple(
        ServerSeen(
            server.id,
            server.started_at,
            alive=served if alone else server.lease_until > sight.now,
            owner=server.id in owners,
        )
        for server in sight.servers
    )


def _of_vessel(vessel: Vessel, before: int, after: int) -> list[Finding]:
    found = [
        warn(
            Code.NOT_DURABLE,
            None,
            f"the database has {name} off: after a power cut runs can be lost that were acknowledged; turn it on",
        )
        for name in vessel.loose
    ]
    ahead = max(vessel.now - after, 0) - max(before - vessel.now, 0)
    if abs(ahead) > CLOCK_OFF * 1000:
        relation = "ahead of" if ahead > 0 else "behind"
        found.append(
            warn(
                Code.CLOCK_OFF,
                None,
                f"the database's clock is {abs(ahead) / 1000:.0f} s {relation} this host's; runs go by the database's, "
                "and signatures by the clocks of servers and workers, so set the wrong one right",
            )
        )
    return found


def _for_room(sight: Sight) -> str:
    total = sum(queue.runs for queue in sight.queues)
    if not total:
        return "No run waits for room."
    loads = slots_taken(sight.flow)
    largest = sorted(sight.queues, key=lambda queue: (-queue.runs, queue.lane))
    parts = []
    for queue in largest[:NAMED]:
        task = sight.lanes.get(queue.lane, f"in lane {queue.lane}")
        states = []
        for worker in sight.workers:
            if task in json.loads(worker.tasks):
                used = loads[worker.name]
                full = f"{used} of {worker.slots} slots used"
                states.append(f"{worker.name} is {full if worker.state in SERVING else worker.state}")
        parts.append(f"{queue.runs} of {task} ({', '.join(states) or 'no worker serves it'})")
    others = f", and those of {len(largest) - NAMED} other tasks" if len(largest) > NAMED else ""
    return f"{_count(total, 'run waits', 'runs wait')} for room: {', '.join(parts)}{others}."


def _for_time(sight: Sight) -> str:
    if sight.next_due is None:
        return "No run waits for its time."
    away = (sight.next_due - sight.now) / 1000
    when = f"is due in {away:.0f} s" if away > 0 else f"was due {-away:.0f} s ago"
    return f"{_count(sight.delayed, 'run waits', 'runs wait')} for a time; the first {when}."


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

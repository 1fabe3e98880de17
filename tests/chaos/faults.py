"""What is done to the processes and to the connections between them: a menu, a seeded schedule, and the blows."""

import asyncio
import math
import random
import signal
import time
from collections.abc import Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.chaos.history import Trouble
from tests.chaos.links import Link
from tests.chaos.stage import LEASE, Stage


class Kind(StrEnum):
    """What can happen."""

    SERVER_KILLED = "server killed"
    SERVER_PAUSED = "server paused"
    SERVERS_ROLLED = "servers rolled"
    DATABASE_KILLED = "database killed"
    DATABASE_CUT = "database cut"
    DATABASE_SILENT = "database silent"
    DATABASE_LOST = "database's packets dropped"
    WORKER_KILLED = "worker killed"
    WORKER_VANISHED = "worker vanished"
    WORKER_PAUSED = "worker paused"
    WORKER_CUT = "worker cut"
    WORKER_SILENT = "worker silent"
    WORKER_LOST = "worker's packets dropped"


SECONDS: Final[Mapping[Kind, tuple[float, float]]] = {
    Kind.SERVER_KILLED: (0.0, 2 * LEASE),
    Kind.SERVER_PAUSED: (1.2 * LEASE, 2.5 * LEASE),
    Kind.SERVERS_ROLLED: (0.0, 0.0),
    Kind.DATABASE_KILLED: (0.2, 4.0),
    Kind.DATABASE_CUT: (0.2, 2 * LEASE),
    Kind.DATABASE_SILENT: (1.0, 3 * LEASE),
    Kind.DATABASE_LOST: (1.0, 3 * LEASE),
    Kind.WORKER_KILLED: (0.1, 4.0),
    Kind.WORKER_VANISHED: (15.0, 40.0),
    Kind.WORKER_PAUSED: (1.0, 2 * LEASE),
    Kind.WORKER_CUT: (0.1, 5.0),
    Kind.WORKER_SILENT: (1.0, 2 * LEASE),
    Kind.WORKER_LOST: (1.0, 2 * LEASE),
}
"""How long each lasts, at least and at most."""
AFTERMATH: Final = 20.0
"""Seconds after a fault, of those in which a server is at work, until the failures that it explains have come to light.

Those in which none is do not count, and there may be many: a busy machine takes long to start one.
"""
PULSE: Final = 1.0
"""Seconds after which a server that was heard of can no longer be called at work."""
BREATH: Final = (0.5, 4.0)
"""Seconds between two faults of a side, in which the work can go on."""
_SHARED: Final = frozenset({Kind.DATABASE_KILLED, Kind.DATABASE_CUT, Kind.DATABASE_SILENT, Kind.DATABASE_LOST})
_PACKETS: Final = frozenset({Kind.DATABASE_LOST, Kind.WORKER_LOST})
_WORKERS: Final = frozenset(kind for kind in Kind if kind.value.startswith("worker"))
_LOST: Final = ("lease_expired", "heartbeat_lost", "unknown_outcome")
_BROKEN: Final = ("connection_reset", "protocol_error")


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong: what, which of them, and for how long."""

    kind: Kind
    place: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was, and from when to when."""

    fault: Fault
    began: float
    ended: float


Faults = Iterator[tuple[float, Fault]]
"""Faults in their order, each with the seconds before it."""


def explained(struck: Iterable[Struck], alive: Sequence[float]) -> list[Trouble]:
    """Tell which failures the faults explain: a deploy none, and a broken connection only what breaks those.

    `alive` are the moments, in their order, at which a server did something. Where none does, nothing comes to light.
    """
    return [
        Trouble(
            what=f"{one.fault}",
            began=one.began,
            until=_aftermath(one.ended, alive),
            codes=(*_LOST, *_BROKEN) if one.fault.kind in _WORKERS else _LOST,
        )
        for one in struck
        if one.fault.kind is not Kind.SERVERS_ROLLED
    ]


def _aftermath(ended: float, alive: Sequence[float]) -> float:
    """Return when servers had been at work for long enough since then."""
    last, worked = ended, 0.0
    for moment in alive:
        if moment > last:
            worked += min(moment - last, PULSE)
            last = moment
        if worked >= AFTERMATH:
            return moment
    return math.inf


def menus(stage: Stage) -> tuple[list[Kind], list[Kind]]:
    """Return what can happen here, on the side of the servers and on that of the workers; these happen side by side."""
    possible = [
        kind
        for kind in Kind
        if (kind not in _SHARED or stage.cluster is not None) and (kind not in _PACKETS or stage.packets is not None)
    ]
    return [kind for kind in possible if kind not in _WORKERS], [kind for kind in possible if kind in _WORKERS]


def schedule(seed: str, menu: Sequence[Kind], places: int) -> Faults:
    """Return faults without end, each with the breath before it. Every kind comes once before any comes again."""
    chance = random.Random(seed)
    while True:
        for kind in chance.sample(menu, len(menu)):
            yield chance.uniform(*BREATH), Fault(kind, chance.randrange(places), chance.uniform(*SECONDS[kind]))


async def trouble(stage: Stage, seed: int, seconds: float) -> list[Struck]:
    """Make trouble on both sides for so long; return what was done."""
    over = time.monotonic() + seconds
    servers, workers = menus(stage)
    return await _beside(
        _side(stage, schedule(f"{seed}:servers", servers, len(stage.servers)), over),
        _side(stage, schedule(f"{seed}:workers", workers, len(stage.workers)), over),
    )


async def each_once(stage: Stage, seed: int, but: Collection[Kind] = ()) -> list[Struck]:
    """Let every kind strike once, as briefly as it can be, on both sides; return what was done.

    The next strikes when all servers are ready again, however long that takes.
    """
    servers, workers = ([kind for kind in menu if kind not in but] for menu in menus(stage))

    async def one_by_one(kinds: Sequence[Kind], places: int) -> list[Struck]:
        chance, done = random.Random(f"{seed}:{kinds}"), []
        for kind in chance.sample(kinds, len(kinds)):
            await asyncio.sleep(BREATH[0])
            done.append(await strike(stage, Fault(kind, chance.randrange(places), SECONDS[kind][0])))
            if kind not in _WORKERS:
                for place in range(len(stage.servers)):
                    await stage.ready(place)
        return done

    return await _beside(one_by_one(servers, len(stage.servers)), one_by_one(workers, len(stage.workers)))


async def _beside(*sides: Coroutine[None, None, list[Struck]]) -> list[Struck]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(side) for side in sides]
    return sorted((struck for task in tasks for struck in task.result()), key=lambda one: one.began)


async def _side(stage: Stage, faults: Faults, over: float) -> list[Struck]:
    done: list[Struck] = []
    for breath, fault in faults:
        await asyncio.sleep(breath)
        left = over - time.monotonic()
        if left <= 0:
            break
        done.append(await strike(stage, Fault(fault.kind, fault.place, min(fault.seconds, left))))
    return done


async def strike(stage: Stage, fault: Fault) -> Struck:
    """Let it happen, and end it."""
    began = time.time()
    await _strike(stage, fault)
    return Struck(fault, began, time.time())


async def _strike(stage: Stage, fault: Fault) -> None:
    place, seconds = fault.place, fault.seconds
    match fault.kind:
        case Kind.SERVER_KILLED:
            await stage.end_server(place)
            if len(stage.servers) > 1:  # the only one is started again at once, as any supervisor would
                await asyncio.sleep(seconds)
            await stage.start_server(place)
        case Kind.SERVER_PAUSED:
            paused = stage.servers[place]
            paused.signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            paused.signal(signal.SIGCONT)
        case Kind.SERVERS_ROLLED:
            await stage.roll()
        case Kind.DATABASE_KILLED:
            await stage.kill_database()
            await asyncio.sleep(seconds)
            await stage.start_database()
        case Kind.WORKER_KILLED | Kind.WORKER_VANISHED:
            await stage.kill_worker(place)
            await asyncio.sleep(seconds)
            await stage.start_worker(place)
        case Kind.WORKER_PAUSED:
            stage.workers[place].signal(signal.SIGSTOP)
            await asyncio.sleep(seconds)
            stage.workers[place].signal(signal.SIGCONT)
        case Kind.DATABASE_CUT | Kind.WORKER_CUT:
            link = _link(stage, fault)
            link.cut()
            await asyncio.sleep(seconds)
            await link.mend()
        case Kind.DATABASE_SILENT | Kind.WORKER_SILENT:
            link = _link(stage, fault)
            link.silence()
            await asyncio.sleep(seconds)
            await link.mend()
        case Kind.DATABASE_LOST | Kind.WORKER_LOST:
            assert stage.packets is not None
            link = _link(stage, fault)
            stage.packets.drop(link.port)
            await asyncio.sleep(seconds)
            stage.packets.mend(link.port)


def _link(stage: Stage, fault: Fault) -> Link:
    links = stage.worker_links if fault.kind in _WORKERS else stage.database_links
    return links[fault.place]

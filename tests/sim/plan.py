"""What a seed decides before a history begins: who takes part, what they are like, and what is on the menu of mishaps.

Every seed switches off a random part of the menu (swarm testing, Groce et al., ISSTA 2012): a history in which
everything goes wrong all the time never gets as far as the strange states that one kind of mishap alone leads to.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, TypeVar

from hurlbat_dispatcher.simulation.faults import Fault, Faults
from tests.sim.composition_plan import NO_COMPOSITION, CompositionPlan, composition_of
from tests.sim.flow_plan import NO_FLOW, FlowPlan, flow_of
from tests.sim.ways_plan import NO_WAYS, WaysPlan, ways_of

T = TypeVar("T")


class Mood(StrEnum):
    """How a worker answers a delivery."""

    STREAM = "stream"
    WHOLE = "whole"
    ACCEPT = "accept"
    BREAK_EARLY = "break_early"
    BREAK_LATE = "break_late"
    SILENT = "silent"
    BUSY = "busy"
    OVERLOADED = "overloaded"
    BROKEN = "broken"
    GARBAGE = "garbage"
    MIXED_UP = "mixed_up"
    FORGETS = "forgets"
    REFUSES = "refuses"
    GONE = "gone"


class Mishap(StrEnum):
    """What befalls a server, a worker or a host, apart from what the network and the database do by themselves."""

    KILL = "kill"
    KILL_SOON = "kill_soon"
    KILL_ALL = "kill_all"
    STALL = "stall"
    BLINK = "blink"
    STOP = "stop"
    CLOCK = "clock"
    WORKER_DIES = "worker_dies"
    WORKER_AWAY = "worker_away"
    WORKER_PAUSED = "worker_paused"


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task: its policy in JSON, and how long (seconds) its handler takes on average."""

    policy: dict[str, Any]
    seconds: float

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.policy["name"])

    @property
    def max_attempts(self) -> int:
        """How many charged starts a run of it has."""
        return int(self.policy.get("retries", 0)) + 1


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """A worker: `plain` ones speak plain HTTP. `stops`: how often it stops what is cancelled."""

    name: str
    plain: bool
    slots: int
    max_batch: int
    tasks: tuple[str, ...]
    stops: float


@dataclass(frozen=True, slots=True)
class Plan:
    """One history. Durations are in seconds of virtual time, `moods` and `mishaps` have their weights."""

    seed: int
    servers: int
    heartbeat: float
    lease: float
    tasks: tuple[TaskPlan, ...]
    workers: tuple[WorkerPlan, ...]
    runs: int
    trouble: float
    """How long things go wrong."""
    pause: float
    """What lies between two doings of the client, on average."""
    moods: tuple[tuple[Mood, float], ...]
    failing: float
    """The part of executions that fail by themselves."""
    mishaps: tuple[tuple[Mishap, float], ...]
    every: float
    """What lies between two mishaps, on average."""
    doings: tuple[tuple[str, float], ...]
    faults: Faults
    """What the network, the database and the hosts do by themselves."""
    skews: tuple[float, ...]
    """By how much (seconds) the clocks of the servers' hosts are off."""
    horizon: int
    """How many waiting runs of a task a server keeps in memory."""
    calms_down: bool
    """Whether trouble ends and everything must; otherwise it goes on to the end, and all servers are killed then."""
    flow: FlowPlan
    ways: WaysPlan
    composition: CompositionPlan

    @property
    def usual(self) -> tuple[TaskPlan, ...]:
        """The tasks that any client submits to: those that are not there for the ways or for composition alone."""
        own = {*(task["name"] for task in self.ways.tasks), *self.composition.names}
        return tuple(task for task in self.tasks if task.name not in own)

    @property
    def garbles(self) -> bool:
        """Whether the network may change an answer so that nobody can know."""
        return self.faults.garbage > 0 or self.faults.ended_early > 0

    def worker(self, name: str | None) -> WorkerPlan:
        """Return the worker of that name."""
        return next(worker for worker in self.workers if worker.name == name)

    @property
    def shared(self) -> bool:
        """Whether several servers share one database."""
        return self.servers > 1

    def fits(self, task: str) -> list[str]:
        """Return the workers that a task can do with."""
        wanted = self.task(task).policy.get("labels", {})
        needed = {key: one["value"] for key, one in wanted.items() if one["required"]}
        served = [worker.name for worker in self.workers if task in worker.tasks]
        return [name for name in served if needed.items() <= self.flow.labels.get(name, {}).items()]

    def task(self, name: str) -> TaskPlan:
        """Return the task of that name."""
        return next(task for task in self.tasks if task.name == name)


MODES: Final = ("safety", "liveness", "both")
"""Safety: things go wrong to the very end. Liveness: trouble ends, and everything must."""
_BACKOFFS: Final[tuple[dict[str, Any], ...]] = (
    {"strategy": "fixed", "initial": 0.5, "jitter": False},
    {"strategy": "fixed", "initial": 4.0, "jitter": True},
    {"strategy": "exponential", "initial": 1.0, "factor": 2.0, "max": 8.0, "jitter": True},
    {"strategy": "list", "delays": [0.2, 3.0, 6.0], "jitter": False},
)
_MOODS: Final = {
    Mood.WHOLE: 2.0,
    Mood.ACCEPT: 3.0,
    Mood.BREAK_EARLY: 1.0,
    Mood.BREAK_LATE: 2.0,
    Mood.SILENT: 1.0,
    Mood.BUSY: 1.0,
    Mood.OVERLOADED: 1.0,
    Mood.BROKEN: 1.0,
    Mood.GARBAGE: 0.7,
    Mood.MIXED_UP: 0.7,
    Mood.FORGETS: 1.0,
    Mood.REFUSES: 0.2,
    Mood.GONE: 0.2,
}
_MISHAPS: Final = {
    Mishap.KILL: 1.0,
    Mishap.KILL_SOON: 4.0,
    Mishap.KILL_ALL: 0.5,
    Mishap.STALL: 3.0,
    Mishap.BLINK: 2.0,
    Mishap.STOP: 1.5,
    Mishap.CLOCK: 1.5,
    Mishap.WORKER_DIES: 1.5,
    Mishap.WORKER_AWAY: 1.0,
    Mishap.WORKER_PAUSED: 1.0,
}
_DOINGS: Final = {
    "submit": 8.0,
    "submit_keyed": 4.0,
    "submit_many": 2.0,
    "submit_later": 2.0,
    "cancel": 4.0,
    "replay": 2.0,
    "look": 1.0,
}
_REQUESTS: Final = (
    *(Fault.REFUSED, Fault.UNCONNECTED, Fault.BLACK_HOLE, Fault.ANSWER_LOST, Fault.LATE, Fault.DUPLICATED),
    *(Fault.REORDERED, Fault.SLOW, Fault.CUT, Fault.ENDED_EARLY, Fault.WRONG_STATUS, Fault.GARBAGE),
)
_MESSAGES: Final = (Fault.MESSAGE_LOST, Fault.MESSAGE_LATE)
_MOST: Final = 0.3
"""How often a request or a message meets one kind of fault, at most."""
_SKEWS: Final = {False: (0.0, 40.0, -40.0), True: (0.0, 0.0, 40.0, -40.0, 3_600.0, -3_600.0)}
"""Seconds by which a host's clock is off: alone, where it is the database's, too, and among others."""
_KEPT: Final = 0.6
"""How likely each item of a menu is on it."""


def plan_of(
    seed: int, mode: str = "both", *, flow_control: bool = True, ways: bool = True, composition: bool = True
) -> Plan:
    """Return what this seed decides. `mode` says whether trouble ends; with `both` the seed says that, too.

    Without `flow_control` it is the same but for that, and so it is without `ways` and without `composition`.
    """
    chance = random.Random(f"plan {seed}")
    servers = chance.choice((1, 1, 2, 2, 3, 4))
    heartbeat, lease = chance.choice(((1.0, 3.0), (1.0, 3.0), (2.0, 6.0), (5.0, 15.0)))
    tasks = tuple(_task(chance, name) for name in ("once", "twice", "often"))
    workers = tuple(_worker(chance, f"w{number}", tasks) for number in range(chance.choice((1, 2, 2, 3))))
    covered = {name for worker in workers for name in worker.tasks}
    tasks = tuple(task for task in tasks if task.name in covered)
    serving = {task.name: [worker.name for worker in workers if task.name in worker.tasks] for task in tasks}
    flow = flow_of(seed, {worker.name: worker.slots for worker in workers}, serving)
    flow = flow if flow_control else NO_FLOW
    way = ways_of(seed, [task.name for task in tasks]) if ways else NO_WAYS
    tasks = tuple(
        TaskPlan({**task.policy, **flow.policies.get(task.name, {}), **way.policies.get(task.name, {})}, task.seconds)
        for task in tasks
    )
    composed = composition_of(seed, [task.name for task in tasks]) if composition else NO_COMPOSITION
    own = tuple(TaskPlan(dict(policy), 0.2) for policy in way.tasks)
    own += tuple(TaskPlan(dict(policy), seconds) for policy, seconds in composed.tasks)
    own += tuple(TaskPlan(dict(policy), 0.0) for policy in composed.workflows)
    workers = tuple(replace(worker, tasks=(*worker.tasks, *(task.name for task in own))) for worker in workers)
    tasks = (*tasks, *own)
    return Plan(
        seed=seed,
        servers=servers,
        heartbeat=heartbeat,
        lease=lease,
        tasks=tasks,
        workers=workers,
        runs=chance.randint(10, 45),
        trouble=chance.uniform(25.0, 90.0),
        pause=chance.choice((0.3, 1.0, 2.0)),
        moods=((Mood.STREAM, chance.choice((3.0, 10.0))), *_some(chance, _MOODS)),
        failing=chance.choice((0.0, 0.1, 0.4)),
        mishaps=_some(chance, _MISHAPS),
        every=chance.choice((3.0, 6.0, 12.0)),
        doings=(("submit", 4.0), *_some(chance, _DOINGS)),
        faults=_faults(chance, seed),
        skews=tuple(chance.choice(_SKEWS[servers > 1]) for _ in range(servers)),
        horizon=chance.choice((256, 256, 2, 4)),
        calms_down=chance.random() < 0.8 if mode == "both" else mode == "liveness",
        flow=flow,
        ways=way,
        composition=composed,
    )


def _faults(chance: random.Random, seed: int) -> Faults:
    """Return the machine's own mix, fitted to short histories: what strikes at every I/O is rarer, the rest is not."""
    mixed = Faults.from_seed(seed)
    strength = chance.choice((1.0, 2.0, 5.0))
    scaled = {fault.value: min(_MOST, getattr(mixed, fault) * strength) for fault in (*_REQUESTS, *_MESSAGES)}
    if chance.random() < 0.1:
        return Faults.none()
    return replace(mixed, crash=mixed.crash / 8, stall=mixed.stall / 8, **scaled)


def chosen(chance: random.Random, menu: Sequence[tuple[T, float]]) -> T:
    """Draw one item of a menu by its weight."""
    return chance.choices([item for item, _ in menu], [weight for _, weight in menu])[0]


def _task(chance: random.Random, name: str) -> TaskPlan:
    policy = {
        "name": name,
        "retries": {"once": 0, "twice": 1, "often": 4}[name],
        "backoff": chance.choice(_BACKOFFS),
        "execution_timeout": chance.choice((6.0, 20.0, 60.0)),
        "schedule_timeout": chance.choice((None, None, None, 40.0)),
        "priority": chance.choice((1, 2, 3)),
    }
    return TaskPlan(policy, chance.choice((0.05, 0.5, 3.0)))


def _worker(chance: random.Random, name: str, tasks: Sequence[TaskPlan]) -> WorkerPlan:
    names = [task.name for task in tasks]
    served = tuple(names) if chance.random() < 0.7 else tuple(sorted(chance.sample(names, 2)))
    return WorkerPlan(
        name=name,
        plain=chance.random() < 0.3,
        slots=chance.choice((1, 2, 3, 8)),
        max_batch=chance.choice((1, 4, 16)),
        tasks=served,
        stops=chance.choice((0.0, 0.7, 1.0)),
    )


def _some(chance: random.Random, menu: dict[Any, float]) -> tuple[tuple[Any, float], ...]:
    return tuple((item, weight) for item, weight in menu.items() if chance.random() < _KEPT)

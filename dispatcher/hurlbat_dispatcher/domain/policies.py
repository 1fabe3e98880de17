"""What a task's policy says of flow control, and what of it one run draws on.

A task has *rules*: concurrency rules and rate limits with expressions. At its submit a run's expressions are evaluated
once, and what comes of them is the run's `Draws`: the values of its keys, kept with it. The numbers (`max_runs`, the
limit of a static key) are those in force when it starts.
"""

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, NamedTuple

MAX_KEY_BYTES: Final = 256
"""Of an evaluated key, in UTF-8."""
MAX_RULES: Final = 8
"""Concurrency rules of one task, and as many rate limits."""
MAX_UNITS: Final = 1_000_000
MAX_LIMIT: Final = 1_000_000_000
MAX_DURATION_MS: Final = 366 * 86_400_000
MIN_DURATION_MS: Final = 10


@dataclass(frozen=True, slots=True)
class StaticLimit:
    """At most `most` units of a key in any `duration` (ms)."""

    key: str
    most: int
    duration: int
    updated_at: int = 0


class Strategy(StrEnum):
    """What happens to runs that find their concurrency group full."""

    GROUP_ROUND_ROBIN = "GROUP_ROUND_ROBIN"
    CANCEL_IN_PROGRESS = "CANCEL_IN_PROGRESS"
    CANCEL_NEWEST = "CANCEL_NEWEST"
    QUEUE_NEWEST_ONLY = "QUEUE_NEWEST_ONLY"
    QUEUE_OLDEST_ONLY = "QUEUE_OLDEST_ONLY"


@dataclass(frozen=True, slots=True)
class ConcurrencyRule:
    """At most `max_runs` runs at a time for each value of `key`. Rules of the same `name` share their groups."""

    key: str
    max_runs: int
    strategy: Strategy = Strategy.GROUP_ROUND_ROBIN
    name: str | None = None

    def id_for(self, task: str) -> str:
        """Return what identifies the rule among all: its own name, or its task's and its key."""
        return f"name:{self.name}" if self.name is not None else f"task:{task}:{self.key}"


@dataclass(frozen=True, slots=True)
class RateRule:
    """Units that a run takes of a rate limit.

    Of a static one by its `key`, whose limit is put beforehand; or of a dynamic one, whose key, units, limit and
    duration (seconds) are numbers or expressions in text. A `prefix` gives dynamic keys a name space of their own.
    """

    key: str | None = None
    dynamic_key: str | None = None
    units: int | str = 1
    limit: int | str | None = None
    duration: float | str | None = None
    prefix: str = ""


def throttle_prefix(task: str) -> str:
    """Return what stands before the keys of a task's throttle, so that they are its own."""
    return f"{task}:throttle:"


@dataclass(frozen=True, slots=True)
class Label:
    """What a task wants of the label of its worker: required, or preferred by its weight."""

    key: str
    value: str
    required: bool = True
    weight: int = 1


class Sticky(StrEnum):
    """Whether a run goes to the worker of its parent: if there is room, or only there."""

    SOFT = "soft"
    HARD = "hard"


@dataclass(frozen=True, slots=True)
class FlowPolicy:
    """The part of a task's policy that says what its runs draw on."""

    concurrency: tuple[ConcurrencyRule, ...] = ()
    rate_limits: tuple[RateRule, ...] = ()
    slot_cost: int = 1
    labels: tuple[Label, ...] = ()
    sticky: Sticky | None = None

    @property
    def is_plain(self) -> bool:
        """Tell whether all runs of the task draw on the same: on slots."""
        return not self.concurrency and not self.rate_limits and self.sticky is None


NO_FLOW: Final = FlowPolicy()


class GroupDraw(NamedTuple):
    """A place in a concurrency group: the rule's id and the key's value."""

    rule: str
    value: str


class RateDraw(NamedTuple):
    """Units of a rate limit. `limit` and `duration` (ms) are those of a dynamic one; 0 for a static one."""

    key: str
    units: int
    limit: int = 0
    duration: int = 0

    @property
    def is_static(self) -> bool:
        """Tell whether the limit is one that was put beforehand."""
        return self.duration == 0

    @property
    def name(self) -> str:
        """Return what identifies the key among static and dynamic ones: `static:…` or `dynamic:…`."""
        return f"{'static' if self.is_static else 'dynamic'}:{self.key}"


class Draws(NamedTuple):
    """All that a run draws on besides its worker's slots, of which it takes `cost`. Runs that draw alike share a lane.

    `worker` is the one that a sticky run wants, and `only` tells whether it takes no other.
    """

    groups: tuple[GroupDraw, ...] = ()
    rates: tuple[RateDraw, ...] = ()
    cost: int = 1
    worker: str | None = None
    only: bool = False

    def as_json(self) -> str:
        """Return the canonical text, which is stored."""
        said: dict[str, Any] = {}
        if self.groups:
            said["groups"] = self.groups
        if self.rates:
            said["rates"] = self.rates
        if self.cost != 1:
            said["cost"] = self.cost
        if self.worker is not None:
            said["worker"] = [self.worker, self.only]
        return json.dumps(said, separators=(",", ":"), ensure_ascii=False)


PLAIN: Final = Draws()


@lru_cache(maxsize=16_384)
def name_lane(draws: Draws) -> tuple[str, str]:
    """Return the canonical text of what a lane's runs draw on, and its digest, by which the lane is found."""
    text = draws.as_json()
    return text, hashlib.sha256(text.encode()).hexdigest()[:40]


@lru_cache(maxsize=16_384)
def read_draws(text: str) -> Draws:
    """Read what `Draws.as_json` wrote."""
    said = json.loads(text)
    worker, only = said.get("worker", (None, False))
    return Draws(
        tuple(GroupDraw(*one) for one in said.get("groups", ())),
        tuple(RateDraw(*one) for one in said.get("rates", ())),
        said.get("cost", 1),
        worker,
        only,
    )

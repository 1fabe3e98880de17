"""What may burden a server while the bench measures runs that it does not concern.

Each scenario is a task with rules, and runs of it that wait for as long as the bench lasts.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

DAY: Final = 86_400
KEYS_PER_START: Final = 100
"""Keys of `keys` for each run that may be running at a time, over all keys; these hang."""
EACH_OF_KEYS: Final = 10
"""Waiting runs of `keys` for each key, on average."""
EACH_OF_LIMITS: Final = 100
"""Waiting runs of `rate-limits` for each key."""
_FOR_EVER: Final = {"execution_timeout": 30 * DAY}


class Name(StrEnum):
    """The scenarios."""

    EMPTY = "empty"
    BACKLOG = "backlog"
    KEYS = "keys"
    TIMERS = "timers"
    RATE_LIMITS = "rate-limits"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much waits: runs of `backlog` and `timers`, keys of `keys` and `rate-limits`."""

    backlog: int = 1_000_000
    keys: int = 10_000
    timers: int = 100_000
    rate_limits: int = 1_000

    def scaled(self, by: float) -> "Sizes":
        """Return the sizes times a factor, at least 1 each."""
        sizes = (self.backlog, self.keys, self.timers, self.rate_limits)
        return Sizes(*(max(1, round(size * by)) for size in sizes))


@dataclass(frozen=True, slots=True)
class Scenario:
    """The policy of the held task, its runs (`keys` has the key of each), and how many of them start all the same."""

    name: Name
    policy: Mapping[str, Any] = field(default_factory=dict)
    keys: Sequence[int] = ()
    starts: int = 0
    hang: bool = False
    delay: int | None = None

    @property
    def waiting(self) -> int:
        """How many runs wait when all is loaded."""
        return len(self.keys) - self.starts

    def submissions(self, task: str) -> Iterator[bytes]:
        """Yield the runs to submit, each as JSON."""
        more = f',"delay":{self.delay}' if self.delay else ""
        hang = ',"hang":true' if self.hang else ""
        for key in self.keys:
            yield f'{{"task":"{task}","input":{{"key":"customer-{key}"{hang}}}{more}}}'.encode()


def scenario(name: Name, sizes: Sizes) -> Scenario:
    """Return a scenario in the given size."""
    return _MAKERS[name](sizes)


def zipf(keys: int, runs: int) -> list[int]:
    """Return a key for each run: the n-th key has 1/n as many as the first, but at least one, and all are mingled.

    The same numbers make the same list, of about so many runs.
    """
    harmonic = sum(1 / rank for rank in range(1, keys + 1))
    ordered = [key for key in range(keys) for _ in range(max(1, round(runs / harmonic / (key + 1))))]
    stride = _coprime(len(ordered))
    return [ordered[place * stride % len(ordered)] for place in range(len(ordered))]


def _coprime(size: int) -> int:
    """Return a stride that visits every place of a ring, far from the last one each time."""
    stride = max(1, round(size * 0.618034))
    while math.gcd(stride, size) != 1:
        stride += 1
    return stride


def _empty(_: Sizes) -> Scenario:
    return Scenario(Name.EMPTY)


def _backlog(sizes: Sizes) -> Scenario:
    policy = {"concurrency": [{"key": "'all'", "max_runs": 1}], **_FOR_EVER}
    return Scenario(Name.BACKLOG, policy, range(sizes.backlog + 1), starts=1, hang=True)


def _keys(sizes: Sizes) -> Scenario:
    most = max(1, sizes.keys // KEYS_PER_START)
    rules = [{"key": "input.key", "max_runs": 1}, {"key": "'all'", "max_runs": most}]
    policy = {"concurrency": rules, **_FOR_EVER}
    return Scenario(Name.KEYS, policy, zipf(sizes.keys, sizes.keys * EACH_OF_KEYS), starts=most, hang=True)


def _timers(sizes: Sizes) -> Scenario:
    return Scenario(Name.TIMERS, {}, range(sizes.timers), delay=DAY)


def _rate_limits(sizes: Sizes) -> Scenario:
    policy = {"rate_limits": [{"dynamic_key": "input.key", "limit": 1, "duration": DAY}]}
    keys = [run % sizes.rate_limits for run in range(sizes.rate_limits * (EACH_OF_LIMITS + 1))]
    return Scenario(Name.RATE_LIMITS, policy, keys, starts=sizes.rate_limits)


_MAKERS: Final[Mapping[Name, Callable[[Sizes], Scenario]]] = {
    Name.EMPTY: _empty,
    Name.BACKLOG: _backlog,
    Name.KEYS: _keys,
    Name.TIMERS: _timers,
    Name.RATE_LIMITS: _rate_limits,
}

"""What a seed decides of the ways in which runs start: crons, events and their filters, gathering, callbacks.

Drawn apart from the rest, so that a history without them is the same as if there were none.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple


class Way(StrEnum):
    """What somebody does with schedules, events, gathered tasks and runs of later."""

    PUBLISH = "publish"
    PUBLISH_TWICE = "publish_twice"
    PUBLISH_MANY = "publish_many"
    GATHER = "gather"
    GATHER_KEYED = "gather_keyed"
    MOVE = "move"
    TRIGGER = "trigger"
    PAUSE_SCHEDULE = "pause_schedule"
    CHANGE_SCHEDULE = "change_schedule"
    ONE_TIME = "one_time"


class FilterPlan(NamedTuple):
    """A filter of a task."""

    expression: str | None
    scope: str | None
    payload: Mapping[str, Any]

    @property
    def policy(self) -> dict[str, Any]:
        """The filter as a policy has it."""
        found: dict[str, Any] = {"payload": dict(self.payload)}
        return found | {name: getattr(self, name) for name in ("expression", "scope") if getattr(self, name)}

    def says(self, event: Mapping[str, Any]) -> bool | None:
        """Tell what it says of an event's payload, None for that it fails."""
        return True if self.expression is None else SAYS[self.expression](event, self.payload)


class Listening(NamedTuple):
    """The keys that a task listens to, all of those that there are, and its filters."""

    patterns: tuple[str, ...]
    filters: tuple[FilterPlan, ...]

    def hears(self, key: str) -> bool:
        """Tell whether the task listens to a key."""
        return any(key in HEARD[pattern] for pattern in self.patterns)


@dataclass(frozen=True, slots=True)
class WaysPlan:
    """The ways of one history. `policies` is what it adds to the policy of each usual task, `tasks` are its own."""

    on: bool = False
    policies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tasks: tuple[Mapping[str, Any], ...] = ()
    listening: Mapping[str, Listening] = field(default_factory=dict)
    doings: tuple[tuple[Way, float], ...] = ()
    every: float = 2.0
    """Seconds between two doings, on average."""

    @property
    def gathered(self) -> Mapping[str, Mapping[str, Any]]:
        """The tasks that gather, with their policies."""
        return {task["name"]: task for task in self.tasks if "debounce" in task or "batch_size" in task}

    def listeners(self, key: str, scope: str | None, payload: Mapping[str, Any]) -> list[tuple[str, str | None, Any]]:
        """Return who listens to an event: the task, its filter's expression, and what that says."""
        found: list[tuple[str, str | None, Any]] = []
        for task, one in self.listening.items():
            if not one.hears(key):
                continue
            seeing = [rule for rule in one.filters if rule.scope in (None, scope)]
            if not one.filters:
                found.append((task, None, True))
            elif not seeing:
                found.append((task, one.filters[0].expression if len(one.filters) == 1 else None, False))
            found += [(task, rule.expression, rule.says(payload)) for rule in seeing]
        return found


NO_WAYS: Final = WaysPlan()
CALLED: Final = "called"
"""The task that runs when another has finally failed."""
KEYS: Final = ("order:new", "order:old", "other")
"""The keys of all events."""
SCOPES: Final = (None, None, "a", "b")
HEARD: Final[Mapping[str, Sequence[str]]] = {
    "order:new": KEYS[:1],
    "order:*": KEYS[:2],
    "*er": KEYS[2:],
    "*": KEYS,
}
"""The keys that a pattern stands for."""
SAYS: Final[Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], bool | None]]] = {
    "input.n % 2 == 0": lambda event, _: event["n"] % 2 == 0,
    "input.n % 3 != payload.rest": lambda event, payload: event["n"] % 3 != payload["rest"],
    "input.g == 'a'": lambda event, _: bool(event["g"] == "a"),
    "input.missing == 1": lambda event, _: None,
}
"""What a filter's expression says, in other words."""
EXPRESSIONS: Final = ("*/4 * * * * *", "*/9 * * * * *", "*/20 * * * * *", "* * * * *")
_ZONES: Final = ("UTC", "Europe/Berlin", "Asia/Kolkata")
_ON: Final = 0.45
_DOINGS: Final = {
    Way.PUBLISH: 4.0,
    Way.PUBLISH_TWICE: 2.0,
    Way.PUBLISH_MANY: 1.0,
    Way.GATHER: 6.0,
    Way.GATHER_KEYED: 1.0,
    Way.MOVE: 3.0,
    Way.TRIGGER: 0.7,
    Way.PAUSE_SCHEDULE: 4.0,
    Way.CHANGE_SCHEDULE: 1.5,
    Way.ONE_TIME: 1.0,
}
_USUAL: Final[Mapping[str, Any]] = {
    "retries": 2,
    "backoff": {"strategy": "fixed", "initial": 0.5, "jitter": False},
    "execution_timeout": 20.0,
    "priority": 2,
}
_GATHERED: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "trailing": (
        {"debounce": {"period": 0.5, "key": "input.g"}},
        {"debounce": {"period": 4.0, "key": "input.g"}},
        {"debounce": {"period": 2.0, "max_wait": 5.0}},
    ),
    "leading": (
        {"debounce": {"period": 3.0, "key": "input.g", "mode": "leading"}},
        {"debounce": {"period": 15.0, "mode": "leading"}},
    ),
    "batched": (
        {"batch_size": 3, "batch_timeout": 4.0, "batch_key": "input.g"},
        {"batch_size": 5, "batch_timeout": 10.0},
    ),
}


GATHERING: Final = frozenset(_GATHERED)
"""The names of tasks that gather."""


def ways_of(seed: int, tasks: Sequence[str]) -> WaysPlan:
    """Return what this seed decides of these tasks."""
    chance = random.Random(f"ways {seed}")
    if chance.random() >= _ON:
        return NO_WAYS
    policies: dict[str, dict[str, Any]] = {task: {} for task in tasks}
    for task in tasks:
        if chance.random() < 0.4:
            policies[task]["on_failure"] = CALLED
        if chance.random() < 0.4:
            crons = [_cron(chance) for _ in range(chance.choice((1, 1, 2)))]
            policies[task]["crons"] = list({cron["expression"]: cron for cron in crons}.values())
    own = [{"name": CALLED, **_USUAL, "retries": 0, "on_failure": chance.choice(tasks)}]
    for name, choices in _GATHERED.items():
        if chance.random() < 0.5:
            own.append({"name": name, **_USUAL, **chance.choice(choices)})
    listening = {}
    for task in (*tasks, *(task["name"] for task in own[1:])):
        if chance.random() < 0.5:
            listening[task] = one = _listening(chance)
            said = {"on_events": list(one.patterns), "filters": [rule.policy for rule in one.filters]}
            policies.setdefault(task, {}).update(said)
    return WaysPlan(
        True,
        {task: policies[task] for task in tasks},
        tuple({**task, **policies.get(task["name"], {})} for task in own),
        listening,
        tuple((doing, weight) for doing, weight in _DOINGS.items() if chance.random() < 0.7),
        chance.choice((1.0, 2.0, 4.0)),
    )


def _cron(chance: random.Random) -> dict[str, Any]:
    return {
        "expression": chance.choice(EXPRESSIONS),
        "timezone": chance.choice(_ZONES),
        "input": {"n": chance.randrange(100), "k": "a", "g": "b", "u": 1, "l": 6},
        "missed": chance.choice(("once", "once", "skip", "all")),
        "overlap": chance.choice(("allow", "allow", "skip", "cancel")),
    }


def _listening(chance: random.Random) -> Listening:
    patterns = tuple(chance.sample(list(HEARD), chance.choice((1, 1, 2))))
    rules = dict.fromkeys(
        (chance.choice((None, *SAYS, *SAYS)), chance.choice(SCOPES)) for _ in range(chance.randrange(4))
    )
    filters = [
        FilterPlan(expression, scope, {"rest": chance.randrange(3)})
        for expression, scope in rules
        if expression is not None or scope is not None
    ]
    return Listening(patterns, tuple(filters))


def due_times(expression: str, after: int, until: int) -> list[int]:
    """Return all times (ms) in (after, until] at which such an expression is due, by counting seconds.

    All of them are alike in every zone, whose offset is a number of whole minutes.
    """
    step = 60 if expression == "* * * * *" else int(expression.split()[0].removeprefix("*/"))
    seconds = range(after // 1000 + 1, until // 1000 + 1)
    return [second * 1000 for second in seconds if second % 60 % step == 0]

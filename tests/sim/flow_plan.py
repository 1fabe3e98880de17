"""What a seed decides of flow control: rules and limits of tasks, what inputs say, and what operators change.

Drawn apart from the rest, so that a history without flow control is the same as if there were none.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Doing(StrEnum):
    """What an operator does."""

    LIMIT = "limit"
    DURATION = "duration"
    REMOVE_LIMIT = "remove_limit"
    PAUSE_KEY = "pause_key"
    PAUSE_DYNAMIC_KEY = "pause_dynamic_key"
    PAUSE_TASK = "pause_task"
    REDEPLOY = "redeploy"


@dataclass(frozen=True, slots=True)
class LimitPlan:
    """A static rate limit: at most `most` units in `duration` seconds."""

    key: str
    most: int
    duration: float


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """Flow control of one history. `policies` is what it adds to the policy of each task."""

    on: bool
    policies: Mapping[str, Mapping[str, Any]]
    limits: tuple[LimitPlan, ...]
    labels: Mapping[str, Mapping[str, str]]
    """The labels of each worker."""
    doings: tuple[tuple[Doing, float], ...]
    every: float
    """Seconds between two doings of the operator, on average."""
    names_keys: float
    """How often a worker that wants to wait names the rate limit that has to."""


NO_FLOW: Final = FlowPlan(False, {}, (), {}, (), 10.0, 0.0)
STRATEGIES: Final = (
    "GROUP_ROUND_ROBIN",
    "CANCEL_IN_PROGRESS",
    "CANCEL_NEWEST",
    "QUEUE_NEWEST_ONLY",
    "QUEUE_OLDEST_ONLY",
)
KEYS: Final = ("a", "b", "c")
LABEL: Final = "gpu"
_ON: Final = 0.7
_DOINGS: Final = {
    Doing.LIMIT: 3.0,
    Doing.DURATION: 0.5,
    Doing.REMOVE_LIMIT: 1.0,
    Doing.PAUSE_KEY: 2.0,
    Doing.PAUSE_DYNAMIC_KEY: 1.0,
    Doing.PAUSE_TASK: 1.5,
    Doing.REDEPLOY: 3.0,
}
_STATIC: Final = (LimitPlan("s", 3, 1.0), LimitPlan("s", 4, 4.0), LimitPlan("s", 12, 15.0), LimitPlan("s", 40, 60.0))
_DYNAMIC: Final = ((2, 1.0), (4, 3.0), (8, 12.0), ("input.l", 2.0), ("input.l * 2", 11.0))


def flow_of(seed: int, slots: Mapping[str, int], serving: Mapping[str, Sequence[str]]) -> FlowPlan:
    """Return what this seed decides. `slots` of the workers by name, `serving`: the workers of each task."""
    chance = random.Random(f"flow {seed}")
    if chance.random() >= _ON:
        return NO_FLOW
    shared = _rule(chance, "input.k") | {"name": "shared"}
    shares = chance.random() < 0.5
    policies: dict[str, dict[str, Any]] = {}
    labels: dict[str, dict[str, str]] = {}
    for task, workers in serving.items():
        rules = [shared] if shares and chance.random() < 0.7 else []
        rules += [_rule(chance, "input.g")] if chance.random() < 0.6 else []
        chance.shuffle(rules)
        policies[task] = {"concurrency": rules, "rate_limits": _rates(chance)}
        if chance.random() < 0.2 and all(slots[worker] > 1 for worker in workers):
            policies[task]["slot_cost"] = 2
        if chance.random() < 0.25:
            policies[task]["labels"] = {LABEL: {"value": "yes", "required": chance.random() < 0.5}}
            labels[chance.choice(workers)] = {LABEL: "yes"}
    kept = tuple((doing, weight) for doing, weight in _DOINGS.items() if chance.random() < 0.6)
    return FlowPlan(
        True,
        policies,
        (chance.choice(_STATIC),),
        labels,
        kept,
        chance.choice((3.0, 6.0, 12.0)),
        chance.choice((0.0, 0.5)),
    )


def _rule(chance: random.Random, key: str) -> dict[str, Any]:
    strategy = chance.choice((*STRATEGIES, STRATEGIES[0]))
    return {"key": key, "max_runs": chance.choice((1, 1, 2, 3)), "strategy": strategy}


def _rates(chance: random.Random) -> list[dict[str, Any]]:
    rates: list[dict[str, Any]] = []
    units = (1, 1, 2, "input.u")
    if chance.random() < 0.4:
        rates.append({"key": "s", "units": chance.choice(units)})
    if chance.random() < 0.35:
        limit, duration = chance.choice(_DYNAMIC)
        rates.append({"dynamic_key": "input.g", "units": chance.choice(units), "limit": limit, "duration": duration})
    return rates


def input_of(chance: random.Random, number: int) -> dict[str, Any]:
    """Return an input whose members the rules look at; where one is null its rule does not apply."""
    return {
        "n": number,
        "k": chance.choice((*KEYS, KEYS[0], None)),
        "g": chance.choice(KEYS),
        "u": chance.choice((1, 2)),
        "l": chance.choice((3, 4, 6)),
    }


def redeployed(chance: random.Random, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Return a policy with other numbers in its concurrency rules; some of those that only rotate are left out."""
    rules = [
        rule | {"max_runs": chance.choice((1, 2, 3))}
        for rule in policy.get("concurrency", ())
        if rule["strategy"] != STRATEGIES[0] or chance.random() < 0.8
    ]
    return dict(policy) | {"concurrency": rules}

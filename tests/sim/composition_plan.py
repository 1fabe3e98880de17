"""What a seed decides of composition: workflows and their graphs, tasks that have children, who cancels and replays.

Drawn apart from the rest, so that a history without it is the same as if there were none.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from tests.sim.ways_plan import KEYS, SCOPES


class Deed(StrEnum):
    """What somebody does with workflows, parents and children."""

    BEGIN = "begin"
    BEGIN_LATER = "begin_later"
    BEGIN_PARENT = "begin_parent"
    ADOPT = "adopt"
    TELL = "tell"
    CANCEL = "cancel"
    CANCEL_PART = "cancel_part"
    REPLAY = "replay"
    REPLAY_NODES = "replay_nodes"
    REPLAY_ALL = "replay_all"
    REPLAY_PART = "replay_part"
    REDECLARE = "redeclare"


@dataclass(frozen=True, slots=True)
class CompositionPlan:
    """The composition of one history: policies of workflows, and of the tasks that are there for them alone."""

    on: bool = False
    workflows: tuple[Mapping[str, Any], ...] = ()
    tasks: tuple[tuple[Mapping[str, Any], float], ...] = ()
    """Policies, with how long (seconds) a handler takes on average."""
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The graph that a workflow has after a change, by name; the next change takes it back."""
    deeds: tuple[tuple[Deed, float], ...] = ()
    every: float = 2.0
    """Seconds between two deeds, on average."""
    gives_in: float = 0.0
    """The part of executions that end their own run as cancelled."""
    awaits: float = 0.0
    """The part of children for which their parents wait."""

    @property
    def graphs(self) -> Mapping[str, Mapping[str, Any]]:
        """The graph of each workflow, in JSON."""
        return {policy["name"]: policy["graph"] for policy in self.workflows}

    def declared(self, workflow: str) -> list[Mapping[str, Any]]:
        """Return the graphs that a workflow ever has."""
        return [self.graphs[workflow], *(graph for name, graph in self.others.items() if name == workflow)]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all that is there for composition alone."""
        return (*(policy["name"] for policy, _ in self.tasks), *(policy["name"] for policy in self.workflows))


NO_COMPOSITION: Final = CompositionPlan()
BROOD: Final = "brood"
"""The task that has children."""
STEPS: Final = ("step", "long", "risky")
NODES: Final = "abcdef"
_ON: Final = 0.4
_DEEDS: Final = {
    Deed.BEGIN_LATER: 0.7,
    Deed.BEGIN_PARENT: 4.0,
    Deed.ADOPT: 1.5,
    Deed.TELL: 5.0,
    Deed.CANCEL: 2.0,
    Deed.CANCEL_PART: 2.0,
    Deed.REPLAY: 2.0,
    Deed.REPLAY_NODES: 1.0,
    Deed.REPLAY_ALL: 0.7,
    Deed.REPLAY_PART: 0.5,
}
_BACKOFF: Final = {"strategy": "fixed", "initial": 0.5, "jitter": False}
_SLOWLY: Final = {"strategy": "fixed", "initial": 6.0, "jitter": False}
_STRATEGIES: Final = ("GROUP_ROUND_ROBIN", "GROUP_ROUND_ROBIN", "CANCEL_IN_PROGRESS", "CANCEL_NEWEST")

Outputs = Mapping[str, Any]
Says = Callable[[Mapping[str, Any], Outputs], bool | None]
OF_INPUT: Final[Mapping[str, Says]] = {
    "input.n % 2 == 0": lambda given, _: given["n"] % 2 == 0,
    "input.g != 'b'": lambda given, _: given["g"] != "b",
    "input.missing == 1": lambda given, _: None,
}
"""What expressions over a workflow's input say, in other words; None for one that fails."""
SCOPE_FROM: Final = "input.g"
"""An expression for the scope of an event."""
OF_EVENTS: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "input.n % 2 == 0": lambda event: bool(event["n"] % 2 == 0),
    "input.g == 'a'": lambda event: bool(event["g"] == "a"),
}
"""What expressions over an event's payload say."""
INPUTS: Final[Mapping[str, Callable[[Mapping[str, Any], Outputs], Any]]] = {
    "{'n': input.n, 'g': input.g, 'depth': 1}": lambda given, _: {"n": given["n"], "g": given["g"], "depth": 1},
    "{'was': parents, 'n': 1, 'depth': 1}": lambda _, parents: {"was": dict(parents), "n": 1, "depth": 1},
    "input": lambda given, _: dict(given),
}
"""What expressions of a node's input say."""


def of_parent(parent: str, expression: str) -> Says | None:
    """Return what an expression over the output of a parent says, if it is one of these."""
    if expression == f"parents.{parent} == null":
        return lambda _, parents: parents[parent] is None
    if expression == f"parents.{parent} != null && parents.{parent}.v % 2 == 0":
        return lambda _, parents: _is_even(parents[parent])
    return None


def _is_even(output: Any) -> bool | None:
    if output is None:
        return False
    try:
        return bool(output["v"] % 2 == 0)
    except (TypeError, KeyError, IndexError):
        return None  # the network has made something else of it


def composition_of(seed: int, usual: Sequence[str]) -> CompositionPlan:
    """Return what this seed decides. `usual` are the tasks that are there anyway, and may be nodes, too."""
    chance = random.Random(f"composition {seed}")
    if chance.random() >= _ON:
        return NO_COMPOSITION
    policies = [
        ({"name": "step", "retries": 2, "backoff": _BACKOFF, "execution_timeout": 20.0, "priority": 2}, 0.2),
        ({"name": "long", "retries": 1, "backoff": _SLOWLY, "execution_timeout": 20.0, "priority": 2}, 3.0),
        ({"name": "risky", "retries": 0, "backoff": _BACKOFF, "execution_timeout": 20.0, "priority": 2}, 0.2),
        ({"name": BROOD, "retries": 2, "backoff": _BACKOFF, "execution_timeout": 6.0, "priority": 2}, 0.5),
    ]
    if chance.random() < 0.3:
        policies[1][0]["schedule_timeout"] = 30.0
    tasks = (*STEPS, *STEPS, BROOD, *usual)
    workflows = []
    for number in range(chance.choice((1, 2, 2))):
        inner = ("flow0", "flow0", "flow0") if number else ()
        policy: dict[str, Any] = {"name": f"flow{number}", "graph": graph_of(chance, (*tasks, *inner)), "priority": 2}
        if chance.random() < 0.4:
            strategy = chance.choice(_STRATEGIES)
            policy["concurrency"] = [{"key": "input.g", "max_runs": chance.choice((1, 1, 2)), "strategy": strategy}]
        if chance.random() < 0.15:
            policy["schedule_timeout"] = 20.0
        workflows.append(policy)
    deeds = [(Deed.BEGIN, 6.0), *((deed, weight) for deed, weight in _DEEDS.items() if chance.random() < 0.6)]
    every, gives_in, awaits = chance.choice((1.0, 2.0, 4.0)), chance.choice((0.0, 0.0, 0.1)), chance.choice((0.0, 0.3))
    others = {}
    if chance.random() < 0.3:
        deeds.append((Deed.REDECLARE, 1.5))
        others = {workflow["name"]: graph_of(chance, tasks) for workflow in workflows}
    for workflow in workflows:
        if chance.random() < 0.2:
            workflow["rate_limits"] = [{"dynamic_key": "input.g", "units": 1, "limit": 2, "duration": 5.0}]
    return CompositionPlan(
        True,
        tuple(workflows),
        tuple(policies),
        others,
        tuple(deeds),
        every=every,
        gives_in=gives_in,
        awaits=awaits,
    )


def graph_of(chance: random.Random, tasks: Sequence[str]) -> dict[str, Any]:
    """Draw a small graph."""
    names = NODES[: chance.choice((1, 2, 3, 3, 4, 4, 5, 6))]
    nodes = [_node(chance, name, names[:number], tasks) for number, name in enumerate(names)]
    if chance.random() < 0.2:
        nodes.reverse()
    graph: dict[str, Any] = {"nodes": nodes}
    if chance.random() < 0.4:
        graph["on_failure"] = {"name": "undo", "task": chance.choice(STEPS)}
    if chance.random() < 0.3:
        graph["on_success"] = {"name": "praise", "task": chance.choice(STEPS)}
    return graph


def _node(chance: random.Random, name: str, before: Sequence[str], tasks: Sequence[str]) -> dict[str, Any]:
    task = chance.choice(tasks)
    parents = sorted(chance.sample(list(before), min(len(before), chance.choice((0, 1, 1, 2, 3)))))
    node: dict[str, Any] = {"name": name, "task": task, "parents": parents}
    if task in (*STEPS, BROOD) and chance.random() < 0.2:
        node["input"] = chance.choice(list(INPUTS))
    for action, often in (("wait_for", 0.35), ("skip_if", 0.2), ("cancel_if", 0.2)):
        if chance.random() < often:
            node[action] = [_clause(chance, action, parents) for _ in range(chance.choice((1, 1, 2)))]
    return node


def _clause(chance: random.Random, action: str, parents: Sequence[str]) -> dict[str, Any]:
    if chance.random() < 0.3:
        return {"any": [_condition(chance, action, parents) for _ in range(2)]}
    return _condition(chance, action, parents)


def _condition(chance: random.Random, action: str, parents: Sequence[str]) -> dict[str, Any]:
    match chance.randrange(6):
        case 0 | 1:
            short = (0.3, 2.0, 6.0) if action == "wait_for" else (2.0, 6.0, 15.0)
            return {"sleep": chance.choice(short)}
        case 2:
            return {"expression": _expression(chance, parents)}
    found: dict[str, Any] = {"event": chance.choice(KEYS), "look_back": chance.choice((0.0, 2.0, 5.0, 30.0))}
    scope = chance.choice(SCOPES)
    if scope is not None:
        found["scope"] = scope
    elif chance.random() < 0.3:
        found["scope_from"] = SCOPE_FROM
    if chance.random() < 0.4:
        found["expression"] = chance.choice(list(OF_EVENTS))
    return found


def _expression(chance: random.Random, parents: Sequence[str]) -> str:
    if parents and chance.random() < 0.7:
        parent = chance.choice(parents)
        return chance.choice((f"parents.{parent} == null", f"parents.{parent} != null && parents.{parent}.v % 2 == 0"))
    usual = list(OF_INPUT)[:2]
    return chance.choice((*usual, *usual, *usual, *OF_INPUT))

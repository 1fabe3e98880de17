"""The graph of a workflow, and the rules of its life: which node comes next, and how the workflow ends.

A node is reached once all its parents have ended well, which is `completed` or `skipped`. It is barred, and
cancelled, once one of them failed or was cancelled; the branches beside it go on. When all nodes have ended the
workflow has failed if one failed, else it was cancelled if one was, else it is completed. Then `on_failure` or
`on_success` may follow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState

WELL: Final = frozenset({RunState.COMPLETED, RunState.SKIPPED})
"""How a parent ends whose children may start."""


class Condition(NamedTuple):
    """Something that comes true: after a sleep, with an event, or by an expression over parents' outputs.

    Durations are in ms. `expression` narrows down an event, or stands alone; `look_back` is how long before an event
    counts. `scope_from` is the expression that gives the scope of an event.
    """

    sleep: int | None = None
    event: str | None = None
    scope: str | None = None
    expression: str | None = None
    look_back: int = 0
    scope_from: str | None = None


Clauses = tuple[tuple[Condition, ...], ...]
"""True when each group has a condition that is."""


class Action(StrEnum):
    """What a list of conditions does to its node when it comes true."""

    CANCEL = "cancel"
    SKIP = "skip"
    START = "start"


@dataclass(frozen=True, slots=True)
class Node:
    """A task that is run within a workflow. `input` is the expression of its input; None: the workflow's own."""

    name: str
    task: str
    parents: tuple[str, ...] = ()
    wait_for: Clauses = ()
    skip_if: Clauses = ()
    cancel_if: Clauses = ()
    input: str | None = None

    @property
    def clauses(self) -> tuple[tuple[Action, Clauses], ...]:
        """Return its lists of conditions, the one that counts most first."""
        return (Action.CANCEL, self.cancel_if), (Action.SKIP, self.skip_if), (Action.START, self.wait_for)


@dataclass(frozen=True)
class Graph:
    """The nodes by name, each after its parents or before; and the two that may follow when all have ended."""

    nodes: Mapping[str, Node]
    on_failure: Node | None = None
    on_success: Node | None = None
    children: Mapping[str, Sequence[str]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        children: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for parent in node.parents:
                children[parent].append(node.name)
        object.__setattr__(self, "children", children)

    @property
    def last(self) -> tuple[Node, ...]:
        """Return the nodes that may follow when all have ended."""
        return tuple(node for node in (self.on_failure, self.on_success) if node is not None)

    @property
    def sinks(self) -> tuple[str, ...]:
        """Return the nodes that no other has as a parent: their outputs are the workflow's."""
        return tuple(name for name, children in self.children.items() if not children)

    def node(self, name: str) -> Node:
        """Return a node by its name. Raises `KeyError`."""
        found = self.nodes.get(name)
        return found if found is not None else next(node for node in self.last if node.name == name)

    def below(self, names: Iterable[str]) -> set[str]:
        """Return these nodes and all that come after them."""
        found: set[str] = set()
        wanted = list(names)
        while wanted:
            name = wanted.pop()
            if name not in found:
                found.add(name)
                wanted.extend(self.children.get(name, ()))
        return found


class Step(NamedTuple):
    """What happens to a node next: it is reached, or barred by a parent."""

    node: Node
    barred_by: str | None = None


States = Mapping[str, RunState]
"""Of nodes that were reached or barred, by name; the others are not there yet."""


def next_steps(graph: Graph, states: States, after: Iterable[str] | None = None) -> list[Step]:
    """Return what happens next, in the order of the graph; with `after`, only to the children of these nodes."""
    if after is None:
        names: Iterable[str] = graph.nodes
    else:
        names = dict.fromkeys(child for name in after for child in graph.children.get(name, ()))
    steps = []
    for name in names:
        if name not in states:
            step = _step(graph.nodes[name], states)
            if step is not None:
                steps.append(step)
    if not steps:
        follower = _follower(graph, states)
        if follower is not None and follower.name not in states:
            steps.append(Step(follower))
    return steps


def _step(node: Node, states: States) -> Step | None:
    reached = True
    for parent in node.parents:
        state = states.get(parent)
        if state in FINAL and state not in WELL:
            return Step(node, parent)
        reached = reached and state in WELL
    return Step(node) if reached else None


def _follower(graph: Graph, states: States) -> Node | None:
    verdict = _verdict(graph, states)
    if verdict is RunState.FAILED:
        return graph.on_failure
    return graph.on_success if verdict is RunState.COMPLETED else None


def _verdict(graph: Graph, states: States) -> RunState | None:
    """Return how the nodes have ended, without those that follow; None while one has not."""
    verdict = RunState.COMPLETED
    for name in graph.nodes:
        state = states.get(name)
        if state is None or state not in FINAL:
            return None
        if state is RunState.FAILED:
            verdict = RunState.FAILED
        elif state is RunState.CANCELLED and verdict is not RunState.FAILED:
            verdict = RunState.CANCELLED
    return verdict


def outcome(graph: Graph, states: States) -> RunState | None:
    """Return how the workflow has ended, or None while it has not.

    A node that follows and does not end well makes a workflow fail that would have completed.
    """
    verdict = _verdict(graph, states)
    follower = None if verdict is None else _follower(graph, states)
    if verdict is None or follower is None:
        return verdict
    state = states.get(follower.name)
    if state is None or state not in FINAL:
        return None
    return verdict if state in WELL else RunState.FAILED


def to_do_again(graph: Graph, states: States, chosen: Iterable[str] = ()) -> set[str]:
    """Return the nodes that a replay runs anew: the chosen ones, or else all that did not end well; and what is below.

    Where all ended well and none is chosen, it is all of them. Those that follow a workflow's end are always among
    them, and alone where it was only one of them that did not end well.
    """
    wanted = set(chosen) or {name for name in (*graph.nodes, *states) if states.get(name) not in WELL}
    again = graph.below(wanted or graph.nodes)
    return again | {node.name for node in graph.last}


# -- conditions --------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a condition stands in its node."""

    action: Action
    clause: int
    place: int


class Fate(StrEnum):
    """What becomes of a node that was reached."""

    START = "start"
    WAIT = "wait"
    SKIP = "skip"
    CANCEL = "cancel"
    NEVER = "never"
    """It waits for what can never come true."""


def decide(node: Node, known: Mapping[Place, bool]) -> Fate:
    """Return what becomes of a node. `known` says of conditions that they are true, or never will be.

    What cancels goes before what skips, and that before what lets it start.
    """
    for action, fate in ((Action.CANCEL, Fate.CANCEL), (Action.SKIP, Fate.SKIP)):
        clauses = dict(node.clauses)[action]
        if clauses and _holds(action, clauses, known):
            return fate
    if _holds(Action.START, node.wait_for, known):
        return Fate.START
    return Fate.NEVER if _is_dead(node.wait_for, known) else Fate.WAIT


def _holds(action: Action, clauses: Clauses, known: Mapping[Place, bool]) -> bool:
    return all(
        any(known.get(Place(action, n, place), False) for place in range(len(clause)))
        for n, clause in enumerate(clauses)
    )


def _is_dead(clauses: Clauses, known: Mapping[Place, bool]) -> bool:
    return any(
        all(known.get(Place(Action.START, n, place)) is False for place in range(len(clause)))
        for n, clause in enumerate(clauses)
    )

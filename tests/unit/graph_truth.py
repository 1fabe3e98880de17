"""What becomes of a workflow, told node by node from the beginning: slow, obvious, and without a rule of the product.

Of each node it is asked anew when its parents ended, when each of its conditions came true, and what was first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hurlbat_dispatcher.domain.graph import Clauses, Condition, Graph, Node

ENDED_WELL = ("completed", "skipped")
NEVER = float("inf")


class Life(NamedTuple):
    """How a node fared. Times are ms; `state` is "suspended" for one that waits for ever."""

    state: str
    reached_at: float
    started_at: float | None = None
    ended_at: float = NEVER
    why: str = ""


@dataclass
class Plan:
    """What happens around a graph: how long each node takes and how it ends, which events come, who cancels it."""

    graph: Graph
    takes: Mapping[str, float]
    ends: Mapping[str, str]
    events: Sequence[tuple[int, str]] = field(default_factory=list)
    created_at: int = 0
    cancelled_at: float = NEVER
    stopped: Mapping[str, float] = field(default_factory=dict)
    """Nodes that are cancelled by themselves, and when."""
    naps: Mapping[int, float] | None = None
    """When sleeps are over, by their length, where the length does not tell: what is not here goes on."""
    kept: Mapping[str, Life] = field(default_factory=dict)
    """Nodes that ended before a replay, which begins at `begun_at`."""
    begun_at: int = 0


class Truth:
    """The lives of all nodes, and of their workflow."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._lives: dict[str, Life | None] = {}
        found = {name: self._uncancelled(name) for name in plan.graph.nodes}
        self.verdict, self.ended_at = self._verdict(found)
        follower = self._follower()
        if follower is not None:
            life = self._live(follower, self.ended_at, {})
            found[follower.name] = life
            self.ended_at = life.ended_at
            if self.ended_at == NEVER:
                self.verdict = None
            elif life.state != "completed":
                self.verdict = "failed"
        at = plan.cancelled_at
        if self.ended_at > at:
            self.verdict, self.ended_at = "cancelled", at
            found = {name: _cut(life, at) for name, life in found.items()}
        self.lives = {name: life for name, life in found.items() if life is not None}

    # -- the nodes ---------------------------------------------------------------------------------------------------

    def _uncancelled(self, name: str) -> Life | None:
        """Return the life of a node where nobody cancels the workflow; None of one that is never reached or barred."""
        if name not in self._lives:
            node = self.plan.graph.nodes[name]
            self._lives[name] = self.plan.kept.get(name) or self._new(node)
        return self._lives[name]

    def _new(self, node: Node) -> Life | None:
        parents = {parent: self._uncancelled(parent) for parent in node.parents}
        bad = [life.ended_at for life in parents.values() if life and life.state in ("failed", "cancelled")]
        if bad and min(bad) < NEVER:
            at = max(self.plan.begun_at, min(bad))
            return Life("cancelled", at, None, at, "parent")
        if any(life is None or life.ended_at == NEVER for life in parents.values()):
            return None
        reached = max([self.plan.begun_at, *(life.ended_at for life in parents.values() if life)])
        return self._live(node, reached, {name: life.state for name, life in parents.items() if life})

    def _live(self, node: Node, reached: float, parents: Mapping[str, str]) -> Life:
        if any(says(one.expression, parents) is None for one in conditions_of(node) if is_of_parents(one)):
            return Life("failed", reached, None, reached, "expression")
        cancel = self._all_true(node.cancel_if, reached, self.plan.created_at, parents) if node.cancel_if else NEVER
        skip = self._all_true(node.skip_if, reached, self.plan.created_at, parents) if node.skip_if else NEVER
        start = self._all_true(node.wait_for, reached, reached, parents)
        if any(all(is_of_parents(one) and not says(one.expression, parents) for one in any_) for any_ in node.wait_for):
            skip = min(skip, reached)
        stop = self.plan.stopped.get(node.name, NEVER)
        first = min(cancel, skip, start, stop)
        if first == NEVER:
            return Life("suspended", reached)
        if cancel == first:
            return Life("cancelled", reached, None, first, "condition")
        if skip == first:
            return Life("skipped", reached, None, first, "condition")
        if start == first:
            over = start + self.plan.takes[node.name]
            if min(cancel, stop) >= over:
                return Life(self.plan.ends[node.name], reached, start, over, "task")
        ended = min(cancel, stop)
        started = start if start == first else None
        return Life("cancelled", reached, started, ended, "condition" if cancel == ended else "request")

    # -- conditions --------------------------------------------------------------------------------------------------

    def _all_true(self, clauses: Clauses, reached: float, since: float, parents: Mapping[str, str]) -> float:
        """Return when all clauses are true, each by one of its conditions."""
        return max([reached, *(min(self._true(one, reached, since, parents) for one in any_of) for any_of in clauses)])

    def _true(self, condition: Condition, reached: float, since: float, parents: Mapping[str, str]) -> float:
        if condition.sleep is not None:
            naps = self.plan.naps
            return reached + condition.sleep if naps is None else max(reached, naps.get(condition.sleep, NEVER))
        if condition.event is not None:
            counted = [at for at, key in self.plan.events if key == condition.event]
            return max(reached, min((at for at in counted if at >= since - condition.look_back), default=NEVER))
        return reached if says(condition.expression, parents) else NEVER

    # -- the workflow ------------------------------------------------------------------------------------------------

    def _verdict(self, lives: Mapping[str, Life | None]) -> tuple[str | None, float]:
        states = [life.state if life and life.ended_at < NEVER else None for life in lives.values()]
        if None in states:
            return None, NEVER
        worst = next((state for state in ("failed", "cancelled") if state in states), "completed")
        return worst, max([self.plan.begun_at, *(life.ended_at for life in lives.values() if life)])

    def _follower(self) -> Node | None:
        if self.verdict == "failed":
            return self.plan.graph.on_failure
        return self.plan.graph.on_success if self.verdict == "completed" else None


def _cut(life: Life | None, at: float) -> Life | None:
    if life is None or life.reached_at > at:
        return None
    started = life.started_at if life.started_at is not None and life.started_at <= at else None
    if life.ended_at > at:
        return life._replace(state="cancelled", started_at=started, ended_at=at, why="workflow")
    return life


def conditions_of(node: Node) -> list[Condition]:
    """Return all conditions of a node."""
    return [one for clauses in (node.cancel_if, node.skip_if, node.wait_for) for any_of in clauses for one in any_of]


def is_of_parents(condition: Condition) -> bool:
    """Tell whether a condition is an expression over the parents."""
    return condition.sleep is None and condition.event is None


def says(expression: str | None, parents: Mapping[str, str]) -> bool | None:
    """Evaluate one of the few expressions that are used here, given the states of the parents; None: it fails."""
    match (expression or "").split():
        case ["true"]:
            return True
        case ["false"]:
            return False
        case [name, "==", "null"]:
            return parents[name.removeprefix("parents.")] == "skipped"
        case [name, "!=", "null"]:
            return parents[name.removeprefix("parents.")] != "skipped"
        case _:
            return None


def done_again(graph: Graph, lives: Mapping[str, Life], chosen: set[str]) -> set[str]:
    """Return the nodes that a replay runs anew: what is wanted, then over and over its children."""
    last = {node.name for node in (graph.on_failure, graph.on_success) if node is not None}
    bad = {name for name, life in lives.items() if life.state not in ENDED_WELL}
    bad |= set(graph.nodes) - set(lives)
    found = chosen or bad or set(graph.nodes)
    while True:
        more = {name for name, node in graph.nodes.items() if set(node.parents) & found} - found
        if not more:
            return found | last
        found = found | more

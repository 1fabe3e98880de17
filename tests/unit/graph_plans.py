"""Random workflows and what happens around them, drawn from a `Random`: a small number tells a large history."""

from random import Random
from typing import Final

from hurlbat_dispatcher.domain.graph import Clauses, Condition, Graph, Node
from tests.unit.graph_truth import NEVER, Plan

KEYS: Final = ("red", "green", "blue")
ENDS: Final = ("completed", "completed", "completed", "completed", "completed", "failed", "cancelled")
FAILS: Final = "1 / 0 > 0"
"""An expression that cannot be evaluated."""


def any_condition(random: Random, parents: list[str]) -> Condition:
    """Draw a condition of any kind, also over these parents."""
    kind = random.randrange(3)
    if kind == 0:
        return Condition(sleep=random.choice((1, 5, 20, 60)))
    if kind == 1:
        return Condition(event=random.choice(KEYS), look_back=random.choice((0, 5, 50)))
    said = ["true", "false", "true", "false", "true", "false", FAILS]
    said += [f"parents.{parent} {sign} null" for parent in parents for sign in ("==", "!=")]
    return Condition(expression=random.choice(said))


def any_clauses(random: Random, parents: list[str]) -> Clauses:
    """Draw one or two groups of up to three conditions."""
    sizes = [random.randint(1, 3) for _ in range(random.randint(1, 2))]
    return tuple(tuple(any_condition(random, parents) for _ in range(size)) for size in sizes)


def any_graph(random: Random, size: int, *, often: float = 0.2) -> Graph:
    """Draw a graph of so many nodes in no order; `often`: how many lists of conditions are not empty, of 1."""
    nodes: list[Node] = []
    for n in range(size):
        names = [node.name for node in nodes]
        parents = random.sample(names, min(len(names), random.choice((0, 1, 1, 1, 2, 2, 3))))
        lists = [any_clauses(random, parents) if random.random() < often else () for _ in range(3)]
        wait_for, skip_if, cancel_if = lists
        nodes.append(Node(f"n{n}", "t", tuple(parents), wait_for, skip_if, cancel_if))
    random.shuffle(nodes)
    last = [Node(name, "t") if random.random() < 0.5 else None for name in ("sorry", "hurray")]
    return Graph({node.name: node for node in nodes}, *last)


def any_plan(random: Random, size: int) -> Plan:
    """Draw a graph and everything that happens around it."""
    graph = any_graph(random, size)
    names = [*graph.nodes, "sorry", "hurray"]
    begun_at = random.choice((50, 50, 70))
    return Plan(
        graph,
        {name: random.randint(1, 40) for name in names},
        {name: random.choice(ENDS) for name in names},
        [(random.randint(0, 200), random.choice(KEYS)) for _ in range(random.randint(0, 6))],
        created_at=50,
        cancelled_at=random.choice((NEVER, NEVER, NEVER, begun_at + random.randint(0, 200))),
        begun_at=begun_at,
    )

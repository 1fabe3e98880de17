"""Graphs of workflows as a policy says them, made into those that the rules are about."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from hurlbat.graph import AnyOf, Clause, GraphNode, LastNode, OnEvent, Sleep, When
from hurlbat.graph import Graph as SaidGraph
from hurlbat_dispatcher.domain.graph import Clauses, Condition, Graph, Node

CACHED: Final = 128
"""Graphs that are kept as they were read: of a thousand nodes that takes a tenth of a second."""


@lru_cache(maxsize=CACHED)
def read_graph(text: str) -> Graph:
    """Return the graph that was stored as JSON."""
    return to_graph(SaidGraph.model_validate_json(text))


def to_graph(said: SaidGraph) -> Graph:
    """Make the graph of a workflow of what its policy says."""
    return Graph(
        {node.name: _node(node) for node in said.nodes},
        None if said.on_failure is None else _last(said.on_failure),
        None if said.on_success is None else _last(said.on_success),
    )


def _node(said: GraphNode) -> Node:
    return Node(
        said.name,
        said.runs,
        said.parents,
        wait_for=_clauses(said.wait_for),
        skip_if=_clauses(said.skip_if),
        cancel_if=_clauses(said.cancel_if),
        input=said.input,
    )


def _last(said: LastNode) -> Node:
    return Node(said.name, said.runs, input=said.input)


def _clauses(said: Sequence[Clause]) -> Clauses:
    return tuple(
        tuple(map(_condition, clause.any)) if isinstance(clause, AnyOf) else (_condition(clause),) for clause in said
    )


def _condition(said: Sleep | OnEvent | When) -> Condition:
    match said:
        case Sleep():
            return Condition(sleep=round(said.sleep * 1000))
        case OnEvent():
            return Condition(
                event=said.event,
                scope=said.scope,
                expression=said.expression,
                look_back=round(said.look_back * 1000),
                scope_from=said.scope_from,
            )
        case When():
            return Condition(expression=said.expression)

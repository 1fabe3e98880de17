"""What cannot be of a workflow that is to be registered: its expressions, and workflows that would run themselves.

What else a graph must be is held by `hurlbat.graph.Graph` itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from hurlbat.graph import AnyOf, Clause, Graph, GraphNode, LastNode, OnEvent, Sleep, When, circle_in
from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.expressions import (
    EVENT_VARIABLES,
    FILTER,
    GRAPH_VARIABLES,
    KEY,
    MAX_SOURCE,
    ExpressionError,
    Kind,
    compile_expression,
    compile_for,
    paths_read,
)

_SHOWN: Final = 20
"""Names of parents that a sentence lists."""


def check_graph(task: str, graph: Graph) -> None:
    """Raise `ValueError`, with a sentence that names the node and the member, for an expression that could never do."""
    for node in graph.nodes:
        at = f"workflow {task}: node {node.name}"
        for member in ("wait_for", "skip_if", "cancel_if"):
            clauses: Sequence[Clause] = getattr(node, member)
            for where, condition in _conditions(clauses, f"{at}: {member}"):
                _check_condition(condition, where, node)
        _check_input(node.input, at, node.parents)
    for last in (graph.on_failure, graph.on_success):
        if last is not None:
            _check_last(last, f"workflow {task}: node {last.name}", graph)


def circle_of_workflows(policies: Iterable[TaskPolicy], others: Mapping[str, TaskPolicy]) -> str | None:
    """Return what is wrong with workflows that would run themselves, by way of `others` or not; or None.

    `others` are the policies that are registered, by task.
    """
    new = {policy.name: policy for policy in policies}
    graphs = {name: policy.graph for name, policy in {**others, **new}.items() if policy.graph is not None}
    if not any(policy.graph is not None for policy in new.values()):
        return None
    runs = {name: [task for task in _tasks_of(graph) if task in graphs] for name, graph in graphs.items()}
    circle = circle_in(runs)
    if not circle:
        return None
    return f"the workflow {circle[0]} would run itself without end: {' -> '.join(circle)}; take one of the nodes out"


def _tasks_of(graph: Graph) -> list[str]:
    lasts = (last for last in (graph.on_failure, graph.on_success) if last is not None)
    return list(dict.fromkeys([node.runs for node in graph.nodes] + [last.runs for last in lasts]))


def _conditions(clauses: Sequence[Clause], at: str) -> Iterable[tuple[str, Sleep | OnEvent | When]]:
    """Yield each condition, with its place."""
    for n, clause in enumerate(clauses):
        if isinstance(clause, AnyOf):
            for place, condition in enumerate(clause.any):
                yield f"{at}[{n}].any[{place}]", condition
        else:
            yield f"{at}[{n}]", clause


def _check_condition(condition: Sleep | OnEvent | When, where: str, node: GraphNode) -> None:
    match condition:
        case OnEvent():
            if condition.expression is not None:
                _check(condition.expression, f"{where}.expression", FILTER, EVENT_VARIABLES)
            if condition.scope_from is not None:
                _check(condition.scope_from, f"{where}.scope_from", KEY, GRAPH_VARIABLES)
                _check_parents(condition.scope_from, f"{where}.scope_from", node.parents, "its parents")
        case When(expression=source):
            _check(source, f"{where}.expression", FILTER, GRAPH_VARIABLES)
            _check_parents(source, f"{where}.expression", node.parents, "its parents")


def _check_input(source: str | None, at: str, parents: Sequence[str]) -> None:
    if source is not None:
        _check(source, f"{at}: input", None, GRAPH_VARIABLES)
        _check_parents(source, f"{at}: input", parents, "its parents")


def _check_last(node: LastNode, at: str, graph: Graph) -> None:
    """Check a node that follows: it sees the outputs of all others."""
    if node.input is not None:
        _check(node.input, f"{at}: input", None, GRAPH_VARIABLES)
        _check_parents(node.input, f"{at}: input", [one.name for one in graph.nodes], "the nodes")


def _check(source: str, where: str, kind: Kind | None, variables: tuple[str, ...]) -> None:
    try:
        if kind is None:
            compile_expression(source, variables)
        else:
            compile_for(source, kind, variables)
    except ExpressionError as error:
        place = "" if error.position is None else f", at character {error.position}"
        raise ValueError(f"{where}: the expression {source[:MAX_SOURCE]!r} is wrong{place}: {error.sentence}") from None


def _check_parents(source: str, where: str, parents: Sequence[str], what: str) -> None:
    """Refuse what reads the output of a node that is none of its parents: it could only ever fail."""
    for path in sorted(paths_read(source, GRAPH_VARIABLES)):
        if path[0] == "parents" and len(path) > 1 and path[1] not in parents:
            listed = f"{what} are {', '.join(parents[:_SHOWN])}" if parents else "it has no parents"
            raise ValueError(f"{where}: it reads the output of {path[1]}, which is none of its parents ({listed})")

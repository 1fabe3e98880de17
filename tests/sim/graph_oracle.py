"""What a graph in JSON says, worked out slowly: which node is due, how a workflow ends, what a condition may say.

A second opinion, written from what workflows promise and from nothing else; it asks no rule of the product.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, Literal, NamedTuple

from tests.sim.composition_plan import OF_EVENTS, OF_INPUT, Outputs, of_parent

Graph = Mapping[str, Any]
Node = Mapping[str, Any]
States = Mapping[str, str]
"""Of the nodes that are there, by name."""
Standing = Literal["waits", "reached", "barred"]
Fate = Literal["start", "wait", "skip", "cancel", "fail"]
Truth = Literal["true", "false", "open", "fails"]
"""`false` never comes true, `open` may."""

ENDED: Final = frozenset({"completed", "failed", "cancelled", "skipped"})
WELL: Final = frozenset({"completed", "skipped"})
_HANDLERS: Final = {"failed": "on_failure", "completed": "on_success"}


# -- the life of a workflow --------------------------------------------------------------------------------------------


def nodes_and_handlers(graph: Graph) -> list[Node]:
    """Return all nodes, and those that follow when these have ended."""
    return [*graph["nodes"], *filter(None, map(graph.get, ("on_failure", "on_success")))]


def node_of(graph: Graph, name: str) -> Node | None:
    """Return the node of that name."""
    return next((node for node in nodes_and_handlers(graph) if node["name"] == name), None)


def standing(graph: Graph, states: States, name: str) -> Standing:
    """Return whether a node must be there, given how the others stand."""
    if name not in {node["name"] for node in graph["nodes"]}:
        return "reached" if _handler(graph, states) == name else "waits"
    parents = [states.get(parent) for parent in (node_of(graph, name) or {}).get("parents", ())]
    if any(state in ENDED - WELL for state in parents):
        return "barred"
    return "reached" if all(state in WELL for state in parents) else "waits"


def missing(graph: Graph, states: States) -> list[str]:
    """Return the nodes that must be there, and are not."""
    names = [node["name"] for node in nodes_and_handlers(graph)]
    return [name for name in names if name not in states and standing(graph, states, name) != "waits"]


def outcome(graph: Graph, states: States) -> str | None:
    """Return how a workflow ends whose nodes stand so, or None while it must not."""
    verdict = _verdict(graph, states)
    handler = _handler(graph, states)
    if handler is None:
        return verdict
    last = states.get(handler)
    if last not in ENDED:
        return None
    return verdict if last in WELL else "failed"


def _verdict(graph: Graph, states: States) -> str | None:
    all_states = [states.get(node["name"]) for node in graph["nodes"]]
    if any(state not in ENDED for state in all_states):
        return None
    for bad in ("failed", "cancelled"):
        if bad in all_states:
            return bad
    return "completed"


def _handler(graph: Graph, states: States) -> str | None:
    handler = graph.get(_HANDLERS.get(_verdict(graph, states) or "", ""))
    return None if handler is None else handler["name"]


def sinks(graph: Graph) -> list[str]:
    """Return the nodes that are nobody's parents."""
    parents = {parent for node in graph["nodes"] for parent in node.get("parents", ())}
    return [node["name"] for node in graph["nodes"] if node["name"] not in parents]


def to_do_again(graph: Graph, states: States, asked: Sequence[str] | Literal["failed", "start"]) -> set[str]:
    """Return the nodes that a replay runs anew."""
    names = {node["name"] for node in graph["nodes"]}
    match asked:
        case "start":
            again = names
        case "failed":
            handlers = {node["name"] for node in nodes_and_handlers(graph)} - names
            again = {name for name in names if states.get(name) not in WELL}
            if not again and all(states.get(name, "completed") in WELL for name in handlers):
                again = names
        case _:
            again = set(asked)
    grown = True
    while grown:
        more = {node["name"] for node in graph["nodes"] if again & set(node.get("parents", ()))}
        grown = not more <= again
        again = again | more
    return again | {node["name"] for node in nodes_and_handlers(graph)} - names


# -- conditions --------------------------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """An event that is committed. `fresh`: in this very commit, so that nobody knows whether before or after."""

    id: str
    key: str
    scope: str | None
    payload: Any
    at: int
    fresh: bool = False


class Facts(NamedTuple):
    """What conditions of a node go by. Times are ms; `slack` is by how much they may be off."""

    given: Mapping[str, Any]
    parents: Outputs
    reached_at: int
    created_at: int
    now: int
    events: Sequence[Seen]
    slack: int


def fates(node: Node, facts: Facts) -> set[Fate]:
    """Return what may become of a node now; one thing, unless times are too close."""
    lists = {action: _clauses(node.get(action, ())) for action in ("cancel_if", "skip_if", "wait_for")}
    flat = [(action, one) for action, clauses in lists.items() for clause in clauses for one in clause]
    found: set[Fate] = set()
    for said in product(*(sorted(truths(action, condition, facts)) for action, condition in flat)):
        rest = iter(said)
        known = {action: [[next(rest) for _ in clause] for clause in clauses] for action, clauses in lists.items()}
        found |= set(_fates(known, fails="fails" in said))
    return found


def _fates(known: Mapping[str, Sequence[Sequence[Truth]]], *, fails: bool) -> Iterator[Fate]:
    if fails:
        yield "fail"
    if known["cancel_if"] and _holds(known["cancel_if"]):
        yield "cancel"
    elif known["skip_if"] and _holds(known["skip_if"]):
        yield "skip"
    elif fails:
        return
    elif _holds(known["wait_for"]):
        yield "start"
    elif any(all(one == "false" for one in clause) for clause in known["wait_for"]):
        yield "skip"
    else:
        yield "wait"


def _holds(clauses: Sequence[Sequence[Truth]]) -> bool:
    return all("true" in clause for clause in clauses)


def _clauses(said: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    return [list(clause["any"]) if "any" in clause else [clause] for clause in said]


def truths(action: str, condition: Mapping[str, Any], facts: Facts) -> set[Truth]:
    """Return what a condition may say now."""
    if "sleep" in condition:
        return _passed(facts.now - facts.reached_at - round(condition["sleep"] * 1000), facts.slack)
    if "event" not in condition:
        return {_says(condition["expression"], facts)}
    start = facts.reached_at if action == "wait_for" else facts.created_at
    since = start - round(condition["look_back"] * 1000)
    found: set[Truth] = {"open"}
    for event in facts.events:
        if _counts(condition, event, facts.given):
            timely = _passed(event.at - since, facts.slack)
            if timely == {"true"} and not event.fresh:
                return {"true"}
            found |= timely
    return found


def _passed(ms: int, slack: int) -> set[Truth]:
    """Tell whether something is over since so many ms."""
    if ms > slack:
        return {"true"}
    return {"true", "open"} if ms >= -slack else {"open"}


def _says(expression: str, facts: Facts) -> Truth:
    for parent in facts.parents:
        says = of_parent(parent, expression)
        if says is not None:
            break
    else:
        says = OF_INPUT[expression]
    verdict = says(facts.given, facts.parents)
    return "fails" if verdict is None else "true" if verdict else "false"


def _counts(condition: Mapping[str, Any], event: Seen, given: Mapping[str, Any]) -> bool:
    scope = given["g"] if "scope_from" in condition else condition.get("scope")
    if event.key != condition["event"] or scope not in (None, event.scope):
        return False
    expression = condition.get("expression")
    try:
        return expression is None or OF_EVENTS[expression](event.payload)
    except (TypeError, KeyError):
        return False

"""The graph of a workflow as both ends say it in JSON: its nodes, what each waits for, and what makes no graph."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, TypeVar

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator
from pydantic.dataclasses import dataclass

from hurlbat.models import CONFIG, Model, known_only, made_by_hand, twice
from hurlbat.triggers import EventPattern, Expression
from hurlbat.wire import NAME_PATTERN

MAX_NODES: Final = 1_000
"""Nodes of one workflow, the one for its failure and the one for its success not among them."""
MAX_CONDITIONS: Final = 16
"""Conditions in one list, and in one group of alternatives."""
MAX_SLEEP: Final = 31_536_000.0
"""Seconds that a node may sleep: a year."""
MAX_LOOK_BACK: Final = 86_400.0
"""Seconds that a condition may look back for its event: a day."""
LOOK_BACK: Final = 5.0
"""Seconds that it looks back where nothing is said."""

NodeName = Annotated[str, Field(pattern=NAME_PATTERN)]


def _seconds(given: Any) -> Any:
    return given.total_seconds() if isinstance(given, timedelta) else given


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class Sleep:
    """Comes true so many seconds, or a timedelta, after all parents of the node have ended. Raises `TaskInvalid`."""

    sleep: Annotated[float, Field(gt=0, le=MAX_SLEEP, allow_inf_nan=False, strict=True), BeforeValidator(_seconds)]

    if TYPE_CHECKING:

        def __init__(self, sleep: float | timedelta) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, frozenset({"sleep"}))


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class OnEvent:
    """Comes true when an event of this key is published, of this `scope` if one is said.

    `scope_from` is an expression that gives the scope, over the variables of `When`: `input.order_id` waits for the
    events of one's own order.

    With an `expression`, over the event's payload as `input`, `event` and `metadata`, only when that is true. An event
    counts that came up to `look_back` seconds before: before the node's parents had ended in a `wait_for`, before the
    workflow was created elsewhere. Raises `TaskInvalid`.
    """

    event: EventPattern
    _: KW_ONLY
    scope: EventPattern | None = None
    scope_from: Expression | None = None
    expression: Expression | None = None
    look_back: Annotated[float, Field(ge=0, le=MAX_LOOK_BACK, allow_inf_nan=False, strict=True)] = LOOK_BACK

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, frozenset({"event", "scope", "scope_from", "expression", "look_back"}))

    @field_validator("event")
    @classmethod
    def _is_a_key(cls, key: str) -> str:
        if "*" in key:
            raise ValueError("A condition waits for one key; patterns with * are for on_events")
        return key

    @model_validator(mode="after")
    def _has_one_scope(self) -> Self:
        if self.scope is not None and self.scope_from is not None:
            raise ValueError("Give either scope, or scope_from, an expression that gives it")
        return self


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class When:
    """Is true, or not, once all parents of the node have ended: an expression over `input` and `parents`.

    `parents` has the output of each parent by its name, null of one that was skipped. Raises `TaskInvalid`.
    """

    expression: Expression

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, frozenset({"expression"}))


def _which(given: Any) -> str | None:
    if isinstance(given, Mapping):
        names = [name for name in ("any", "sleep", "event", "expression") if name in given]
        return names[0] if names else None
    return {Sleep: "sleep", OnEvent: "event", When: "expression", AnyOf: "any"}.get(type(given))


Condition = Annotated[
    Annotated[Sleep, Tag("sleep")] | Annotated[OnEvent, Tag("event")] | Annotated[When, Tag("expression")],
    Discriminator(
        _which,
        custom_error_type="condition",
        custom_error_message="Must be one of {sleep}, {event} or {expression}",
    ),
]


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class AnyOf:
    """Is true when one of its conditions is. Raises `TaskInvalid`."""

    any: Annotated[tuple[Condition, ...], Field(min_length=1, max_length=MAX_CONDITIONS)]

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, frozenset({"any"}))


Clause = Annotated[
    Annotated[Sleep, Tag("sleep")]
    | Annotated[OnEvent, Tag("event")]
    | Annotated[When, Tag("expression")]
    | Annotated[AnyOf, Tag("any")],
    Discriminator(
        _which,
        custom_error_type="condition",
        custom_error_message="Must be one of {sleep}, {event}, {expression} or {any}",
    ),
]
Clauses = Annotated[tuple[Clause, ...], Field(max_length=MAX_CONDITIONS)]
"""True when all of them are."""


def any_of(*conditions: "Sleep | OnEvent | When") -> AnyOf:
    """Return a condition that is true when one of these is. Raises `TaskInvalid`."""
    return AnyOf(conditions)


class GraphNode(Model):
    """A node: a task that is run, with the workflow's input, once all its parents have ended well.

    `task` is the node's name unless said. `input` is an expression that makes the task's input of the variables of
    `When`; without it, that is the workflow's.
    """

    name: NodeName
    task: NodeName | None = None
    parents: Annotated[tuple[NodeName, ...], Field(max_length=MAX_NODES)] = ()
    wait_for: Clauses = ()
    skip_if: Clauses = ()
    cancel_if: Clauses = ()
    input: Expression | None = None

    @property
    def runs(self) -> str:
        """Return the task that it runs."""
        return self.task or self.name

    @field_validator("parents")
    @classmethod
    def _parents_differ(cls, parents: tuple[str, ...]) -> tuple[str, ...]:
        again = twice(parents)
        if again:
            raise ValueError(f"The parent {again} is there twice; leave one out")
        return parents


class LastNode(Model):
    """A node that is run when all others have ended."""

    name: NodeName
    task: NodeName | None = None
    input: Expression | None = None

    @property
    def runs(self) -> str:
        """Return the task that it runs."""
        return self.task or self.name


class Graph(Model):
    """The nodes of a workflow, and the two that may follow: `on_failure` when one failed, `on_success` when all ended.

    What is no graph is refused: two nodes of a name, a parent that is not there, a circle, which is shown.
    """

    nodes: Annotated[tuple[GraphNode, ...], Field(min_length=1)]
    on_failure: LastNode | None = None
    on_success: LastNode | None = None

    @field_validator("nodes")
    @classmethod
    def _not_too_many(cls, nodes: tuple[GraphNode, ...]) -> tuple[GraphNode, ...]:
        if len(nodes) > MAX_NODES:
            raise ValueError(f"A workflow may have at most {MAX_NODES} nodes, not {len(nodes)}")
        return nodes

    @model_validator(mode="after")
    def _is_a_graph(self) -> Self:
        names = [node.name for node in self.nodes]
        names += [node.name for node in (self.on_failure, self.on_success) if node is not None]
        if len(set(names)) < len(names):
            raise ValueError(f"There are two nodes named {twice(names)}; give one another name")
        known = {node.name: node.parents for node in self.nodes}
        for node in self.nodes:
            for parent in node.parents:
                if parent not in known:
                    raise ValueError(
                        f"The node {node.name} has the parent {parent}, and there is no such node;"
                        f" the nodes are {', '.join(list(known)[:20])}"
                    )
        circle = circle_in(known)
        if circle:
            raise ValueError(f"The nodes wait for each other in a circle: {' -> '.join(circle)}; take one parent out")
        return self


N = TypeVar("N")


def circle_in(parents: Mapping[N, Sequence[N]]) -> list[N]:
    """Return a circle, from a node along its parents back to itself, or nothing where there is none."""
    done: set[N] = set()
    for start in parents:
        path: list[N] = []
        on_path: set[N] = set()
        stack: list[tuple[N, int]] = [(start, 0)]
        while stack:
            node, place = stack.pop()
            if place == 0:
                if node in on_path:
                    return [*path[path.index(node) :], node]
                if node in done:
                    continue
                path.append(node)
                on_path.add(node)
            if place < len(parents[node]):
                stack.append((node, place + 1))
                stack.append((parents[node][place], 0))
            else:
                done.add(node)
                on_path.discard(path.pop())
    return []

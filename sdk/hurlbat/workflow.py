"""Workflows: tasks made of others, which wait for each other and for what happens elsewhere."""

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar, Unpack, overload

from pydantic import ValidationError

from hurlbat.adapters import explain
from hurlbat.context import Context
from hurlbat.decorator import check_crons, declaration, name_of, terms_of
from hurlbat.errors import TaskInvalid
from hurlbat.graph import MAX_NODES, AnyOf, Graph, GraphNode, LastNode, OnEvent, Sleep, When, circle_in
from hurlbat.lineage import Callers
from hurlbat.options import NodeOptions, PlaceOptions, WayOptions, WorkflowOptions
from hurlbat.policy import TaskPolicy
from hurlbat.shape import Shape, shape_elsewhere
from hurlbat.task import Task
from hurlbat.terms import Terms

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
J = TypeVar("J")
O = TypeVar("O")  # noqa: E741 -- the output
P = ParamSpec("P")
"""The parameters after these: what `Depends` gives."""

_PLACED: Final = frozenset(PlaceOptions.__annotations__) | {"input"}
_BEFORE: Final = frozenset({"parents", "wait_for", "skip_if", "cancel_if"})
_CONDITIONS: Final = ("wait_for", "skip_if", "cancel_if")
_OF_WORKFLOWS: Final = frozenset(WorkflowOptions.__annotations__)
_NOT_OF_NODES: Final = frozenset({*WayOptions.__annotations__, "batch_size", "batch_timeout", "batch_key"})

NODES: Final = "nodes"
ON_FAILURE: Final = "on_failure"
ON_SUCCESS: Final = "on_success"


class Node(Task[I, O]):
    """A node of a workflow, made by `@workflow.task` or `workflow.add`.

    It is the task that it runs, too: `run` and its kin run that alone, without the workflow.
    """

    def __init__(self, workflow: str, said: GraphNode | LastNode, task: Task[I, O]) -> None:
        super().__init__(task.function, task.terms, task.shape, task.callers)
        self.workflow = workflow
        self.said = said

    @property
    def node(self) -> str:
        """What it is called in its workflow."""
        return self.said.name

    def read(self, output: Any) -> O:
        """Return an output, a JSON value, by the task's type. Raises `PayloadError`."""
        form = self.shape.output_form
        read: O = output if form is None else form.read(output, what=f"output of {self.node}")
        return read

    def __repr__(self) -> str:
        return f"Node({self.workflow!r}, {self.node!r})"


class Workflow(Task[I, dict[str, Any]]):
    """A task made of nodes, which are run once all their parents have ended well; made by `Hurlbat.workflow`.

    It is called as any task. Its output has those of the nodes that are nobody's parent, by their names.
    """

    def __init__(
        self,
        terms: Terms,
        shape: Shape,
        callers: Callers,
        declare: Callable[[Task[Any, Any]], None],
        changed: Callable[[], None],
    ) -> None:
        def workflow(*_: Any, **__: Any) -> Any:
            raise TaskInvalid(f"workflow {terms.name} has no function of its own; have it run, e.g. by run()")

        super().__init__(workflow, terms, shape, callers)
        self.__doc__ = type(self).__doc__
        self._declare = declare
        self._changed = changed
        self._nodes: dict[str, GraphNode] = {}
        self._last: dict[str, LastNode] = {}
        self._expected: set[str] = set()
        self._inner: list[Workflow[Any]] = []
        self.task: NodeDecorator[I] = NodeDecorator(self, NODES)
        self.on_failure: NodeDecorator[I] = NodeDecorator(self, ON_FAILURE)
        self.on_success: NodeDecorator[I] = NodeDecorator(self, ON_SUCCESS)

    @overload
    def add(
        self, task: "Task[J, O]", /, *, input: str | None = None, **place: Unpack[PlaceOptions]
    ) -> "Node[J, O]": ...
    @overload
    def add(self, task: str, /, *, input: str | None = None, **place: Unpack[PlaceOptions]) -> "Node[Any, Any]": ...
    def add(
        self, task: "Task[Any, Any] | str", /, *, input: str | None = None, **place: Unpack[PlaceOptions]
    ) -> "Node[Any, Any]":
        """Add a node that runs a task of this app, or of another service by a stub or its name, or a workflow.

        `input` is an expression over `input`, `parents`, `metadata` and `run` that makes the task's input; without it
        that is the workflow's. Raises `TaskInvalid`.
        """
        if isinstance(task, str):
            terms = Terms(f"workflow {self.name}: task {task!r}", {"name": task}, "task")
            task = Task(self.function, terms, shape_elsewhere(task, Any, Any), self.callers)
        return self._place(NODES, task, {"input": input, **place})

    def _place(self, where: str, task: Callable[..., Any], options: Mapping[str, Any]) -> Node[Any, Any]:
        """Add a node for a task, or for a function that becomes one. Raises `TaskInvalid`, and nothing was added."""
        given = {name: value for name, value in options.items() if value is not None}
        name = given.pop("name", None)
        if name is None:
            name = task.name if isinstance(task, Task) else name_of(task)
        what = f"workflow {self.name}: node {name}"
        place = {option: given.pop(option) for option in _PLACED & given.keys()}
        misplaced = given.keys() & _NOT_OF_NODES
        if misplaced:
            raise TaskInvalid(
                f"{what}: it starts with its workflow and with each of its runs, so {min(misplaced)} is not for it; "
                f"say that of the workflow, or of a task that it adds"
            )
        if isinstance(task, Workflow) and (circle := task.path_to(self)):
            raise endless([self.name, *circle])
        if isinstance(task, Task):
            if given:
                raise TaskInvalid(f"{what}: {task.name} is a task already; say its {min(given)} where it is declared")
            runs = task.name
        else:
            runs = f"{self.name}.{name}"
        said = self._said(where, what, name, runs, place)
        self._check(where, what, said)
        if not isinstance(task, Task):
            task = Task(task, *declaration(task, {**given, "name": runs}), self.callers)
            self._declare(task)
        elif isinstance(task, Workflow):
            self._inner.append(task)
        node = Node[Any, Any](self.name, said, task)
        if isinstance(said, GraphNode):
            self._nodes[said.name] = said
            self._expected.update(said.parents)
        else:
            self._last[where] = said
        self._changed()
        return node

    @property
    def graph(self) -> Graph:
        """The nodes. Raises `TaskInvalid` where they make no graph, e.g. for want of one that another has as parent."""
        if not self._nodes:
            raise TaskInvalid(f"workflow {self.name} has no nodes; add one by @{self.name}.task or {self.name}.add(…)")
        try:
            return Graph(nodes=tuple(self._nodes.values()), **self._last)
        except ValidationError as error:
            raise TaskInvalid(f"workflow {self.name}: {explain(error, 'graph')}") from error

    def path_to(self, other: "Workflow[Any]") -> list[str]:
        """Return the workflows from this one to one that is this or somewhere within it, or nothing."""
        if other is self:
            return [self.name]
        return next(([self.name, *path] for inner in self._inner if (path := inner.path_to(other))), [])

    def declared(self) -> TaskPolicy:
        """Return the policy with the graph and the schemas, as it stands in the manifest. Raises `TaskInvalid`."""
        return super().declared().model_copy(update={"graph": self.graph})

    @property
    def text(self) -> str:
        """Tells what the manifest has of it. Raises `TaskInvalid`."""
        return f"{super().text} {self.graph.model_dump_json()}"

    def __repr__(self) -> str:
        return f"Workflow({self.name!r})"

    def _said(self, where: str, what: str, name: str, task: str, place: dict[str, Any]) -> GraphNode | LastNode:
        if where != NODES and place.keys() & _BEFORE:
            raise TaskInvalid(f"{what}: {where} comes after all nodes and has no {min(place.keys() & _BEFORE)}")
        if "parents" in place:
            place["parents"] = self._parents(what, place["parents"])
        for list_ in _CONDITIONS:
            if isinstance(place.get(list_), Sleep | OnEvent | When | AnyOf | Mapping):
                place[list_] = (place[list_],)
        try:
            return (GraphNode if where == NODES else LastNode)(name=name, task=task, **place)
        except ValidationError as error:
            raise TaskInvalid(f"{what}: {explain(error, 'node')}") from error

    def _parents(self, what: str, given: Any) -> tuple[str, ...]:
        listed = (given,) if isinstance(given, str | Task) or not isinstance(given, Iterable) else tuple(given)
        names = []
        for parent in listed:
            if isinstance(parent, str):
                names.append(parent)
            elif not isinstance(parent, Node):
                raise TaskInvalid(
                    f"{what}: a parent is a node, as @{self.name}.task and {self.name}.add(…) return it, or its name, "
                    f"and not {parent!r}"
                )
            elif parent.workflow != self.name:
                raise TaskInvalid(f"{what}: its parent {parent.node} is a node of workflow {parent.workflow}")
            else:
                names.append(parent.node)
        return tuple(names)

    def _check(self, where: str, what: str, said: GraphNode | LastNode) -> None:
        if where in self._last:
            raise TaskInvalid(f"{what}: workflow {self.name} has {where} already: {self._last[where].name}")
        if said.name in self._nodes or said.name in [last.name for last in self._last.values()]:
            raise TaskInvalid(f"workflow {self.name}: there are two nodes named {said.name}; give one another name")
        if not isinstance(said, GraphNode):
            return
        if len(self._nodes) >= MAX_NODES:
            raise TaskInvalid(f"{what}: a workflow may have at most {MAX_NODES} nodes")
        if said.name in self._expected or said.name in said.parents:
            nodes = {**self._nodes, said.name: said}
            circle = circle_in({name: [p for p in node.parents if p in nodes] for name, node in nodes.items()})
            if circle:
                raise TaskInvalid(
                    f"{what}: the nodes wait for each other in a circle: {' -> '.join(circle)}; take one parent out"
                )


@dataclass(frozen=True)
class NodeDecorator(Generic[I]):
    """Makes nodes: `@workflow.task`, or with options `@workflow.task(parents=[charge], retries=3)`.

    The function takes the workflow's input and a `Context`, or one of them, or nothing, and is declared as a task
    `<workflow>.<name>` of this app. A task will do in its place. Raises `TaskInvalid` with what is wrong.
    """

    workflow: Workflow[Any]
    where: str
    options: tuple[tuple[str, Any], ...] = ()

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a task is also a function; the first that fits is meant
        self, task: Task[J, O], /
    ) -> Node[J, O]: ...
    @overload
    def __call__(self, function: Callable[[], Coroutine[Any, Any, O]], /) -> Node[None, O]: ...
    @overload
    def __call__(self, function: Callable[[Context], Coroutine[Any, Any, O]], /) -> Node[None, O]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine is also an O
        self, function: Callable[Concatenate[I, P], Coroutine[Any, Any, O]], /
    ) -> Node[I, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, I, P], Coroutine[Any, Any, O]], /) -> Node[I, O]: ...
    @overload
    def __call__(self, function: Callable[[], O], /) -> Node[None, O]: ...
    @overload
    def __call__(self, function: Callable[[Context], O], /) -> Node[None, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[I, P], O], /) -> Node[I, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, I, P], O], /) -> Node[I, O]: ...
    @overload
    def __call__(self, /, *, input: str, **options: Unpack[NodeOptions]) -> "NodeDecorator[Any]": ...
    @overload
    def __call__(self, /, **options: Unpack[NodeOptions]) -> "NodeDecorator[I]": ...
    def __call__(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a node of a function or a task, or take its options and return the decorator for it."""
        if function is None:
            return NodeDecorator(self.workflow, self.where, self.options + tuple(options.items()))
        if isinstance(function, type) or not callable(function):
            name = f"@{self.workflow.name}.{'task' if self.where == NODES else self.where}"
            raise TaskInvalid(f"{name} is for functions and tasks, not for {function!r}; a name is given by name=…")
        return self.workflow._place(self.where, function, {**dict(self.options), **options})


def endless(circle: Sequence[str]) -> TaskInvalid:
    """Return what is wrong with workflows that are nodes of each other."""
    return TaskInvalid(
        f"workflow {circle[0]} would run itself without end: {' -> '.join(circle)}; take one of the nodes out"
    )


def check_nesting(workflows: Mapping[str, Workflow[Any]]) -> None:
    """Raise `TaskInvalid` where a workflow is, by the names of its nodes' tasks, somewhere within itself."""
    graphs = {name: workflow.graph for name, workflow in workflows.items()}
    within = {
        name: [
            node.runs
            for node in (*graph.nodes, graph.on_failure, graph.on_success)
            if node is not None and node.runs in workflows
        ]
        for name, graph in graphs.items()
    }
    circle = circle_in(within)
    if circle:
        raise endless(circle)


def workflow_of(
    name: str,
    input: Any,
    options: Mapping[str, Any],
    callers: Callers,
    declare: Callable[[Task[Any, Any]], None],
    changed: Callable[[], None],
) -> Workflow[Any]:
    """Return a workflow without nodes. `declare` takes a node's task, `changed` hears of each. Raises `TaskInvalid`."""
    what = f"workflow {name}"
    of_workers = (options.keys() - _OF_WORKFLOWS) & TaskPolicy.model_fields.keys()
    if of_workers:
        raise TaskInvalid(f"{what} runs on no worker and has no {min(of_workers)}; say that of its nodes")
    terms = terms_of(what, {**options, "name": name})
    elsewhere = shape_elsewhere(name, input, dict[str, Any])
    shape = elsewhere if input is not None else Shape(name, (), None, None, None, dict[str, Any], is_async=True)
    check_crons(what, terms, shape)
    return Workflow(terms, shape, callers, declare, changed)

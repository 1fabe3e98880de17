"""`@hurlbat.task`: turn a function into a task, with the types of its input and output known to callers."""

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, Unpack, overload

from hurlbat.context import Context
from hurlbat.errors import TaskInvalid
from hurlbat.lineage import Callers
from hurlbat.options import TaskOptions
from hurlbat.shape import Shape, shape_of
from hurlbat.task import Task
from hurlbat.terms import Terms

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
O = TypeVar("O")  # noqa: E741 -- the output
P = ParamSpec("P")
"""The parameters after these: what `Depends` gives, which no caller sees."""


@dataclass(frozen=True)
class TaskDecorator:
    """Declares tasks: `@hurlbat.task`, or with a policy `@hurlbat.task(retries=3)`. Durations are in seconds.

    The function takes at most one input, by whatever name, and at most one `Context`, in any order, and what `Depends`
    gives. It may be async, or sync, which runs in a thread. Raises `TaskInvalid` with what is wrong, where the task is
    declared.

    Type checkers cannot see which parameters are given by `Depends`: they take the first that is no `Context` for the
    input. In a task without one, what is given stands by name only (`*, db: Annotated[…]`) or has `Depends` as default.
    """

    callers: Callers
    declare: Callable[[Task[Any, Any]], None]
    policy: tuple[tuple[str, Any], ...] = ()

    @overload
    def __call__(self, function: Callable[[], Coroutine[Any, Any, O]], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[[Context], Coroutine[Any, Any, O]], /) -> Task[None, O]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a Context could be an I; the first that fits is meant
        self, function: Callable[Concatenate[Context, I, P], Coroutine[Any, Any, O]], /
    ) -> Task[I, O]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]  # it is, by what P names
        self, function: Callable[Concatenate[Context, P], Coroutine[Any, Any, O]], /
    ) -> Task[None, O]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine is also an O
        self, function: Callable[Concatenate[I, P], Coroutine[Any, Any, O]], /
    ) -> Task[I, O]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, function: Callable[P, Coroutine[Any, Any, O]], /
    ) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[[], O], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[[Context], O], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, I, P], O], /) -> Task[I, O]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, function: Callable[Concatenate[Context, P], O], /
    ) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[I, P], O], /) -> Task[I, O]: ...
    @overload
    def __call__(  # type: ignore[overload-cannot-match]
        self, function: Callable[P, O], /
    ) -> Task[None, O]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        batch_size: int,
        batch_timeout: float = 10.0,
        batch_key: str | None = None,
        **policy: Unpack[TaskOptions],
    ) -> "BatchDecorator": ...
    @overload
    def __call__(self, /, **policy: Unpack[TaskOptions]) -> "TaskDecorator": ...
    def __call__(self, function: Callable[..., Any] | None = None, /, **policy: Any) -> Any:
        """Declare a function as a task, or take its policy and return the decorator for it."""
        if function is None:
            return TaskDecorator(self.callers, self.declare, self.policy + tuple(policy.items()))
        if isinstance(function, Task):
            raise TaskInvalid(f"{function!r} is a task already")
        if isinstance(function, type | str):
            raise TaskInvalid(f"@task is for functions, not for {function!r}; a name is given by task(name=…)")
        task: Task[Any, Any] = Task(function, *declaration(function, dict(self.policy)), self.callers)
        self.declare(task)
        return task


class BatchDecorator(Protocol):
    """The decorator of a task with a `batch_size`: the function takes a list, and callers give one item of it."""

    @overload
    def __call__(self, function: Callable[Concatenate[list[I], P], Coroutine[Any, Any, O]], /) -> Task[I, O]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Context, list[I], P], Coroutine[Any, Any, O]], /
    ) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[list[I], P], O], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, list[I], P], O], /) -> Task[I, O]: ...


def declaration(function: Callable[..., Any], options: Mapping[str, Any]) -> tuple[Terms, Shape]:
    """Return what a function and the options of its task say. Raises `TaskInvalid`."""
    name = options.get("name")
    name = name_of(function) if name is None else name
    what = f"task {name}"
    terms = terms_of(what, {**options, "name": name})
    shape = shape_of(function, terms.name, gathers=terms.gathers)
    check_crons(what, terms, shape)
    return terms, shape


def terms_of(what: str, options: Mapping[str, Any]) -> Terms:
    """Return what options say. `what` it is begins the sentence of a `TaskInvalid`."""
    follows = options.get("on_failure")
    return Terms(what, {**options, "on_failure": follows.name} if isinstance(follows, Task) else options)


def check_crons(what: str, terms: Terms, shape: Shape) -> None:
    """Raise `TaskInvalid` for a cron that is none, and for one of which every run would fail on its input."""
    if terms.has_crons:
        from hurlbat.making import check_crons as check

        check(what, terms.policy, shape)


def name_of(function: Callable[..., Any]) -> str:
    """Return what a function is called."""
    return str(getattr(function, "__name__", type(function).__name__))

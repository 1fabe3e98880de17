"""`@hurlbat.task`: turn a function into a task, with the types of its input and output known to callers."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, overload

from pydantic import ValidationError

from hurlbat.context import Context
from hurlbat.errors import TaskInvalid
from hurlbat.lineage import Callers
from hurlbat.payloads import explain
from hurlbat.policy import Backoff, Concurrency, LabelWish, RateLimit, TaskPolicy, WantedLabel
from hurlbat.shape import shape_of
from hurlbat.task import Task

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
O = TypeVar("O")  # noqa: E741 -- the output

_LISTS: Final[Mapping[str, type]] = {"concurrency": Concurrency, "rate_limits": RateLimit}
"""Where a single one may stand for a list of one."""


@dataclass(frozen=True)
class TaskDecorator:
    """Declares tasks: `@hurlbat.task`, or with a policy `@hurlbat.task(retries=3)`. Durations are in seconds.

    The function takes at most one input, by whatever name, and at most one `Context`, in any order. It may be async, or
    sync, which runs in a thread. Raises `TaskInvalid` with what is wrong, where the task is declared.
    """

    callers: Callers
    declare: Callable[[Task[Any, Any]], None]
    policy: tuple[tuple[str, Any], ...] = ()

    @overload
    def __call__(self, function: Callable[[], Coroutine[Any, Any, O]], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[[Context], Coroutine[Any, Any, O]], /) -> Task[None, O]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # a coroutine is also an O; the first that fits is meant
        self, function: Callable[[I], Coroutine[Any, Any, O]], /
    ) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[I, Context], Coroutine[Any, Any, O]], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[Context, I], Coroutine[Any, Any, O]], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[], O], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[[Context], O], /) -> Task[None, O]: ...
    @overload
    def __call__(self, function: Callable[[I], O], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[I, Context], O], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[Context, I], O], /) -> Task[I, O]: ...
    @overload
    def __call__(
        self,
        /,
        *,
        name: str | None = None,
        retries: int = 0,
        backoff: Backoff | None = None,
        execution_timeout: float = 300.0,
        schedule_timeout: float | None = None,
        priority: int = 2,
        concurrency: Concurrency | Sequence[Concurrency] = (),
        rate_limits: RateLimit | Sequence[RateLimit] = (),
        slot_cost: int = 1,
        labels: Mapping[str, str | WantedLabel | LabelWish] | None = None,
        sticky: Literal["soft", "hard"] | None = None,
    ) -> "TaskDecorator": ...
    def __call__(self, function: Callable[..., Any] | None = None, /, **policy: Any) -> Any:
        """Declare a function as a task, or take its policy and return the decorator for it."""
        if function is None:
            return TaskDecorator(self.callers, self.declare, self.policy + tuple(policy.items()))
        if isinstance(function, type | str):
            raise TaskInvalid(f"@task is for functions, not for {function!r}; a name is given by task(name=…)")
        task: Task[Any, Any] = Task(function, *_declaration(function, dict(self.policy)), self.callers)
        self.declare(task)
        return task


def _declaration(function: Callable[..., Any], policy: dict[str, Any]) -> tuple[TaskPolicy, Any]:
    given = {name: value for name, value in policy.items() if value is not None}
    name = given.setdefault("name", getattr(function, "__name__", type(function).__name__))
    unknown = given.keys() - (TaskPolicy.model_fields.keys() - {"input_schema", "output_schema"})
    if unknown:
        raise TaskInvalid(f"task {name}: there is no policy called {', '.join(sorted(unknown))}")
    for listed, single in _LISTS.items():
        if isinstance(given.get(listed), single):
            given[listed] = (given[listed],)
    try:
        return TaskPolicy(**given), shape_of(function, str(name))
    except ValidationError as error:
        raise TaskInvalid(f"task {name}: {explain(error, 'policy')}") from error

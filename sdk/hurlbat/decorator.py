"""`@hurlbat.task`: turn a function into a task, with the types of its input and output known to callers."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

from pydantic import ValidationError

from hurlbat.context import Context
from hurlbat.errors import PayloadError, TaskInvalid
from hurlbat.lineage import Callers
from hurlbat.payloads import encode, explain
from hurlbat.policy import Backoff, Concurrency, LabelWish, RateLimit, TaskPolicy, WantedLabel
from hurlbat.shape import Shape, shape_of
from hurlbat.task import Task
from hurlbat.triggers import Cron, Debounce, Filter, Throttle

I = TypeVar("I")  # noqa: E741 -- the input, as in Task[I, O]
O = TypeVar("O")  # noqa: E741 -- the output

_LISTS: Final[Mapping[str, tuple[type, ...]]] = {
    "concurrency": (Concurrency,),
    "rate_limits": (RateLimit,),
    "on_events": (str,),
    "filters": (Filter, dict),
    "crons": (Cron, str, dict),
}
"""Where a single one may stand for a list of one."""

Given = Mapping[str, Any]
"""A part of a policy as a dict, as JSON has it."""


class TaskOptions(TypedDict, total=False):
    """What may be said of a task, besides how its inputs are gathered in batches. Durations are in seconds."""

    name: str | None
    """What runs are submitted by; the function's name."""
    retries: int
    """So many more starts after the first that failed; 0."""
    backoff: Backoff | None
    """How long to wait between them."""
    execution_timeout: float
    """From the start of the function; 300."""
    schedule_timeout: float | None
    """From when a run is due to its start; off."""
    priority: int
    """Higher goes first; 2."""
    concurrency: Concurrency | Sequence[Concurrency]
    """How many runs at a time, for each value of a key."""
    rate_limits: RateLimit | Sequence[RateLimit]
    """What a run draws on."""
    slot_cost: int
    """How many slots of its worker an attempt takes; 1."""
    labels: Mapping[str, str | WantedLabel | LabelWish] | None
    """Which workers it wants."""
    sticky: Literal["soft", "hard"] | None
    """Whether it wants the worker that last had the run's parent."""
    on_events: str | Sequence[str]
    """Keys of events that start a run, or patterns with `*`."""
    filters: Filter | Given | Sequence[Filter | Given]
    """Which of these events do: a run for each filter that is true."""
    crons: str | Cron | Given | Sequence[str | Cron | Given]
    """At which times a run is made."""
    debounce: Debounce | Given | None
    """Lets one run stand for submits that follow each other closely."""
    throttle: Throttle | Given | None
    """How many runs start in any period."""
    on_failure: str | Task[Any, Any] | None
    """The task that is run when a run has finally failed."""


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
        task: Task[Any, Any] = Task(function, *_declaration(function, dict(self.policy)), self.callers)
        self.declare(task)
        return task


class BatchDecorator(Protocol):
    """The decorator of a task with a `batch_size`: the function takes a list, and callers give one item of it."""

    @overload
    def __call__(self, function: Callable[[list[I]], Coroutine[Any, Any, O]], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[list[I], Context], Coroutine[Any, Any, O]], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[Context, list[I]], Coroutine[Any, Any, O]], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[list[I]], O], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[list[I], Context], O], /) -> Task[I, O]: ...
    @overload
    def __call__(self, function: Callable[[Context, list[I]], O], /) -> Task[I, O]: ...


def _declaration(function: Callable[..., Any], policy: dict[str, Any]) -> tuple[TaskPolicy, Shape]:
    given = {name: value for name, value in policy.items() if value is not None}
    name = given.setdefault("name", getattr(function, "__name__", type(function).__name__))
    unknown = given.keys() - (TaskPolicy.model_fields.keys() - {"input_schema", "output_schema"})
    if unknown:
        raise TaskInvalid(f"task {name}: there is no policy called {', '.join(sorted(unknown))}")
    for listed, singles in _LISTS.items():
        if isinstance(given.get(listed), singles):
            given[listed] = (given[listed],)
    if isinstance(given.get("crons"), list | tuple):
        given["crons"] = [{"expression": cron} if isinstance(cron, str) else cron for cron in given["crons"]]
    if isinstance(given.get("on_failure"), Task):
        given["on_failure"] = given["on_failure"].name
    try:
        declared = TaskPolicy(**given)
    except ValidationError as error:
        raise TaskInvalid(f"task {name}: {explain(error, 'policy')}") from error
    shape = shape_of(function, str(name), gathers=declared.batch_size is not None)
    for place, cron in enumerate(declared.crons):
        if not cron.expression.startswith("@") and len(cron.expression.split()) not in (5, 6):
            raise TaskInvalid(
                f"task {name}: policy.crons.{place}.expression: {cron.expression!r} is no crontab line; that has "
                "5 fields (minute hour day-of-month month day-of-week), or 6 with seconds first, or is e.g. @daily"
            )
        try:
            shape.check_input(encode(cron.input, what="input"))
        except PayloadError as error:
            said = f"task {name}: policy.crons.{place}.input is none that the task takes: {error}"
            raise TaskInvalid(said) from error
    return declared, shape

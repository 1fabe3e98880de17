"""A task's policy and a worker's manifest, as both ends say them in JSON.

The models are strict: an unknown member is an error that names it. Only `Manifest.read` passes over what it does not
know, as a worker may be of a newer version than its server.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Required, Self, TypedDict

from pydantic import Field, PlainValidator, ValidationInfo, WrapValidator, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import to_json

from hurlbat.limits import BATCH_SIZE, MAX_EXPRESSION, MAX_TASKS, PRIORITY, RETRIES, SLOT_COST, YEAR, Sticky
from hurlbat.models import CONFIG, LENIENT, Model, known_only, made_by_hand, twice
from hurlbat.triggers import Cron, Debounce, EventPattern, Expression, Filter, Period, Throttle
from hurlbat.wire import MAX_BATCH, NAME_PATTERN, PROTOCOL_VERSION

if TYPE_CHECKING:
    from hurlbat.graph import Graph

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False, strict=True)]
"""A duration in seconds, up to a year."""

MAX_UNITS: Final = 1_000_000
MAX_LIMIT: Final = 1_000_000_000
MIN_DURATION: Final = 0.01
MAX_DURATION: Final = 31_622_400.0
"""Seconds: 366 days."""

Strategy = Literal["GROUP_ROUND_ROBIN", "CANCEL_IN_PROGRESS", "CANCEL_NEWEST", "QUEUE_NEWEST_ONLY", "QUEUE_OLDEST_ONLY"]
"""What happens to a run that finds its concurrency group full."""


_OR_EXPRESSION: Final = f", or an expression of 1 to {MAX_EXPRESSION} characters"


def _is_expression(given: object) -> bool:
    return isinstance(given, str) and 1 <= len(given) <= MAX_EXPRESSION


def _whole(most: int) -> Callable[[Any], int | str]:
    def check(given: Any) -> int | str:
        if _is_expression(given) or (type(given) is int and 1 <= given <= most):
            number_or_text: int | str = given
            return number_or_text
        raise ValueError(f"Must be a whole number from 1 to {most}{_OR_EXPRESSION}")

    return check


def _duration(given: Any) -> float | str:
    if _is_expression(given):
        text: str = given
        return text
    if type(given) in (int, float) and MIN_DURATION <= given <= MAX_DURATION:
        return float(given)
    raise ValueError(f"Must be a number of seconds from {MIN_DURATION:g} to {MAX_DURATION:.0f}{_OR_EXPRESSION}")


# numbers or expressions; checked as one, so that what is wrong is told in one sentence
Units = Annotated[int | str, PlainValidator(_whole(MAX_UNITS))]
Limit = Annotated[int | str, PlainValidator(_whole(MAX_LIMIT))]
Duration = Annotated[float | str, PlainValidator(_duration)]

LOW, MEDIUM, HIGH = 1, 2, 3
"""Priorities; any integer between -1000 and 1000 will do, higher goes first."""


class Backoff(Model):
    """How long a failed attempt waits before the next one, in seconds.

    `exponential`: initial × factor^(n-1), at most `max`; `fixed`: always `initial`; `list`: the n-th of `delays`,
    then the last. With `jitter` the wait is drawn evenly from half of it to all of it.
    """

    strategy: Literal["exponential", "fixed", "list"] = "exponential"
    initial: Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)] = 1.0
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    max: Annotated[float, Field(ge=0, le=YEAR, allow_inf_nan=False)] = 300.0
    delays: Annotated[tuple[Annotated[float, Field(ge=0, le=YEAR)], ...], Field(max_length=100)] = ()
    jitter: bool = True

    @model_validator(mode="after")
    def _list_has_delays(self) -> Self:
        if self.strategy == "list" and not self.delays:
            raise ValueError('strategy "list" needs at least one of delays')
        return self


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class Concurrency:
    """At most `max_runs` runs at a time for each value of `key`, an expression over `input`, `metadata` and `run`.

    Rules of the same `name` share their groups, across tasks. `strategy` is what happens to a run that finds its group
    full. Raises `TaskInvalid`.
    """

    key: Expression
    _: KW_ONLY
    max_runs: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1
    strategy: Strategy = "GROUP_ROUND_ROBIN"
    name: Name | None = None

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, _CONCURRENCY)


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class RateLimit:
    """Units that a run takes of a rate limit.

    `key` names a static one, whose limit was put beforehand. `dynamic_key` is an expression, and then `limit` and
    `duration` (seconds) are given here; both and `units` may be expressions too. Raises `TaskInvalid`.
    """

    key: Name | None = None
    _: KW_ONLY
    dynamic_key: Expression | None = None
    units: Units = 1
    limit: Limit | None = None
    duration: Duration | None = None

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, _RATE_LIMIT)

    @model_validator(mode="after")
    def _is_static_or_dynamic(self) -> Self:
        if (self.key is None) == (self.dynamic_key is None):
            raise ValueError("Give either key, the name of a static limit, or dynamic_key, an expression")
        if self.key is not None and not (self.limit is None and self.duration is None):
            raise ValueError(
                f"The limit of a static key is put beforehand (PUT /rate-limits/{self.key}); "
                "limit and duration belong to a dynamic_key"
            )
        if self.key is not None and self.key.startswith(("input.", "metadata.", "run.")):
            raise ValueError(f"{self.key} looks like an expression; give it as dynamic_key, with limit and duration")
        if self.dynamic_key is not None and (self.limit is None or self.duration is None):
            raise ValueError("A dynamic_key needs limit and duration")
        if isinstance(self.units, int) and isinstance(self.limit, int) and self.units > self.limit:
            raise ValueError(f"It takes {self.units} units of a limit of {self.limit}; no run could ever start")
        return self


_CONCURRENCY: Final = frozenset({"key", "max_runs", "strategy", "name"})
_RATE_LIMIT: Final = frozenset({"key", "dynamic_key", "units", "limit", "duration"})


class WantedLabel(Model):
    """What a task wants of a label of its worker: required, or preferred by its weight."""

    value: Annotated[str, Field(max_length=256)]
    required: bool = True
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


class LabelWish(TypedDict, total=False):
    """A `WantedLabel` as a dict: `{"value": "a100", "required": False, "weight": 10}`."""

    value: Required[str]
    required: bool
    weight: int


def _label(given: Any, _: object, info: ValidationInfo) -> str | WantedLabel:
    """Read both forms as one, so that what is wrong is told at its place and not once for each form."""
    wanted = WantedLabel.model_validate({"value": given} if isinstance(given, str) else given, context=info.context)
    return wanted.value if isinstance(given, str) else wanted


def _graph(given: Any, info: ValidationInfo) -> "Graph | None":
    """Read a graph; only here is it imported, as its models take time to make and most apps have none."""
    if given is None:
        return None
    from hurlbat.graph import Graph

    return Graph.model_validate(given, context=info.context)


if TYPE_CHECKING:
    OptionalGraph = Graph | None
else:
    OptionalGraph = Annotated[Any, PlainValidator(_graph)]


OF_WORKERS: Final = (
    "retries",
    "backoff",
    "execution_timeout",
    "slot_cost",
    "labels",
    "sticky",
    "batch_size",
    "on_failure",
)
"""Members that say how attempts are made, of which a workflow has none."""


class TaskPolicy(Model):
    """What a worker declares of one task. Only `name` is required; durations are in seconds, None is off.

    With a `graph` it is a workflow: its runs are made of those of its nodes.
    """

    name: Name
    retries: Annotated[int, Field(ge=RETRIES.least, le=RETRIES.most)] = 0
    backoff: Backoff = Backoff()
    execution_timeout: Seconds = 300.0
    schedule_timeout: Seconds | None = None
    priority: Annotated[int, Field(ge=PRIORITY.least, le=PRIORITY.most, strict=True)] = 2
    slot_cost: Annotated[int, Field(ge=SLOT_COST.least, le=SLOT_COST.most, strict=True)] = 1
    labels: dict[
        Annotated[str, Field(min_length=1, max_length=256)],
        Annotated[str | WantedLabel, WrapValidator(_label)],
    ] = Field(default_factory=dict, max_length=16)
    sticky: Sticky | None = None
    concurrency: Annotated[tuple[Concurrency, ...], Field(max_length=8)] = ()
    rate_limits: Annotated[tuple[RateLimit, ...], Field(max_length=8)] = ()
    throttle: Throttle | None = None
    on_events: Annotated[tuple[EventPattern, ...], Field(max_length=32)] = ()
    filters: Annotated[tuple[Filter, ...], Field(max_length=16)] = ()
    crons: Annotated[tuple[Cron, ...], Field(max_length=16)] = ()
    debounce: Debounce | None = None
    batch_size: Annotated[int, Field(ge=BATCH_SIZE.least, le=BATCH_SIZE.most, strict=True)] | None = None
    batch_timeout: Period | None = None
    batch_key: Expression | None = None
    on_failure: Name | None = None
    graph: OptionalGraph = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None

    @field_validator("concurrency")
    @classmethod
    def _rules_differ(cls, rules: tuple[Concurrency, ...]) -> tuple[Concurrency, ...]:
        again = twice(f"named {rule.name}" if rule.name else f"with the key {rule.key}" for rule in rules)
        if again:
            raise ValueError(f"There are two rules {again}; leave one out, or give it a name of its own")
        return rules

    @field_validator("rate_limits")
    @classmethod
    def _limits_differ(cls, limits: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
        again = twice(limit.key for limit in limits if limit.key is not None)
        if again:
            raise ValueError(f"The rate limit {again} is there twice; add up the units")
        return limits

    @field_validator("on_events")
    @classmethod
    def _events_differ(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        again = twice(patterns)
        if again:
            raise ValueError(f"The event {again} is there twice; leave one out")
        return patterns

    @field_validator("filters")
    @classmethod
    def _filters_differ(cls, filters: tuple[Filter, ...]) -> tuple[Filter, ...]:
        if twice(to_json(one).decode() for one in filters):
            raise ValueError("Two filters are the same; leave one out")
        return filters

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.filters and not self.on_events:
            raise ValueError("filters choose among events; say in on_events which")
        if self.batch_size is None and (self.batch_timeout is not None or self.batch_key is not None):
            raise ValueError("batch_timeout and batch_key need a batch_size of 2 to 1000")
        if self.batch_size is not None and self.debounce is not None:
            raise ValueError(
                "debounce keeps one of many inputs and batch_size gathers them all: a task can have one of them"
            )
        if self.on_failure == self.name:
            raise ValueError("on_failure cannot be the task itself; name another one")
        if self.graph is not None:
            said = [
                name
                for name in OF_WORKERS
                if getattr(self, name) != type(self).model_fields[name].get_default(call_default_factory=True)
            ]
            if said:
                raise ValueError(
                    f"A workflow runs on no worker and has no {', '.join(said)}; say this of the tasks of its nodes"
                    + ("; what follows a failure is graph.on_failure" if "on_failure" in said else "")
                )
        return self


class Manifest(Model):
    """The answer to `describe`: what a worker serves. `version` is the digest that its answers carry as their mark."""

    protocol: Literal[1] = PROTOCOL_VERSION
    sdk: Annotated[str, Field(max_length=128)] = ""
    max_batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = MAX_BATCH
    tasks: Annotated[tuple[TaskPolicy, ...], Field(max_length=MAX_TASKS)] = ()
    version: Annotated[str, Field(max_length=64)] = ""
    streams: bool = True
    """Whether answers to deliveries begin before their runs have ended."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        again = twice(task.name for task in self.tasks)
        if again:
            raise ValueError(f"task {again} is declared twice")
        return self

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read a worker's answer to `describe` without what only a newer version knows. Raises `ValidationError`."""
        return cls.model_validate_json(text, context=LENIENT)

    def answered(self, *, streams: bool, max_batch: int, version: str) -> Self:
        """Return this manifest as a worker that answers in this manner says it, with its own version."""
        return self.model_copy(update={"streams": streams, "max_batch": max_batch, "version": version})

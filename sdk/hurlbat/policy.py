"""A task's policy and a worker's manifest, as both ends say them in JSON.

The models are strict: an unknown member is an error that names it. Only `Manifest.read` passes over what it does not
know, as a worker may be of a newer version than its server.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from functools import wraps
from typing import Annotated, Any, Final, Literal, Required, Self, TypedDict, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from hurlbat.errors import TaskInvalid
from hurlbat.payloads import explain
from hurlbat.wire import MAX_BATCH, NAME_PATTERN, PROTOCOL_VERSION

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
"""A duration in seconds, up to a year."""

MAX_EXPRESSION: Final = 512
"""Characters of an expression."""
MAX_UNITS: Final = 1_000_000
MAX_LIMIT: Final = 1_000_000_000
MIN_DURATION: Final = 0.01
MAX_DURATION: Final = 31_622_400.0
"""Seconds: 366 days."""

Expression = Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION)]
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


_LENIENT: Final = {"unknown": "ignore"}
"""The context of a validation that ignores unknown members."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        if info.context is _LENIENT and isinstance(given, dict):
            return {name: value for name, value in given.items() if name in cls.model_fields}
        return given


class Backoff(_Model):
    """How long a failed attempt waits before the next one, in seconds.

    `exponential`: initial × factor^(n-1), at most `max`; `fixed`: always `initial`; `list`: the n-th of `delays`,
    then the last. With `jitter` the wait is drawn evenly from half of it to all of it.
    """

    strategy: Literal["exponential", "fixed", "list"] = "exponential"
    initial: Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)] = 1.0
    factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 2.0
    max: Annotated[float, Field(ge=0, le=31_536_000, allow_inf_nan=False)] = 300.0
    delays: Annotated[tuple[Annotated[float, Field(ge=0, le=31_536_000)], ...], Field(max_length=100)] = ()
    jitter: bool = True

    @model_validator(mode="after")
    def _list_has_delays(self) -> Self:
        if self.strategy == "list" and not self.delays:
            raise ValueError('strategy "list" needs at least one of delays')
        return self


M = TypeVar("M", bound=type)
_CONFIG: Final = ConfigDict(extra="forbid")


def _made_by_hand(model: M) -> M:
    """Let a call of the class raise `TaskInvalid` with a sentence; reading JSON goes past this."""
    make = model.__init__  # type: ignore[misc]  # every one of our classes is made by its fields

    @wraps(make)
    def init(self: Any, *args: Any, **named: Any) -> None:
        if len(args) == 1 and "key" not in named:  # by its name, so that what is wrong with it is told of `key`
            named, args = {"key": args[0], **named}, ()
        try:
            make(self, *args, **named)
        except ValidationError as error:
            raise TaskInvalid(explain(error, model.__name__)) from error

    model.__init__ = init  # type: ignore[misc]
    return model


@_made_by_hand
@dataclass(frozen=True, config=_CONFIG)
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
        return _known(given, info, _CONCURRENCY)


@_made_by_hand
@dataclass(frozen=True, config=_CONFIG)
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
        return _known(given, info, _RATE_LIMIT)

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


def _known(given: Any, info: ValidationInfo, known: frozenset[str]) -> Any:
    if info.context is _LENIENT and isinstance(given, dict):
        return {name: value for name, value in given.items() if name in known}
    return given


_CONCURRENCY: Final = frozenset({"key", "max_runs", "strategy", "name"})
_RATE_LIMIT: Final = frozenset({"key", "dynamic_key", "units", "limit", "duration"})


class WantedLabel(_Model):
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


class TaskPolicy(_Model):
    """What a worker declares of one task. Only `name` is required; durations are in seconds, None is off."""

    name: Name
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    backoff: Backoff = Backoff()
    execution_timeout: Seconds = 300.0
    schedule_timeout: Seconds | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 2
    slot_cost: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    labels: Annotated[
        dict[
            Annotated[str, Field(min_length=1, max_length=256)],
            Annotated[str | WantedLabel, WrapValidator(_label)],
        ],
        Field(max_length=16),
    ] = {}
    sticky: Literal["soft", "hard"] | None = None
    concurrency: Annotated[tuple[Concurrency, ...], Field(max_length=8)] = ()
    rate_limits: Annotated[tuple[RateLimit, ...], Field(max_length=8)] = ()
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None

    @field_validator("concurrency")
    @classmethod
    def _rules_differ(cls, rules: tuple[Concurrency, ...]) -> tuple[Concurrency, ...]:
        twice = _twice(f"named {rule.name}" if rule.name else f"with the key {rule.key}" for rule in rules)
        if twice:
            raise ValueError(f"There are two rules {twice}; leave one out, or give it a name of its own")
        return rules

    @field_validator("rate_limits")
    @classmethod
    def _limits_differ(cls, limits: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
        twice = _twice(limit.key for limit in limits if limit.key is not None)
        if twice:
            raise ValueError(f"The rate limit {twice} is there twice; add up the units")
        return limits


class Manifest(_Model):
    """The answer to `describe`: what a worker serves. `version` is the digest that its answers carry as their mark."""

    protocol: Literal[1] = PROTOCOL_VERSION
    sdk: Annotated[str, Field(max_length=128)] = ""
    max_batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = MAX_BATCH
    tasks: Annotated[tuple[TaskPolicy, ...], Field(max_length=1000)] = ()
    version: Annotated[str, Field(max_length=64)] = ""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        twice = _twice(task.name for task in self.tasks)
        if twice:
            raise ValueError(f"task {twice} is declared twice")
        return self

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read a worker's answer to `describe` without what only a newer version knows. Raises `ValidationError`."""
        return cls.model_validate_json(text, context=_LENIENT)

    def digest(self) -> str:
        """Return 16 hex digits that tell this manifest from another."""
        text = self.model_dump_json(exclude={"version"})
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _twice(names: Iterable[str]) -> str | None:
    """Return a name that is there more than once."""
    listed = list(names)
    return next((name for place, name in enumerate(listed) if name in listed[:place]), None)

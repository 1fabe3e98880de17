"""A task's policy and a worker's manifest, as both ends say them in JSON.

The models are strict: an unknown member is an error that names it. Only `Manifest.read` passes over what it does not
know, as a worker may be of a newer version than its server.
"""

import hashlib
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from hurlbat.wire import MAX_BATCH, NAME_PATTERN, PROTOCOL_VERSION

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]
"""A duration in seconds, up to a year."""

Expression = Annotated[str, Field(min_length=1, max_length=512)]
Strategy = Literal["GROUP_ROUND_ROBIN", "CANCEL_IN_PROGRESS", "CANCEL_NEWEST", "QUEUE_NEWEST_ONLY", "QUEUE_OLDEST_ONLY"]
Units = Annotated[int, Field(ge=1, le=1_000_000)] | Expression
Limit = Annotated[int, Field(ge=1, le=1_000_000_000)] | Expression
Duration = Annotated[float, Field(ge=0.01, le=31_622_400, allow_inf_nan=False)] | Expression

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


class Concurrency(_Model):
    """At most `max_runs` runs at a time for each value of `key`, an expression over `input`, `metadata` and `run`.

    Rules of the same `name` share their groups, across tasks. `strategy` is what happens to a run that finds its group
    full.
    """

    key: Expression
    max_runs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    strategy: Strategy = "GROUP_ROUND_ROBIN"
    name: Name | None = None


class RateLimit(_Model):
    """Units that a run takes of a rate limit.

    `key` names a static one, whose limit was put beforehand. `dynamic_key` is an expression, and then `limit` and
    `duration` (seconds) are given here; both and `units` may be expressions too.
    """

    key: Name | None = None
    dynamic_key: Expression | None = None
    units: Units = 1
    limit: Limit | None = None
    duration: Duration | None = None


class WantedLabel(_Model):
    """What a task wants of a label of its worker: required, or preferred by its weight."""

    value: Annotated[str, Field(max_length=256)]
    required: bool = True
    weight: Annotated[int, Field(ge=1, le=1000)] = 1


class TaskPolicy(_Model):
    """What a worker declares of one task. Only `name` is required; durations are in seconds, None is off."""

    name: Name
    retries: Annotated[int, Field(ge=0, le=1000)] = 0
    backoff: Backoff = Backoff()
    execution_timeout: Seconds = 300.0
    schedule_timeout: Seconds | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 2
    slot_cost: Annotated[int, Field(ge=1, le=10_000)] = 1
    labels: Annotated[dict[str, str | WantedLabel], Field(max_length=16)] = {}
    sticky: Literal["soft", "hard"] | None = None
    concurrency: Annotated[tuple[Concurrency, ...], Field(max_length=8)] = ()
    rate_limits: Annotated[tuple[RateLimit, ...], Field(max_length=8)] = ()
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None


class Manifest(_Model):
    """The answer to `describe`: what a worker serves. `version` is the digest that its answers carry as their mark."""

    protocol: Literal[1] = PROTOCOL_VERSION
    sdk: Annotated[str, Field(max_length=128)] = ""
    max_batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = MAX_BATCH
    tasks: Annotated[tuple[TaskPolicy, ...], Field(max_length=1000)] = ()
    version: Annotated[str, Field(max_length=64)] = ""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"task {twice[0]} is declared twice")
        return self

    @classmethod
    def read(cls, text: bytes) -> Self:
        """Read a worker's answer to `describe` without what only a newer version knows. Raises `ValidationError`."""
        return cls.model_validate_json(text, context=_LENIENT)

    def digest(self) -> str:
        """Return 16 hex digits that tell this manifest from another."""
        text = self.model_dump_json(exclude={"version"})
        return hashlib.sha256(text.encode()).hexdigest()[:16]

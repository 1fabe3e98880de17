"""What starts a task's runs besides a submit, and what gathers or slows down its submits: parts of its policy."""

from dataclasses import KW_ONLY
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    PlainValidator,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass

from hurlbat.errors import PayloadError
from hurlbat.jsontext import parse
from hurlbat.limits import MAX_EXPRESSION, PERIOD, PRIORITY
from hurlbat.models import CONFIG, known_only, made_by_hand
from hurlbat.payloads import encode

MAX_CRON: Final = 256
"""Characters of a cron expression."""
MAX_EVENT_KEY: Final = 256
"""Characters of an event's key, of a pattern, and of a scope."""
MAX_FILTER_PAYLOAD: Final = 16_384
"""Characters of a filter's payload in JSON."""

Expression = Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION)]


def plain_text(text: str) -> str:
    """Return the text. Raises `ValueError` for one with control characters."""
    if any(character < " " or "\x7f" <= character <= "\x9f" for character in text):
        raise ValueError("Must have no control characters")
    return text


def json_value(given: Any) -> Any:
    """Return what a model, a dataclass or a plain value is in JSON. Raises `ValueError` for what JSON cannot hold."""
    try:
        return parse(encode(given, what="value"))
    except PayloadError as error:
        raise ValueError(f"Must be something that JSON can hold: {error}") from error


EventPattern = Annotated[str, Field(min_length=1, max_length=MAX_EVENT_KEY), AfterValidator(plain_text)]
"""An event's key, or a pattern: `*` stands for any characters, nothing else is special."""
Period = Annotated[float, Field(ge=PERIOD.least, le=PERIOD.most, allow_inf_nan=False)]


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class Cron:
    """A schedule of a task: a crontab expression of 5 fields, or of 6 with seconds first, in an IANA time zone.

    `missed` is what is done for times that nobody was there for, `overlap` what is done while a run of it is alive.
    Raises `TaskInvalid`.
    """

    expression: Annotated[str, Field(min_length=1, max_length=MAX_CRON)]
    _: KW_ONLY
    timezone: Annotated[str, Field(min_length=1, max_length=64)] = "UTC"
    input: Annotated[Any, PlainValidator(json_value)] = None
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    priority: Annotated[int, Field(ge=PRIORITY.least, le=PRIORITY.most)] | None = None
    missed: Literal["skip", "once", "all"] = "once"
    overlap: Literal["allow", "skip", "cancel"] = "allow"

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, _CRON)


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class Filter:
    """Starts a run for an event of its `scope` for which its `expression` is true, with a payload of its own.

    Without an expression every event of the scope will do; without a scope, events of any. Raises `TaskInvalid`.
    """

    expression: Expression | None = None
    _: KW_ONLY
    scope: EventPattern | None = None
    payload: Annotated[Any, PlainValidator(json_value)] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, _FILTER)

    @field_validator("payload")
    @classmethod
    def _payload_is_small(cls, payload: Any) -> Any:
        size = len(encode(payload, what="payload"))
        if size > MAX_FILTER_PAYLOAD:
            raise ValueError(f"A filter's payload may have at most {MAX_FILTER_PAYLOAD} characters in JSON, not {size}")
        return payload

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.expression is None and self.scope is None:
            raise ValueError("A filter needs an expression, a scope, or both")
        return self


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class Debounce:
    """Lets one run stand for all submits of a `key` that come within `period` seconds of each other.

    `trailing`: it starts when none has come for that long, at most `max_wait` after the first, with the newest input.
    `leading`: the first starts at once, and those that follow are left out. Raises `TaskInvalid`.
    """

    period: Period
    _: KW_ONLY
    key: Expression | None = None
    max_wait: Period | None = None
    mode: Literal["trailing", "leading"] = "trailing"

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, _DEBOUNCE)

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if self.max_wait is not None and self.mode == "leading":
            raise ValueError("max_wait belongs to the trailing mode: a leading run waits for nothing")
        if self.max_wait is not None and self.max_wait < self.period:
            raise ValueError("max_wait must be at least the period")
        return self


@made_by_hand
@dataclass(frozen=True, config=CONFIG)
class Throttle:
    """Starts at most `limit` runs of the task in any `period` seconds, for each value of `key`; the others wait.

    Raises `TaskInvalid`.
    """

    limit: Annotated[int, Field(ge=1, le=1_000_000_000, strict=True)]
    period: Annotated[float, Field(ge=0.01, le=31_622_400.0, allow_inf_nan=False)]
    _: KW_ONLY
    key: Expression | None = None

    @model_validator(mode="before")
    @classmethod
    def _pass_over_unknown(cls, given: Any, info: ValidationInfo) -> Any:
        return known_only(given, info, _THROTTLE)


_CRON: Final = frozenset({"expression", "timezone", "input", "metadata", "priority", "missed", "overlap"})
_FILTER: Final = frozenset({"expression", "scope", "payload"})
_DEBOUNCE: Final = frozenset({"period", "key", "max_wait", "mode"})
_THROTTLE: Final = frozenset({"limit", "period", "key"})

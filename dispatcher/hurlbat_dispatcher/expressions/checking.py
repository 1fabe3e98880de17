"""Try an expression on an example, for those who write one."""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from hurlbat_dispatcher.expressions.compiled import EVENT_VARIABLES, VARIABLES, compile_expression, compile_for
from hurlbat_dispatcher.expressions.errors import ExpressionError
from hurlbat_dispatcher.expressions.results import FILTER, KEY, NUMBER, SECONDS, Kind, type_name

KINDS: Final[Mapping[str, Kind]] = {"key": KEY, "number": NUMBER, "duration": SECONDS, "filter": FILTER}
EXAMPLE_RUN: Final[Mapping[str, Any]] = {
    "id": "01900000-0000-7000-8000-000000000000",
    "task": "example",
    "priority": 2,
    "parent": None,
}
"""What `run` is when nothing is said of it."""
EXAMPLE_EVENT: Final[Mapping[str, Any]] = {"id": EXAMPLE_RUN["id"], "key": "example", "scope": None}
"""What `event` is when nothing is said of it."""


@dataclass(frozen=True, slots=True)
class CheckedExpression:
    """What became of an expression.

    `valid` tells whether a policy may have it. `evaluated` tells whether there was something to evaluate it on; then
    `type` and `value` (raw JSON) are what came of it, else the type is the one known beforehand (`dyn`: it depends).
    `key` is what a run's key would be. `error` is why the expression is not valid, or fails on this example.
    """

    valid: bool
    evaluated: bool = False
    type: str | None = None
    value: str = "null"
    key: str | None = None
    reads: tuple[str, ...] = ()
    error: ExpressionError | None = None


def check_expression(source: str, given: Mapping[str, Any], kind: str | None = None) -> CheckedExpression:
    """Return what becomes of an expression with the variables that are `given`, where it is for a `kind`, or for none.

    `metadata` is empty and `run` an example unless given; without the `input` that it reads it is only compiled. The
    variables of a filter are those of events: `payload` is empty and `event` an example unless given.
    """
    wanted = None if kind is None else KINDS[kind]
    variables = EVENT_VARIABLES if wanted is FILTER else VARIABLES
    try:
        expression = compile_expression(source) if wanted is None else compile_for(source, wanted, variables)
    except ExpressionError as error:
        return CheckedExpression(valid=False, error=error)
    reads = tuple(sorted(expression.reads))
    scope = {"metadata": {}, "payload": {}, **given, "run": {**EXAMPLE_RUN, **given.get("run", {})}}
    scope["event"] = {**EXAMPLE_EVENT, **given.get("event", {})}
    if any(name not in scope for name in reads):
        return CheckedExpression(valid=True, type=expression.result, reads=reads)
    try:
        value = expression.evaluate(scope)
    except ExpressionError as error:
        return CheckedExpression(valid=True, reads=reads, error=error)
    key, wrong = None, None
    try:
        read = value if wanted is None else wanted.read(value)
        if wanted is KEY:
            key = read
    except ExpressionError as error:
        wrong = error
    return CheckedExpression(True, True, type_name(value), as_json(value), key, reads, wrong)


def as_json(value: Any) -> str:
    """Return the raw JSON of what came of an expression: durations in seconds, bytes in base 64."""
    return json.dumps(_jsonable(value), ensure_ascii=False, separators=(",", ":"))


def _jsonable(value: Any) -> Any:
    """Return a result as JSON can have it: durations in seconds, bytes in base 64."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case list():
            return [_jsonable(item) for item in value]
        case dict():
            return {str(name): _jsonable(item) for name, item in value.items()}
        case timedelta():
            return value.total_seconds()
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case bytes() | bytearray():
            return base64.b64encode(value).decode()
        case _:
            return str(value)

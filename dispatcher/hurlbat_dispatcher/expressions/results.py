"""What may come of an expression: a key, a whole number, a duration, or a yes or no."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from hurlbat_dispatcher.domain.policies import MAX_KEY_BYTES
from hurlbat_dispatcher.expressions.errors import ExpressionError

_EXACT: Final = 2**53


def as_key(value: Any) -> str | None:
    """Return a key as text: texts as they are, numbers and booleans as JSON (7.0 is 7); None stays None."""
    if type(value) is str:
        return _checked(value)
    if value is None:
        return None
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        if value.bit_length() > 2048:
            raise _too_long("it")
        return _checked(str(value))
    if type(value) is float:
        if value - value != 0.0:
            raise ExpressionError(f"a key cannot be {value}", code="key_wrong_type")
        return str(int(value)) if value.is_integer() and abs(value) < _EXACT else json.dumps(value)
    raise ExpressionError(
        f"a key is a text, a number, true or false, or null for none; this is {type_name(value)}", code="key_wrong_type"
    )


def as_whole(value: Any) -> int:
    """Return a whole number. Raises `ExpressionError` for all else."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    raise ExpressionError(f"a whole number is wanted; this is {_shown(value)}", code="number_wrong_type")


def as_seconds(value: Any) -> float:
    """Return seconds, of a number of them or of a duration of CEL. Raises `ExpressionError` for all else."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if type(value) is int and value.bit_length() <= 64:
        return float(value)
    if type(value) is float and value - value == 0.0:
        return value
    raise ExpressionError(
        f"a number of seconds or a duration is wanted; this is {_shown(value)}", code="number_wrong_type"
    )


def as_bool(value: Any) -> bool:
    """Return a yes or no. Raises `ExpressionError` for all else."""
    if type(value) is bool:
        return value
    raise ExpressionError(f"true or false is wanted; this is {_shown(value)}", code="filter_wrong_type")


def type_name(value: Any) -> str:
    """Return what a result is called: `string`, `int`, `double`, `bool`, `null`, `list`, `map`, `duration`, …"""
    for kinds, name in _NAMES:
        if isinstance(value, kinds):
            return name
    return "null" if value is None else "type"


class Kind(NamedTuple):
    """What an expression is for: how its result is read, and of which types of CEL it may be."""

    wanted: str
    read: Callable[[Any], Any]
    types: frozenset[str]
    code: str


_NUMBERS: Final = frozenset({"dyn", "int", "uint", "double"})
KEY: Final = Kind("a text or a number", as_key, _NUMBERS | {"string", "bool", "null"}, "key_wrong_type")
NUMBER: Final = Kind("a whole number", as_whole, _NUMBERS, "number_wrong_type")
SECONDS: Final = Kind("a number of seconds", as_seconds, _NUMBERS | {"duration"}, "number_wrong_type")
FILTER: Final = Kind("true or false", as_bool, frozenset({"dyn", "bool"}), "filter_wrong_type")

_NAMES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (bool, "bool"),
    (str, "string"),
    (int, "int"),
    (float, "double"),
    (list, "list"),
    (dict, "map"),
    (timedelta, "duration"),
    (datetime, "timestamp"),
    ((bytes, bytearray), "bytes"),
)


def _shown(value: Any) -> str:
    if isinstance(value, (bool, int, float)):
        text = str(value).lower() if not isinstance(value, int) or value.bit_length() < 256 else "a huge number"
        return f"{type_name(value)} {text}"
    return type_name(value)


def _checked(text: str) -> str:
    if len(text) * 4 > MAX_KEY_BYTES or not text.isascii():
        try:
            size = len(text.encode())
        except UnicodeEncodeError:
            raise ExpressionError("a key cannot have half a surrogate pair", code="key_wrong_type") from None
        if size > MAX_KEY_BYTES:
            raise _too_long(f"the key {text[:32]!r}…")
    if "\0" in text:
        raise ExpressionError("a key cannot have the character U+0000", code="key_wrong_type")
    return text


def _too_long(what: str) -> ExpressionError:
    return ExpressionError(
        f"{what} is longer than {MAX_KEY_BYTES} bytes; a key is an id, not a document", code="key_too_long"
    )

"""Read JSON objects strictly, and keep each member's text exactly as it was sent.

Payloads belong to the user: an input or an output is stored and sent on as the text that came, never as a re-serialised
copy. So the top level of a message is walked with the standard library's own scanner, which says where each value ends.

What is refused, and where, is decided here once for both ends: NaN and infinities (also `1e400`), lone surrogates,
nesting beyond `MAX_DEPTH`, integers of more than 4,300 digits, and a top-level member that appears twice.
"""

import json
import re
from typing import Any, NamedTuple

MAX_DEPTH = 64
"""How deep arrays and objects may be nested, counted from the value that is checked."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SPACE = re.compile(r"[ \t\n\r]*")
_BLANK = frozenset((" ", "\t", "\n", "\r", ""))


class JsonTextError(ValueError):
    """The text is not JSON that we take; `position` is the offset of the character where that shows."""

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


class Member(NamedTuple):
    """A member of a JSON object: the value as Python sees it, and the text that it was sent as."""

    value: Any
    text: str


def _finite(digits: str) -> float:
    number = float(digits)
    if number - number != 0.0:
        raise JsonTextError(f"the number {digits[:20]} is too large for a 64-bit float")
    return number


def _no_constant(name: str) -> Any:
    raise JsonTextError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_float=_finite, parse_constant=_no_constant)


def parse(text: str | bytes) -> Any:
    """Return the value of a whole JSON text, by the same strict rules. Raises `JsonTextError`."""
    text = decode(text)
    start = _skip(text, 0)
    value, end = _value(text, start)
    if _skip(text, end) != len(text):
        raise JsonTextError("text after the end of the JSON value", end)
    _check(text, value)
    return value


def members(text: str | bytes, *, last_counts: bool = False) -> dict[str, Member]:
    """Return the members of a JSON object with the text of each value, in order. Raises `JsonTextError`.

    `last_counts`: a member may appear twice, as it may in what is the user's own.
    """
    text = decode(text)
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise JsonTextError("expected a JSON object", at)
    found, end = _members(text, at, last_counts)
    if _skip(text, end) != len(text):
        raise JsonTextError("text after the end of the JSON object", end)
    _check(text, found)
    return found


def items(text: str) -> list[str]:
    """Return the text of each item of a JSON array, in order. Raises `JsonTextError`."""
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise JsonTextError("expected a JSON array", at)
    at = _skip(text, at + 1)
    found: list[str] = []
    if text[at : at + 1] == "]":
        return found
    while True:
        start = at
        _, end = _value(text, start)
        found.append(text[start:end])
        at = _skip(text, end)
        if text[at : at + 1] == "]":
            return found
        if text[at : at + 1] != ",":
            raise JsonTextError("expected ',' or ']'", at)
        at = _skip(text, at + 1)


def decode(text: str | bytes) -> str:
    """Return the text of UTF-8 bytes. Raises `JsonTextError` at the first byte that is not UTF-8."""
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JsonTextError("the text is not UTF-8", error.start) from error


def _members(text: str, at: int, last_counts: bool) -> tuple[dict[str, Member], int]:
    found: dict[str, Member] = {}
    at = _skip(text, at + 1)
    mark = text[at : at + 1]
    if mark == "}":
        return found, at + 1
    while True:
        if mark != '"':
            raise JsonTextError("expected a member name in double quotes", at)
        name, end = _value(text, at)
        if name in found and not last_counts:
            raise JsonTextError(f"the member {name[:40]!r} appears twice", at)
        if text[end : end + 1] != ":":
            end = _skip(text, end)
            if text[end : end + 1] != ":":
                raise JsonTextError("expected ':'", end)
        start = end + 1
        if text[start : start + 1] in _BLANK:
            start = _skip(text, start)
        value, end = _value(text, start)
        found[name] = Member(value, text[start:end])
        mark = text[end : end + 1]
        if mark in _BLANK:
            end = _skip(text, end)
            mark = text[end : end + 1]
        if mark == "}":
            return found, end + 1
        if mark != ",":
            raise JsonTextError("expected ',' or '}'", end)
        at = end + 1
        mark = text[at : at + 1]
        if mark in _BLANK:
            at = _skip(text, at)
            mark = text[at : at + 1]


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError as error:
        said = "expected a JSON value" if error.msg == "Expecting value" else error.msg
        raise JsonTextError(said, error.pos) from error
    except RecursionError:
        raise JsonTextError(f"nested deeper than {MAX_DEPTH} levels", at) from None
    except JsonTextError as error:
        raise JsonTextError(error.message, at) from None
    except ValueError as error:
        raise JsonTextError("an integer has more than 4,300 digits", at) from error


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _check(text: str, value: Any) -> None:
    """Hold the rules that the scanner does not know: depth, and no lone surrogates."""
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    match = _SURROGATE.search(text)
    if match:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise JsonTextError("a lone surrogate is not text", match.start()) from None


def _check_depth(value: Any) -> None:
    level = [value.value if isinstance(value, Member) else value]
    if isinstance(value, dict):
        level = [inner.value if isinstance(inner, Member) else inner for inner in value.values()]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            raise JsonTextError(f"nested deeper than {MAX_DEPTH} levels")
        following: list[Any] = []
        for inner in level:
            if isinstance(inner, dict):
                following.extend(inner.values())
            elif isinstance(inner, list):
                following.extend(inner)
        level = following

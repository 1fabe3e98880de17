"""Read plain paths and constants without CEL: they are nearly all there is, and cost next to nothing this way."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from hurlbat_dispatcher.expressions.errors import ExpressionError
from hurlbat_dispatcher.expressions.guard import WORDS

_STEP: Final = (
    r"""\.(?P<name>[A-Za-z_][A-Za-z0-9_]*)|\[(?:"(?P<double>[^"\\\x00-\x1f]*)"|'(?P<single>[^'\\\x00-\x1f]*)'"""
)
_STEP_END: Final = r"""|(?P<index>0|[1-9]\d{0,8}))\]"""
_STEPS: Final = re.compile(_STEP + _STEP_END, re.ASCII)
_ROOT: Final = re.compile(r"[a-z]+", re.ASCII)
_NUMBER: Final = re.compile(r"-?(?:0|[1-9]\d{0,17})(?:\.\d{1,17})?", re.ASCII)
_TEXT: Final = re.compile(r""""[^"\\\x00-\x1f]*"|'[^'\\\x00-\x1f]*'""")
_CONSTANTS: Final = {"true": True, "false": False, "null": None}

Steps = tuple[str | int, ...]


def constant(source: str) -> tuple[Any] | None:
    """Return the value of a constant, in a tuple, or None when the expression is none."""
    if _NUMBER.fullmatch(source):
        return (json.loads(source),)
    if _TEXT.fullmatch(source):
        return (source[1:-1],)
    return (_CONSTANTS[source],) if source in _CONSTANTS else None


def plain_path(source: str, variables: tuple[str, ...]) -> Steps | None:
    """Return the variable and the steps from it, or None when the expression is no plain path."""
    root = _ROOT.match(source)
    if root is None or root.group() not in variables:
        return None
    steps: list[str | int] = [root.group()]
    at = root.end()
    while at < len(source):
        match = _STEPS.match(source, at)
        if match is None or match["name"] in WORDS:
            return None
        steps.append(int(match["index"]) if match["index"] else match[match.lastgroup or 0])
        at = match.end()
    return tuple(steps)


def follow(steps: Steps, scope: Mapping[str, Any]) -> Any:
    """Return what is at the end of a path. Raises `ExpressionError` where the path ends too soon."""
    value: Any = scope
    try:
        for step in steps:
            if type(step) is int and type(value) is not list:
                break
            value = value[step]
        else:
            return value
    except (KeyError, IndexError, TypeError):
        pass
    raise _lost(steps, scope)


def written(steps: Steps) -> str:
    """Return a path as one would write it."""
    text = str(steps[0])
    for step in steps[1:]:
        plain = isinstance(step, str) and step.isidentifier() and step.isascii()
        text += f".{step}" if plain else f"[{json.dumps(step, ensure_ascii=False)}]"
    return text


def _lost(steps: Steps, scope: Mapping[str, Any]) -> ExpressionError:
    """Say where a path ends too soon, and why."""
    if steps[0] not in scope:
        return ExpressionError(f"there is no {steps[0]} here")
    value = scope[str(steps[0])]
    for place, step in enumerate(steps[1:], 1):
        whole = written(steps[:place])
        if isinstance(step, int):
            if not isinstance(value, list):
                return ExpressionError(f"{whole} is {named(value)}, and has no item {step}")
            if step >= len(value):
                return ExpressionError(f"{whole} has {len(value)} items, and none at {step} (the first is at 0)")
        elif not isinstance(value, dict):
            return ExpressionError(f"{whole} is {named(value)}, and has no member {step}")
        elif step not in value:
            return ExpressionError(f"{whole} has no member {step}; send one")
        value = value[step]
    return ExpressionError(f"{written(steps)} cannot be read")


def named(value: Any) -> str:
    """Return what a value of JSON is, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"

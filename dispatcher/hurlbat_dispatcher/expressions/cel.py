"""CEL, behind the guards that keep it from taking long, and from ending the process.

The bindings copy what they are given, at about a microsecond a value, cut texts at U+0000, and overflow the stack on
data some thousand levels deep. So an expression is given copies of only those members that it names, and no more of
them than `MAX_VALUES` and `MAX_TEXT`.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from hurlbat_dispatcher.expressions.errors import NO_CEL, ExpressionError, invalid
from hurlbat_dispatcher.expressions.guard import Path

MAX_VALUES: Final = 10_000
"""Values that one expression may read of an input: numbers, texts, lists and objects."""
MAX_TEXT: Final = 32_768
"""Characters of text that one expression may read, names of members among them."""
MAX_DEPTH: Final = 64

_PLACE: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_MIXED: Final = re.compile(r"found no matching overload for '_\?_:_' applied to '\((?:bool|dyn), ")
_OVERLOADS: Final = re.compile(
    r"(?:no matching overloads? found : |found no matching overload for ')"
    r"(?:\((?P<on>[^()]*)\)\.)?(?P<name>[^\s'(]+)(?:' applied to ')?(?:\((?P<types>.*)\))?'?$"
)
_CODE: Final = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_SAID: Final = {
    "applying SELECT to non-message type": "it asks for a member of what is no object (a text, a number, a list, null)",
    "invalid container type": "it asks for an item of what is neither a list nor an object",
}
"""What CEL says in words of its own, in plain ones."""

Wanted = dict[str, "Wanted"]
"""Members that are read; an empty one is read whole."""


def compile_cel(source: str, variables: tuple[str, ...], read: frozenset[Path]) -> tuple[Callable[..., Any], str]:
    """Return what evaluates an expression that was looked over, and the type of what comes of it (`dyn`: not known).

    Raises `ExpressionError`.
    """
    program, result_type = _compiled(source, variables)
    wanted = _wanted(read)

    def evaluate(scope: Mapping[str, Any]) -> Any:
        portion = _Portion()
        data = {name: portion.of(_given(scope, name), members) for name, members in wanted.items()}
        try:
            result = program.eval(data=data)
            kind, value = result.type().name(), result.plain_value()
        except RuntimeError as error:
            raise ExpressionError(_tidy(str(error))) from None
        if kind in ("ERROR", "UNKNOWN"):
            raise ExpressionError(_tidy(str(value)))
        return value

    return evaluate, result_type


def _compiled(source: str, variables: tuple[str, ...]) -> tuple[Any, str]:
    known = environment(variables)
    try:
        program = known.compile(source)
        return program, program.return_type().name().lower()
    except RuntimeError as error:
        said = str(error)
    if not _only_mixed(said):
        raise _of_compiler(source, said)
    try:
        return known.compile(source, disable_check=True), "dyn"
    except RuntimeError as error:
        raise _of_compiler(source, str(error)) from None


def _only_mixed(said: str) -> bool:
    """Tell whether all that the checker minds is `x ? "text" : null`, which is good: null is a key like any other."""
    found = _errors(said)
    return bool(found) and all(_MIXED.match(error[3]) for error in found)


@cache
def environment(variables: tuple[str, ...]) -> Any:
    """Return the environment of CEL with these variables. Raises `ExpressionError` where the package is missing."""
    try:
        from cel_expr_python import cel
    except ImportError:
        raise invalid(NO_CEL) from None
    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN))


# -- what it reads -----------------------------------------------------------------------------------------------------


def _wanted(read: frozenset[Path]) -> Wanted:
    found: Wanted = {}
    for path in sorted(read, key=len, reverse=True):
        level = found
        for name in path:
            level = level.setdefault(name, {})
        level.clear()
    return found


def _given(scope: Mapping[str, Any], name: str) -> Any:
    try:
        return scope[name]
    except KeyError:
        raise ExpressionError(f"there is no {name} here") from None


class _Portion:
    """Copies of what an expression reads, as long as they are not too much for one."""

    def __init__(self) -> None:
        self._values = 0
        self._text = 0

    def of(self, value: Any, wanted: Wanted) -> Any:
        """Return the wanted members of a value, or, when none is named, all of it."""
        if not wanted:
            return self._copy(value, 1)
        if isinstance(value, Mapping):
            return {name: self.of(value[name], inner) for name, inner in wanted.items() if name in value}
        return [] if isinstance(value, list) else self._copy(value, 1)

    def _copy(self, value: Any, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES:
            raise ExpressionError(
                f"it reads more than {MAX_VALUES} values of the input; name the members that it needs"
            )
        if isinstance(value, str):
            return self._copy_text(value)
        if isinstance(value, (list, Mapping)):
            if depth >= MAX_DEPTH:
                raise ExpressionError(f"it reads what is nested deeper than {MAX_DEPTH} levels")
            if isinstance(value, list):
                return [self._copy(item, depth + 1) for item in value]
            return {self._copy_text(name): self._copy(item, depth + 1) for name, item in value.items()}
        if type(value) is int and not -(2**63) <= value < 2**64:
            raise ExpressionError("it reads a whole number of more than 64 bits; send it as a text")
        if type(value) is float and not math.isfinite(value):
            raise ExpressionError("it reads a number that is not finite")
        return value

    def _copy_text(self, text: str) -> str:
        self._text += len(text)
        if self._text > MAX_TEXT:
            raise ExpressionError(
                f"it reads more than {MAX_TEXT} characters of the input; name the members that it needs"
            )
        if "\0" in text:
            raise ExpressionError("it reads a text with the character U+0000, which CEL cannot hold")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise ExpressionError("it reads a text with half a surrogate pair, which is no text") from None
        return text


# -- what it says ------------------------------------------------------------------------------------------------------


def _of_compiler(source: str, said: str) -> ExpressionError:
    """Make a sentence of the first error that has a place, of those that CEL lists."""
    if "recursion" in said:
        return invalid("it is nested too deeply, or too long a chain; CEL takes 32 levels")
    found = _errors(said)
    if not found:
        return invalid(_tidy(said))
    line, column, sentence = found[0].groups()
    lines = source.split("\n")[: max(int(line) - 1, 0)]
    at = sum(len(one) + 1 for one in lines) + int(column)
    return invalid(_tidy(re.sub(r" expecting \{.*", "", sentence)), at if at > 0 else None)


def _errors(said: str) -> list[re.Match[str]]:
    return [match for match in map(_PLACE.match, said.replace("INVALID_ARGUMENT: ", "").split("\n")) if match]


def _tidy(said: str) -> str:
    first = said.split("\n", 1)[0]
    while (shorter := _CODE.sub("", first)) != first:
        first = shorter
    tidy = first.replace("<EOF>", "the end").replace(" (in container '')", "")
    tidy = tidy[:1].lower() + tidy[1:300]
    if tidy.endswith("<jump_condition>"):
        return "what is left of ? must be true or false"
    overload = _OVERLOADS.match(tidy)
    if overload is not None:
        name = overload["name"].replace("_", "").lstrip("@")
        types = ", ".join(filter(None, (overload["on"], overload["types"])))
        return (
            f"{name} does not take {f'({types})' if types else 'these'}; convert first, as string(x) or double(x) does"
        )
    if tidy.startswith("key not found in map : "):
        return f"there is no member {tidy.removeprefix('key not found in map : ')}; send it, or ask has() first"
    return _SAID.get(tidy.partition(":")[0], tidy)

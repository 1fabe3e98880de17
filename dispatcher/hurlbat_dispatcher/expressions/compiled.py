"""Compile an expression once, and evaluate it for every run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Final

from hurlbat_dispatcher.expressions.cel import compile_cel
from hurlbat_dispatcher.expressions.errors import ExpressionError, invalid
from hurlbat_dispatcher.expressions.guard import Path, look_over
from hurlbat_dispatcher.expressions.paths import constant, follow, plain_path
from hurlbat_dispatcher.expressions.results import Kind, type_name

MAX_SOURCE: Final = 512
"""Characters of one expression."""
VARIABLES: Final = ("input", "metadata", "run")
"""What an expression of a task's policy may read."""
EVENT_VARIABLES: Final = ("input", "payload", "metadata", "event")
"""What the expression of a filter of events may read."""
GRAPH_VARIABLES: Final = ("input", "parents", "metadata", "run")
"""What a condition of a workflow's node may read, and the expression of its input."""
CACHED: Final = 2_048
"""Compiled expressions that are kept, at some 10 KB each, and 64 KB at worst."""


@dataclass(frozen=True, slots=True, eq=False)
class Expression:
    """An expression that is good. `reads` are the variables that it reads, `result` the type of what comes of it.

    The type is one of CEL, in small letters; `dyn` when it depends on the input. `evaluate` returns what comes of it
    for the values of its variables, as JSON has them, and raises `ExpressionError`.
    """

    source: str
    reads: frozenset[str]
    result: str
    evaluate: Callable[[Mapping[str, Any]], Any]


@lru_cache(maxsize=CACHED)
def compile_expression(source: str, variables: tuple[str, ...] = VARIABLES) -> Expression:
    """Return the expression of a text. Raises `ExpressionError` for one that is wrong whatever the input is."""
    if len(source) > MAX_SOURCE:
        raise invalid(f"it has {len(source)} characters; an expression has at most {MAX_SOURCE}")
    text = source.strip()
    if not text:
        raise invalid('it is empty; write a path such as input.user_id, or a text in quotes such as "all"')
    for at, character in enumerate(source, 1):
        if (character < " " and character not in "\t\r\n") or "\ud800" <= character <= "\udfff":
            raise invalid("control characters and half surrogate pairs have no place in an expression", at)
    path = plain_path(text, variables)
    if path is not None:
        return Expression(source, frozenset((str(path[0]),)), "dyn", partial(follow, path))
    fixed = constant(text)
    if fixed is not None:
        return Expression(source, frozenset(), type_name(fixed[0]), partial(_fixed, fixed[0]))
    read = look_over(source, variables)
    evaluate, result = compile_cel(source, variables, read)
    return Expression(source, frozenset(path[0] for path in read), result, evaluate)


def compile_for(source: str, kind: Kind, variables: tuple[str, ...] = VARIABLES) -> Expression:
    """Return the expression of a text that may give what is wanted. Raises `ExpressionError` for all others."""
    expression = compile_expression(source, variables)
    if expression.result not in kind.types:
        raise ExpressionError(f"it gives a {expression.result}, and {kind.wanted} is wanted", code=kind.code)
    return expression


def paths_read(source: str, variables: tuple[str, ...]) -> frozenset[Path]:
    """Return which parts of the variables a good expression may read, each as far as its members are constant."""
    path = plain_path(source.strip(), variables)
    if path is None:
        return look_over(source, variables)
    names: list[str] = []
    for step in path:
        if not isinstance(step, str):
            break
        names.append(step)
    return frozenset((tuple(names),))


def _fixed(value: Any, _scope: Mapping[str, Any]) -> Any:
    return value

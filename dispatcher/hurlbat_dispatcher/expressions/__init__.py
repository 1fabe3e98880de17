"""Expressions of policies: what a run's key is, how many units it takes, what a limit is, read from its input.

They are written in CEL. Plain paths (`input.user_id`, `metadata["a"][0]`) and constants are read here, as most are
nothing else; the others are CEL's. They run in bounded time: see `guard` for what is refused, and `cel` for how much
of an input one may read.
"""

from hurlbat_dispatcher.expressions.checking import CheckedExpression, as_json, check_expression
from hurlbat_dispatcher.expressions.compiled import (
    EVENT_VARIABLES,
    GRAPH_VARIABLES,
    MAX_SOURCE,
    VARIABLES,
    Expression,
    compile_expression,
    compile_for,
    paths_read,
)
from hurlbat_dispatcher.expressions.errors import ExpressionError
from hurlbat_dispatcher.expressions.results import (
    FILTER,
    KEY,
    NUMBER,
    SECONDS,
    Kind,
    as_bool,
    as_key,
    as_seconds,
    as_whole,
    type_name,
)

__all__ = [
    "EVENT_VARIABLES",
    "FILTER",
    "GRAPH_VARIABLES",
    "KEY",
    "MAX_SOURCE",
    "NUMBER",
    "SECONDS",
    "VARIABLES",
    "CheckedExpression",
    "Expression",
    "ExpressionError",
    "Kind",
    "as_bool",
    "as_json",
    "as_key",
    "as_seconds",
    "as_whole",
    "check_expression",
    "compile_expression",
    "compile_for",
    "paths_read",
    "type_name",
]

"""Expressions of policies: what a run's key is, how many units it takes, what a limit is, read from its input.

They are written in CEL. Plain paths (`input.user_id`, `metadata["a"][0]`) and constants are read here, as most are
nothing else; the others are CEL's. They run in bounded time: see `guard` for what is refused, and `cel` for how much
of an input one may read.
"""

from hurlbat_dispatcher.expressions.compiled import VARIABLES, Expression, compile_expression
from hurlbat_dispatcher.expressions.errors import ExpressionError
from hurlbat_dispatcher.expressions.results import as_bool, as_key, as_seconds, as_whole, type_name

__all__ = [
    "VARIABLES",
    "Expression",
    "ExpressionError",
    "as_bool",
    "as_key",
    "as_seconds",
    "as_whole",
    "compile_expression",
    "type_name",
]

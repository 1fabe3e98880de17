"""Expressions over one scope: what comes of them, and how they fail."""

from typing import Any

import pytest

from hurlbat_dispatcher.expressions import (
    ExpressionError,
    compile_expression,
)

SCOPE: dict[str, Any] = {
    "input": {
        "user_id": 7,
        "x-y": {"z": "deep"},
        "items": [{"n": 1}, {"n": 2.5}],
        "none": None,
        "true": True,
        "plan": "pro",
        "": "nameless",
        "big": 2**70,
    },
    "metadata": {"a": ["first"], "trace": "t1"},
    "run": {"id": "r1", "task": "resize", "priority": 2, "parent": None},
}


def evaluate(source: str, scope: dict[str, Any] = SCOPE) -> Any:
    return compile_expression(source).evaluate(scope)


def error_of(source: str, scope: dict[str, Any] = SCOPE) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        evaluate(source, scope)
    return caught.value

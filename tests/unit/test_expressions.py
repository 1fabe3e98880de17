"""Expressions: what they read, what they refuse, and that none of them takes long or ends the process."""

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hurlbat_dispatcher.expressions import (
    VARIABLES,
    Expression,
    ExpressionError,
    check_expression,
    compile_expression,
    type_name,
)
from hurlbat_dispatcher.expressions.cel import MAX_TEXT, compile_cel
from hurlbat_dispatcher.expressions.guard import look_over
from hurlbat_dispatcher.expressions.paths import plain_path
from tests.docs.pages import blocks, first_column
from tests.support.processes import ROOT
from tests.unit.expressing import SCOPE, error_of, evaluate

PAGE = ROOT / "docs" / "expressions.md"


# -- what they read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input.user_id", 7),
        ("  input.user_id\n", 7),
        ('input["x-y"].z', "deep"),
        ("input['x-y']['z']", "deep"),
        ("input.items[1].n", 2.5),
        ('metadata["a"][0]', "first"),
        ("run.parent", None),
        ("run", SCOPE["run"]),
        ('input[""]', "nameless"),
        ('input["true"]', True),
        ("input.big", 2**70),
        ('"all"', "all"),
        ("'all'", "all"),
        ("10", 10),
        ("-2.5", -2.5),
        ("false", False),
        ("null", None),
    ],
)
def test_paths_and_constants_are_read_without_cel(source: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.expressions.compiled.compile_cel", None)
    compile_expression.cache_clear()
    assert evaluate(source) == value


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ('input.plan + ":" + string(input.user_id)', "pro:7"),
        ("has(input.nothing) ? input.nothing : null", None),
        ('has(input.none) ? "sent" : "missing"', "sent"),
        ("size(input.items)", 2),
        ("input.items.size()", 2),
        ("size(run) + size(run.id)", 6),
        ("input.items[0].n + 1", 2),
        ('input.plan in ["free", "pro"]', True),
        ("input.user_id in ([7])", True),
        ('{"free": 1, "pro": 5}[input.plan]', 5),
        ("input.`x-y`.z", "deep"),
        ("run.priority > 1 && run.parent == null", True),
        ('input.plan.matches("^p.o$")', True),
        (r"input.plan.matches(r'^[a-z]{3}\b')", True),
        ('duration("90m")', timedelta(minutes=90)),
        ("input == input", True),  # all of it, but for what CEL cannot hold
        ('input.plan == "pro" ? "bulk" : null', "bulk"),
        ('input.plan == "free" ? "bulk" : input.user_id > 7 ? 1 : null', None),
    ],
)
def test_all_else_is_read_by_cel(source: str, value: Any) -> None:
    scope = {**SCOPE, "input": {name: member for name, member in SCOPE["input"].items() if name != "big"}}
    assert evaluate(source, scope) == value


def test_an_expression_is_given_nothing_that_it_does_not_name() -> None:
    heavy = {
        "id": 7,
        "nested": {"name": "a", "blob": "x" * MAX_TEXT * 2},
        "huge": 2**70,
        "zero": "a\0b",
        "half": "\ud800",
    }
    assert evaluate('string(input.id) + input["nested"].name', {"input": heavy}) == "7a"
    assert evaluate("has(input.nested.other) || has(input.nested.name)", {"input": heavy}) is True
    assert evaluate('input.nested.name.startsWith("a")', {"input": heavy}) is True


def test_an_expression_tells_which_variables_it_reads() -> None:
    assert compile_expression("input.a").reads == {"input"}
    assert compile_expression("metadata.a == run.id").reads == {"metadata", "run"}
    assert compile_expression('"input.a"').reads == compile_expression('"input" + "a"').reads == set()


def test_the_door_is_open_for_other_variables() -> None:
    variables = ("input", "payload", "event")
    assert compile_expression("payload.a", variables).evaluate({"payload": {"a": 1}}) == 1
    assert compile_expression("event.a + payload.a", variables).evaluate({"payload": {"a": 1}, "event": {"a": 2}}) == 3
    assert "there is no variable payload" in error_of("payload.a").sentence


# -- a path is what CEL takes it for -----------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "x_1", "a-b", "size", "", "ü"])
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), st.text("aü")
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
STEPS = st.lists(NAMES | st.integers(0, 3), max_size=4)


@settings(max_examples=300, deadline=None)
@given(value=VALUES, steps=STEPS, dots=st.booleans())
@example(value={"a": [{"b": None}]}, steps=["a", 0, "b"], dots=True)
@example(value="text", steps=[0], dots=False)
@example(value={"0": 1}, steps=[0], dots=False)
def test_a_path_reads_what_cel_reads(value: Any, steps: list[str | int], dots: bool) -> None:
    source = "input"
    for step in steps:
        plain = dots and isinstance(step, str) and step.isascii() and step.isidentifier()
        source += f".{step}" if plain else f"[{json.dumps(step, ensure_ascii=False)}]"
    if any(isinstance(number, float) and number - number != 0 for number in _numbers(value)):
        return
    assert plain_path(source, VARIABLES) == ("input", *steps)
    by_cel, _ = compile_cel(source, VARIABLES, look_over(source, VARIABLES))
    scope = {"input": value}

    assert _outcome(lambda: evaluate(source, scope)) == _outcome(lambda: by_cel(scope))


def _numbers(value: Any) -> list[Any]:
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    if isinstance(value, dict):
        return _numbers(list(value.values()))
    return [value]


def _outcome(read: Any) -> Any:
    try:
        value = read()
    except ExpressionError:
        return "refused"
    return json.dumps(value, sort_keys=True), type_name(value)


# -- trying one --------------------------------------------------------------------------------------------------------


def test_a_check_without_an_input_only_compiles() -> None:
    checked = check_expression("size(input.a)", {})
    assert (checked.valid, checked.evaluated, checked.type, checked.reads) == (True, False, "int", ("input",))
    assert check_expression("run.task", {}).value == '"example"'
    assert check_expression("run.task + run.parent", {"run": {"task": "a", "parent": "b"}}).value == '"ab"'


@pytest.mark.parametrize(
    ("source", "kind", "value", "type", "key", "code"),
    [
        ("input.a", "key", "7", "int", "7", None),
        ("input.none", "key", "null", "null", None, None),
        ("input", "key", None, "map", None, "key_wrong_type"),
        ("input.big", None, str(2**70), "int", None, None),
        ('duration("1m")', "duration", "60.0", "duration", None, None),
        ('timestamp("2026-01-02T03:04:05Z")', None, '"2026-01-02T03:04:05Z"', "timestamp", None, None),
        ("1.0 / 0.0", None, '"inf"', "double", None, None),
        ('bytes("a")', None, '"YQ=="', "bytes", None, None),
        ("type(1)", None, '"INT"', "type", None, None),
        ("{1: [2u]}", None, '{"1":[2]}', "map", None, None),
        ("input.a", "filter", "7", "int", None, "filter_wrong_type"),
    ],
)
def test_a_check_says_what_came_of_it(
    source: str, kind: str | None, value: str | None, type: str, key: str | None, code: str | None
) -> None:
    checked = check_expression(source, {"input": {"a": 7, "none": None, "big": 2**70}}, kind)
    assert (checked.valid, checked.evaluated, checked.type, checked.key) == (True, True, type, key)
    assert value is None or checked.value == value
    assert (checked.error.code if checked.error else None) == code


# -- the page ----------------------------------------------------------------------------------------------------------


def test_every_expression_of_the_page_is_one() -> None:
    policy = json.loads(blocks(PAGE, "json")[0].text)
    told = [rule["key"] for rule in policy["concurrency"]] + ["size(input.images)"]
    told += [rule[name] for rule in policy["rate_limits"] for name in ("dynamic_key", "limit") if name in rule]
    section = PAGE.read_text().split("| you want | write |\n|---|---|\n", 1)[1].split("\n\n", 1)[0]
    told += [re.findall(r"`([^`]+)`", row)[-1] for row in section.splitlines()]

    assert len(told) == 11
    assert all(isinstance(compile_expression(source), Expression) for source in told)


def test_the_page_names_the_variables_that_there_are() -> None:
    assert tuple(first_column(PAGE, "## Variables")) == VARIABLES

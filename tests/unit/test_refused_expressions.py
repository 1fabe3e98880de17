"""What is no expression, what cannot be evaluated, what is no result, and that none of it does harm."""

import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from hurlbat_dispatcher.expressions import (
    FILTER,
    KEY,
    MAX_SOURCE,
    NUMBER,
    SECONDS,
    ExpressionError,
    as_bool,
    as_key,
    as_seconds,
    as_whole,
    compile_expression,
    compile_for,
)
from hurlbat_dispatcher.expressions import cel as adapter
from hurlbat_dispatcher.expressions.cel import MAX_DEPTH, MAX_TEXT, MAX_VALUES
from hurlbat_dispatcher.expressions.compiled import CACHED
from tests.unit.expressing import error_of, evaluate

# -- what is wrong whatever the input is -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence", "position"),
    [
        ("", "it is empty; write a path such as input.user_id", None),
        (" \n", "it is empty", None),
        ("x" * (MAX_SOURCE + 1), "it has 513 characters; an expression has at most 512", None),
        ("inptu.id", "there is no variable inptu (there are input, metadata and run)", 1),
        ("all", "put texts in quotes", 1),
        ("input.a ==", "syntax error: mismatched input 'the end'", 11),
        ("input.a = 1", "equality is written ==", 9),
        ('input.a == "x', "a text that begins here does not end", 12),
        ("input.a # 1", "the character '#' means nothing here", 9),
        ("input.in", 'in is a word of CEL: write ["in"] instead of .in', 7),
        (".input.a", "a dot follows what has the member", 1),
        ('"a" "b"', "two texts without an operator between them", 5),
        ('"""a"""', "two texts without an operator between them", 3),
        ("now()", "there is no function now()", 1),
        ("input.a.split(',')", "there is no function split()", 9),
        ("input.a.exists(x, x == 1)", "exists() goes over a list, which is refused", 9),
        ("input.map(x, x)", "map() goes over a list", 7),
        ("1 + 'a'", "+ does not take (int, string); convert first", 3),
        ("\n input.a +* 2", "extraneous input '*'", 12),
        ('input.a ? "b" : [1 + "c"]', "+ does not take (int, string); convert first", 20),
        ('1 ? "b" : null', "?: does not take (int, string, null_type)", 3),
        ("99999999999999999999", "invalid int literal", 1),
        ("input\0", "control characters", 6),
        ("input.\ud800", "half surrogate pairs", 7),
        ("(" * 40 + "1" + ")" * 40, "nested too deeply, or too long a chain; CEL takes 32 levels", None),
        ("1" + "-1" * 40, "CEL takes 32 levels", None),
        ("input" + "['a'].b.c" * 20 + " + 1", "CEL takes 32 levels", None),
        ("+".join(["1"] * 18), "it has 17 times +, and 16 are allowed", None),
        ("input.a.matches(input.b)", "matches() takes one regular expression in quotes", 9),
        ("matches(input.a, 'b')", "matches() takes one regular expression in quotes", 1),
        ("input.a.matches('b' + input.b)", "matches() takes one regular expression in quotes", 9),
        ("input.a.matches('(a{100}){100}')", "regular expressions are too large", None),
        ("input.a.matches('a{501}')", "regular expressions are too large", None),
        ("input.a.matches(r'" + r"\pL" * 30 + "')", "regular expressions are too large", None),
        ("input.a.matches('a\\x7b900}')", "write a regular expression with escapes as a raw text", 17),
    ],
)
def test_what_is_wrong_is_said_before_there_is_a_run(source: str, sentence: str, position: int | None) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(source)

    assert sentence in caught.value.sentence
    assert (caught.value.position, caught.value.code) == (position, "expression_invalid")


def test_without_cel_paths_and_constants_work_and_the_others_say_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    adapter.environment.cache_clear()
    compile_expression.cache_clear()

    assert evaluate("input.user_id") == 7
    assert "the package cel-expr-python is not installed" in error_of("size(input.items)").sentence


def test_only_so_many_compiled_expressions_are_kept() -> None:
    assert compile_expression.cache_info().maxsize == CACHED
    assert compile_expression("size(input.a)") is compile_expression("size(input.a)")


# -- what is wrong with this input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("input.nothing", "input has no member nothing; send one"),
        ("input.user_id.name", "input.user_id is a number, and has no member name"),
        ("input.none.name", "input.none is null, and has no member name"),
        ("input.items.name", "input.items is a list, and has no member name"),
        ("input.items[2].n", "input.items has 2 items, and none at 2 (the first is at 0)"),
        ("input.plan[0]", "input.plan is a text, and has no item 0"),
        ('input["x-y"][0]', 'input["x-y"] is an object, and has no item 0'),
        ('input["x-y"][true]', "there is no member true; send it, or ask has() first"),
        ("input.nothing + 1", 'there is no member "nothing"; send it, or ask has() first'),
        ("input.plan + 1", "+ does not take (string, int64); convert first"),
        ("1 / (input.user_id - 7)", "divide by zero"),
        ("input.plan ? 1 : 2", "what is left of ? must be true or false"),
        ("input.plan && true", "&& does not take"),
        ("input.plan.name > 3", "it asks for a member of what is no object"),
        ("input.none.name > 3", "it asks for a member of what is no object"),
        ("input.user_id[0] > 3", "it asks for an item of what is neither a list nor an object"),
        ("input.user_id.startsWith('a')", "startsWith does not take (int64, string)"),
        ("input.user_id + 9223372036854775807", "integer overflow"),
        ("int(input.plan)", "cannot convert string to int"),
        ("string(input.big)", "it reads a whole number of more than 64 bits; send it as a text"),
        ('input.plan.matches("[")', "missing ]"),
    ],
)
def test_what_cannot_be_evaluated_says_why(source: str, sentence: str) -> None:
    error = error_of(source)
    assert sentence in error.sentence
    assert error.code == "expression_failed"


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("x" * (MAX_TEXT + 1), f"more than {MAX_TEXT} characters"),
        ({"x" * MAX_TEXT: "x"}, f"more than {MAX_TEXT} characters"),
        (list(range(MAX_VALUES)), f"more than {MAX_VALUES} values"),
        ("a\0b", "the character U+0000, which CEL cannot hold"),
        ({"a\0b": 1}, "the character U+0000"),
        ("\ud800", "half a surrogate pair"),
        (2**64, "more than 64 bits"),
        (-(2**63) - 1, "more than 64 bits"),
        (float("inf"), "not finite"),
    ],
)
def test_what_cel_cannot_hold_is_refused_where_it_is_read(value: Any, sentence: str) -> None:
    assert sentence in error_of("input.a == 1", {"input": {"a": value}}).sentence


def test_what_is_nested_deeper_than_the_limit_is_refused() -> None:
    def nested(depth: int) -> Any:
        value: Any = []
        for _ in range(depth - 1):
            value = [value]
        return value

    assert evaluate("size(input)", {"input": nested(MAX_DEPTH - 1)}) == 1
    assert f"deeper than {MAX_DEPTH} levels" in error_of("size(input)", {"input": nested(MAX_DEPTH)}).sentence


# -- what may come of one ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "key"),
    [
        ("u1", "u1"),
        ("", ""),
        (7, "7"),
        (7.0, "7"),
        (-0.0, "0"),
        (2.5, "2.5"),
        (1e300, "1e+300"),
        (2**70, str(2**70)),
        (True, "true"),
        (False, "false"),
        (None, None),
        ("ü" * 128, "ü" * 128),
    ],
)
def test_a_key_is_text(value: Any, key: str | None) -> None:
    assert as_key(value) == key


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([1], "key_wrong_type"),
        ({}, "key_wrong_type"),
        (timedelta(1), "key_wrong_type"),
        (float("nan"), "key_wrong_type"),
        (float("inf"), "key_wrong_type"),
        ("a\0b", "key_wrong_type"),
        ("\ud800", "key_wrong_type"),
        ("x" * 257, "key_too_long"),
        ("ü" * 129, "key_too_long"),
        (10**256, "key_too_long"),
        (10**4000, "key_too_long"),
    ],
)
def test_what_is_no_key_is_refused(value: Any, code: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        as_key(value)
    assert caught.value.code == code


def test_numbers_durations_and_filters_take_what_they_mean_and_nothing_else() -> None:
    assert (as_whole(3), as_whole(3.0), as_seconds(3), as_seconds(0.5)) == (3, 3, 3.0, 0.5)
    assert (as_seconds(timedelta(hours=1)), as_bool(True)) == (3600.0, True)
    wrong: list[tuple[Any, Any]] = [(as_whole, 2.5), (as_whole, True), (as_whole, "3"), (as_whole, None)]
    wrong += [(as_whole, float("nan")), (as_seconds, "1h"), (as_seconds, False), (as_seconds, float("inf"))]
    wrong += [(as_seconds, 10**400), (as_bool, 1), (as_bool, None), (as_whole, [1]), (as_seconds, {})]
    for read, value in wrong:
        with pytest.raises(ExpressionError, match="wanted"):
            read(value)


@pytest.mark.parametrize(
    ("source", "kind", "wanted"),
    [
        ("[input.a]", KEY, "it gives a list<dyn>, and a text or a number is wanted"),
        ("{'a': 1}", KEY, "a text or a number is wanted"),
        ("timestamp(input.a)", KEY, "a text or a number is wanted"),
        ("input.a == 1", NUMBER, "it gives a bool, and a whole number is wanted"),
        ('"5"', NUMBER, "it gives a string, and a whole number is wanted"),
        ("string(input.a)", SECONDS, "a number of seconds is wanted"),
        ("size(input.a)", FILTER, "it gives a int, and true or false is wanted"),
    ],
)
def test_a_result_that_could_never_do_is_refused_beforehand(source: str, kind: Any, wanted: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_for(source, kind)
    assert wanted in caught.value.sentence
    assert caught.value.code == kind.code


# -- no harm -----------------------------------------------------------------------------------------------------------

HOSTILE = """
import random, sys
from hurlbat_dispatcher.expressions import ExpressionError, as_key, compile_expression, type_name

def deep(levels, wrap):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value

sources = [
    "(" * 512, "[" * 512, "{" * 512, "{1:" * 170, "!" * 511 + "a", "-" * 511 + "1", "- " * 255 + "1", "~" * 512,
    "input" + ".a" * 250, "input" + "[0]" * 160, "1" + "-1" * 250, "1" + "<1" * 250, "true" + "&&true" * 80,
    "true?1:" * 70 + "1", "true?" * 70 + "1" + ":1" * 70, "size(" * 100 + "1" + ")" * 100, "9" * 500, "1e" + "9" * 500,
    "0x" + "f" * 500, "'" + "\\\\u0000" * 80 + "'", "'\\\\ud800'", "'\\\\U00110000'", "b'\\\\xff'", "//" * 256,
    "`" * 512,
    "input.s.matches('" + "(" * 200 + "')", "input.s.matches('" + "(x+)+" * 40 + "y')", "input.s.matches('(.*){20}y')",
    "input.s.contains(input.t)", "+".join(["input.l"] * 16), "+".join(["input.s"] * 16), "input.l == input.l",
    "input", "size(input)", "input == input", "has(input.a)", "[input, input] == [input]", "google.protobuf.Any{}",
    "timestamp('9999-12-31T23:59:59Z') + duration('9999h')", "duration('999999999999h')", "timestamp(input.n)",
    "int(1e308)", "uint(-1)", "-9223372036854775808 / -1", "-9223372036854775808 % -1", "string(b'\\\\xff')",
    "type(type(1))", "{1: 2, 1: 3}", "{[1]: 2}", "{1.5: 2}", "{null: 1}", "\\ud800", "\\0", "\\U0001f600",
]
inputs = [
    None, {}, [], "", {"s": "x" * 32000, "t": "x" * 700, "n": 2**62}, {"l": list(range(9000))}, {"l": [{}] * 4000},
    deep(30_000, lambda value: [value]), deep(30_000, lambda value: {"a": value}), "x" * 1_000_000,
    list(range(200_000)), {str(n): n for n in range(60_000)}, 2**70, -(2**70), 1e308,
    "\\ud800", "a\\0b", {"\\ud800": 1}, {"a\\0": 1},
]
pieces = ["input", ".a", "[0]", "['a']", "(", ")", "[", "]", "{", "}", ":", "?", ",", "+", "-", "!", "==", "<", "&&"]
pieces += ["size(", ".matches('a+')", "1", "-1", "2.5", "'x'", "null", "true", "string(", "duration(", "in "]
pieces += ["9223372036854775807"]
chance = random.Random(7)
sources += ["".join(chance.choice(pieces) for _ in range(chance.randrange(1, 40)))[:512] for _ in range(1500)]
evaluated = 0
for source in sources:
    try:
        expression = compile_expression(source)
    except ExpressionError:
        continue
    for value in inputs:
        try:
            result = expression.evaluate({"input": value, "metadata": {}, "run": {}})
            type_name(result), as_key(result)
        except ExpressionError:
            pass
        evaluated += 1
print(evaluated)
"""


def test_nothing_that_is_said_or_sent_ends_the_process() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", HOSTILE], capture_output=True, text=True, timeout=120, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 500

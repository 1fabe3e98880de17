"""What a run draws on by its task's policy, and which policies can never work."""

import json
import re
from typing import Any

import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.domain.policies import (
    PLAIN,
    Draws,
    FlowPolicy,
    GroupDraw,
    RateDraw,
    RateRule,
    StaticLimit,
    Sticky,
)
from hurlbat_dispatcher.domain.runs import Submission, Task
from hurlbat_dispatcher.errors import Invalid
from hurlbat_dispatcher.keys import check_policies, check_policy, draws_of
from hurlbat_dispatcher.registry import to_flow

LIMITS = {
    "cdn": StaticLimit("cdn", 5, 1000),
    "held": StaticLimit("held", 0, 1000),
    "mail": StaticLimit("mail", 9, 60_000),
}
NO_JSON = "{"


def _policy(**said: Any) -> TaskPolicy:
    return TaskPolicy.model_validate({"name": "resize", **said})


def _draws(input: Any, *, parent_worker: str | None = None, metadata: str = "{}", **said: Any) -> Draws:
    text = input if input is NO_JSON else json.dumps(input)
    task = Task("resize", priority=2, flow=to_flow(_policy(**said)))
    return draws_of(task, Submission("resize", text, metadata), "r1", parent_worker, LIMITS)


def _refusal(input: Any, **said: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        _draws(input, **said)
    return caught.value


# -- at a submit -------------------------------------------------------------------------------------------------------


def test_a_plain_task_costs_nothing_and_its_input_is_not_looked_at() -> None:
    assert _draws(NO_JSON) is PLAIN
    assert _draws(NO_JSON, slot_cost=3) == Draws(cost=3)


def test_only_what_the_expressions_read_is_parsed() -> None:
    rules = [{"key": '"all"'}, {"key": "metadata.a"}, {"key": "run.task"}]
    found = _draws(NO_JSON, metadata='{"a": "k"}', concurrency=rules)
    assert [group.value for group in found.groups] == ["all", "k", "resize"]


def test_the_input_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    def decode(text: str) -> Any:
        parsed.append(text)
        return json.loads(text)

    monkeypatch.setattr("hurlbat_dispatcher.keys._DECODE", decode)
    _draws(
        {"a": 1, "b": 2},
        concurrency=[{"key": "input.a"}, {"key": "input.b"}],
        rate_limits=[{"key": "cdn", "units": "input.a"}],
    )
    assert parsed == ['{"a": 1, "b": 2}']


def test_each_rule_has_a_group_of_its_own_and_a_key_of_null_drops_it() -> None:
    rules = [{"key": "input.user"}, {"key": "input.site", "name": "site"}, {"key": "input.none"}]
    assert _draws({"user": 7, "site": "s1", "none": None}, concurrency=rules).groups == (
        GroupDraw("task:resize:input.user", "7"),
        GroupDraw("name:site", "s1"),
    )


def test_a_run_knows_itself() -> None:
    task = Task("resize", priority=2, flow=to_flow(_policy(concurrency=[{"key": KEY_OF_RUN}])))
    [plain] = draws_of(task, Submission("resize"), "r1", None, {}).groups
    [child] = draws_of(task, Submission("resize", priority=9, parent="p1"), "r2", None, {}).groups
    assert (plain.value, child.value) == ("r1 resize 2 none", "r2 resize 9 p1")


KEY_OF_RUN = (
    'run.id + " " + run.task + " " + string(run.priority) + " " + (run.parent == null ? "none" : string(run.parent))'
)


def test_units_of_static_limits_are_numbers_or_expressions() -> None:
    rules = [{"key": "cdn"}, {"key": "mail", "units": "size(input.to)"}, {"key": "held", "units": 100}]
    assert _draws({"to": ["a", "b"]}, rate_limits=rules).rates == (
        RateDraw("cdn", 1),
        RateDraw("mail", 2),
        RateDraw("held", 100),  # a limit of 0 holds, and refuses nothing
    )


def test_dynamic_limits_are_numbers_or_expressions() -> None:
    by_plan = {
        "dynamic_key": "input.user",
        "units": 2,
        "limit": '{"pro": 10}[input.plan]',
        "duration": 'duration("1m")',
    }
    by_host = {"dynamic_key": "input.host", "limit": 5, "duration": 0.25}
    assert _draws({"user": 7, "plan": "pro", "host": "a"}, rate_limits=[by_plan, by_host]).rates == (
        RateDraw("7", 2, 10, 60_000),
        RateDraw("a", 1, 5, 250),
    )
    assert _draws({"host": None}, rate_limits=[by_host]).rates == ()
    assert _draws({"host": "a", "n": 0}, rate_limits=[{**by_host, "units": "input.n"}]).rates == ()


def test_no_units_are_no_draw() -> None:
    assert _draws({"n": 0}, rate_limits=[{"key": "cdn", "units": "input.n"}]).rates == ()


def test_two_dynamic_rules_that_come_to_the_same_are_one_draw() -> None:
    rules = [
        {"dynamic_key": f"input.{name}", "units": 2, "limit": limit, "duration": 1}
        for name, limit in (("a", 9), ("b", 5))
    ]
    assert _draws({"a": "k", "b": "k"}, rate_limits=rules).rates == (RateDraw("k", 4, 5, 1000),)
    assert _draws({"a": "k", "b": "k"}, rate_limits=rules[::-1]).rates == (RateDraw("k", 4, 5, 1000),)
    assert len(_draws({"a": "k", "b": "l"}, rate_limits=rules).rates) == 2
    assert _refusal({"a": "k", "b": "k"}, rate_limits=[{**rules[0], "units": 4}, rules[1]]).code == "units_above_limit"


def test_a_sticky_run_wants_the_worker_of_its_parent() -> None:
    assert _draws(NO_JSON, sticky="soft", parent_worker="w1") == Draws(worker="w1")
    assert _draws(NO_JSON, sticky="hard", parent_worker="w1") == Draws(worker="w1", only=True)
    assert _draws(NO_JSON, sticky="hard", slot_cost=2) == Draws(cost=2)
    assert to_flow(_policy(sticky="hard")).sticky is Sticky.HARD


@pytest.mark.parametrize(
    ("said", "code", "policy", "sentence"),
    [
        (
            {"concurrency": [{"key": "run.id"}, {"key": "input.nothing"}]},
            "expression_failed",
            "concurrency[1].key",
            "concurrency[1].key: input has no member nothing; send one",
        ),
        ({"concurrency": [{"key": "input.list"}]}, "key_wrong_type", "concurrency[0].key", "this is list"),
        ({"concurrency": [{"key": "input.long"}]}, "key_too_long", "concurrency[0].key", "longer than 256 bytes"),
        ({"rate_limits": [{"key": "nope"}]}, "rate_limit_unknown", "rate_limits[0].key", "PUT /rate-limits/nope first"),
        (
            {"rate_limits": [{"key": "cdn", "units": "input.n"}]},
            "units_above_limit",
            "rate_limits[0].units",
            "the run takes 6 units, and the limit is 5: it could never start",
        ),
        ({"rate_limits": [{"key": "cdn", "units": 6}]}, "units_above_limit", "rate_limits[0].units", "takes 6 units"),
        (
            {"rate_limits": [{"key": "cdn", "units": "input.half"}]},
            "units_invalid",
            "rate_limits[0].units",
            "double 2.5",
        ),
        ({"rate_limits": [{"key": "cdn", "units": "-input.n"}]}, "units_invalid", "rate_limits[0].units", "this is -6"),
        (
            {"rate_limits": [{"key": "cdn", "units": "input.huge"}]},
            "units_invalid",
            "rate_limits[0].units",
            "from 0 to",
        ),
        (
            {"rate_limits": [{"key": "cdn", "units": "input.x"}]},
            "expression_failed",
            "rate_limits[0].units",
            "no member x",
        ),
        (
            {"rate_limits": [{"dynamic_key": "input.list", "limit": 1, "duration": 1}]},
            "key_wrong_type",
            "rate_limits[0].dynamic_key",
            "this is list",
        ),
        (
            {"rate_limits": [{"dynamic_key": "run.id", "units": "input.n", "limit": 5, "duration": 1}]},
            "units_above_limit",
            "rate_limits[0].units",
            "the run takes 6 units, and the limit is 5",
        ),
        (
            {"rate_limits": [{"dynamic_key": "input.n", "limit": "input.zero", "duration": 1}]},
            "limit_invalid",
            "rate_limits[0].limit",
            "limit must be from 1 to 1000000000; this is 0",
        ),
        (
            {"rate_limits": [{"dynamic_key": "input.n", "limit": 1, "duration": "input.zero"}]},
            "duration_invalid",
            "rate_limits[0].duration",
            "duration must be from 0.01 to 31622400; this is 0",
        ),
        (
            {"rate_limits": [{"dynamic_key": "input.n", "limit": 1, "duration": "input.long"}]},
            "duration_invalid",
            "rate_limits[0].duration",
            "this is string",
        ),
    ],
)
def test_what_the_input_makes_impossible_is_refused_with_its_rule(
    said: dict[str, Any], code: str, policy: str, sentence: str
) -> None:
    given = {"list": [1], "long": "x" * 257, "n": 6, "half": 2.5, "huge": 10**400, "zero": 0}
    problem = _refusal(given, **said)
    assert (problem.status, problem.code, problem.extra["policy"]) == (422, code, policy)
    assert sentence in problem.detail
    assert problem.extra["rule"]


def test_an_input_that_is_no_json_is_refused() -> None:
    assert "the input of the run is no JSON" in _refusal(NO_JSON, concurrency=[{"key": "input.a"}]).detail
    deep = Submission("resize", "[" * 100_000 + "]" * 100_000)
    with pytest.raises(Invalid, match="the input of the run is no JSON"):
        draws_of(Task("resize", flow=to_flow(_policy(concurrency=[{"key": "input.a"}]))), deep, "r1", None, {})


def test_a_static_key_that_is_drawn_on_twice_is_one_draw() -> None:
    """No registration has this any more, but a task may have been stored before."""
    flow = FlowPolicy(rate_limits=(RateRule("cdn", units=2), RateRule("cdn", units=1)))
    assert draws_of(Task("resize", flow=flow), Submission("resize"), "r1", None, LIMITS).rates == (RateDraw("cdn", 3),)


# -- at a registration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (
            {"concurrency": [{"key": "run.id"}, {"key": "inptu.a"}]},
            r"task resize: concurrency\[1\].key: the expression 'inptu.a' is wrong, at character 1: there is no",
        ),
        ({"concurrency": [{"key": "[input.a]"}]}, "gives a list<dyn>, and a text or a number is wanted"),
        (
            {"rate_limits": [{"dynamic_key": "{", "limit": 1, "duration": 1}]},
            r"rate_limits\[0\].dynamic_key: .*character 2",
        ),
        ({"rate_limits": [{"key": "a", "units": "input.a == 1"}]}, "gives a bool, and a whole number is wanted"),
        ({"rate_limits": [{"dynamic_key": "run.id", "limit": "'x'", "duration": 1}]}, r"\.limit: .*whole number"),
        (
            {"rate_limits": [{"dynamic_key": "run.id", "limit": 1, "duration": "'x'"}]},
            r"\.duration: .*number of seconds",
        ),
    ],
)
def test_an_expression_that_could_never_do_is_refused_beforehand(said: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_policy(_policy(**said))
    assert re.search(sentence, check_policies([_policy(), _policy(**said)], {}) or "")


def test_good_rules_pass() -> None:
    rules = [{"key": "input.a"}, {"key": "input.a", "name": "n"}, {"key": 'input.a == 1 ? "x" : null'}]
    static = {"key": "cdn", "units": "size(input.a)"}
    dynamic = {"dynamic_key": "input.a", "limit": 5, "duration": "duration(input.d)"}
    check_policy(_policy(concurrency=rules, rate_limits=[static, dynamic, {**dynamic, "duration": 60}]))
    assert check_policies([_policy(concurrency=rules)], {}) is None


def _shared(task: str, strategy: str) -> TaskPolicy:
    return TaskPolicy.model_validate(
        {"name": task, "concurrency": [{"key": "run.id", "name": "n", "strategy": strategy}]}
    )


def test_rules_of_one_name_have_one_strategy() -> None:
    newest, turns = "CANCEL_NEWEST", "GROUP_ROUND_ROBIN"
    a, b = _shared("a", newest), _shared("b", turns)
    sentence = (
        "the concurrency rule n has the strategy CANCEL_NEWEST in task a and GROUP_ROUND_ROBIN in task b;"
        " rules of one name share their groups, so give both one"
    )
    assert check_policies([a, b], {}) == sentence
    assert check_policies([a], {"b": b}) == sentence
    assert check_policies([a], {"a": _shared("a", turns), "b": _shared("b", newest)}) is None
    assert check_policies([_policy()], {"a": a, "b": b}) is None  # that was so before, and is none of its business

"""What is said of a task is kept as it is where it is surely good, and the models of a policy agree to that."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from hurlbat import Hurlbat
from hurlbat.errors import TaskInvalid
from hurlbat.policy import TaskPolicy
from hurlbat.terms import _PLAIN, Terms, surely_good

AT_THE_LIMIT: list[dict[str, Any]] = [
    *({"retries": 0}, {"retries": 1000}, {"priority": -1000}, {"priority": 1000}, {"slot_cost": 1}),
    *({"slot_cost": 10_000}, {"execution_timeout": 31_536_000}, {"execution_timeout": 0.001}, {"sticky": "hard"}),
    *({"schedule_timeout": 31_536_000.0}, {"batch_size": 2}, {"batch_size": 1000}, {"on_failure": "n" * 128}),
    *({"batch_size": 2, "batch_timeout": 0.01}, {"batch_size": 2, "batch_timeout": 86_400}),
    *({"batch_size": 2, "batch_key": "k" * 512}, {"name": "n" * 128}, {"name": "a.b:c-d_1"}),
]
BEYOND: list[dict[str, Any]] = [
    *({"retries": -1}, {"retries": 1001}, {"priority": -1001}, {"priority": 1001}, {"slot_cost": 0}),
    *({"slot_cost": 10_001}, {"execution_timeout": 31_536_001}, {"execution_timeout": 0}, {"sticky": "firm"}),
    *({"schedule_timeout": float("nan")}, {"batch_size": 1}, {"batch_size": 1001}, {"on_failure": "n" * 129}),
    *({"batch_size": 2, "batch_timeout": 0.009}, {"batch_size": 2, "batch_timeout": 86_400.5}, {"batch_timeout": 1}),
    *({"batch_size": 2, "batch_key": "k" * 513}, {"batch_key": "k"}, {"name": "n" * 129}, {"name": "work\n"}),
    *({"name": ""}, {"on_failure": "work"}, {"retries": "many"}, {"priority": 1.0}, {"slot_cost": True}),
]


@pytest.mark.parametrize("said", AT_THE_LIMIT, ids=str)
def test_what_is_within_the_limits_needs_no_model(said: dict[str, Any]) -> None:
    assert surely_good({"name": "work"} | said)
    policy = Terms("task work", {"name": "work"} | said).policy
    assert {name: getattr(policy, name) for name in said} == said


@pytest.mark.parametrize("said", BEYOND, ids=str)
def test_what_is_beyond_is_refused_where_the_task_is_declared(said: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        TaskPolicy(**{"name": "work"} | said)
    message = refused.value.errors()[0]["msg"].removeprefix("Value error, ")
    with pytest.raises(TaskInvalid) as told:

        @Hurlbat().task(**{"name": "work"} | said)
        def work(input: list[int]) -> None: ...

    assert message in str(told.value)


names = st.sampled_from(["work", "other", "a b", "", "x" * 129, "work\n", "é", "a.b"])
numbers = st.integers(-1100, 11_000) | st.floats() | st.sampled_from([31_536_000, 31_536_001, 0.01, 86_400, 86_401])
anything = numbers | names | st.booleans() | st.none() | st.sampled_from(["soft", "hard", "k" * 513, "3"])
options = st.dictionaries(st.sampled_from([*_PLAIN, "labels", "nonsense"]), anything, max_size=5)


@settings(max_examples=1500)
@given(options)
def test_whatever_is_surely_good_is_a_policy(said: dict[str, Any]) -> None:
    said = {name: value for name, value in ({"name": "work"} | said).items() if value is not None}
    if surely_good(said):
        policy = TaskPolicy(**said)
        assert {name: getattr(policy, name) for name in said} == said


def test_what_was_said_without_a_model_is_known_to_it() -> None:
    assert set(_PLAIN) < set(TaskPolicy.model_fields)

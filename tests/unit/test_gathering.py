"""The rules of gathering: what one run takes in, until when, and when it is due."""

import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.domain.gathering import Gather, GatherKind, add, begin, due_at, has_room, takes
from hurlbat_dispatcher.domain.runs import Submission, Task
from hurlbat_dispatcher.entries import entry_of
from hurlbat_dispatcher.errors import Invalid
from hurlbat_dispatcher.registry import Registry, to_flow, to_gather

TRAILING = Gather(GatherKind.TRAILING, 1_000)
LEADING = Gather(GatherKind.LEADING, 1_000)
BATCH = Gather(GatherKind.BATCH, 1_000, size=3)


def test_a_trailing_debounce_is_due_when_none_has_come_for_its_period() -> None:
    gathered = begin(TRAILING, "r", 1, 5_000)
    assert due_at(TRAILING, gathered) == 6_000
    assert takes(TRAILING, gathered, 5_999)
    assert not takes(TRAILING, gathered, 6_000)
    assert due_at(TRAILING, add(TRAILING, gathered, 1, 5_999)) == 6_999


def test_a_trailing_debounce_waits_no_longer_than_its_longest_wait() -> None:
    gather = Gather(GatherKind.TRAILING, 1_000, max_wait=2_500)
    gathered = begin(gather, "r", 1, 0)
    dues = []
    for now in (900, 1_800, 2_400):
        gathered = add(gather, gathered, 1, now)
        dues.append(due_at(gather, gathered))
    assert dues == [1_900, 2_500, 2_500]
    assert not takes(gather, gathered, 2_500)


def test_a_longest_wait_that_was_made_shorter_meanwhile_is_over_now() -> None:
    gathered = begin(TRAILING, "r", 1, 0)
    assert due_at(TRAILING, add(Gather(GatherKind.TRAILING, 100, max_wait=200), gathered, 1, 900)) == 900


def test_a_leading_debounce_is_due_at_once_and_takes_what_follows_within_its_period_of_the_last() -> None:
    gathered = begin(LEADING, "r", 1, 5_000)
    assert due_at(LEADING, gathered) == 5_000
    gathered = add(LEADING, gathered, 1, 5_900)
    assert (due_at(LEADING, gathered), takes(LEADING, gathered, 6_899)) == (5_000, True)
    assert not takes(LEADING, gathered, 6_900)


def test_a_batch_is_due_a_while_after_its_first_or_when_it_is_full() -> None:
    one = begin(BATCH, "r", 4, 0)
    two = add(BATCH, one, 5, 900)
    three = add(BATCH, two, 6, 950)
    assert [due_at(BATCH, batch) for batch in (one, two, three)] == [1_000, 1_000, 950]
    assert [takes(BATCH, batch, 949) for batch in (one, two, three)] == [True, True, False]
    assert not takes(BATCH, two, 1_000)


def test_a_batch_knows_the_size_of_its_list() -> None:
    texts = ["1", '"ab"', "[]"]
    batch = begin(BATCH, "r", len(texts[0]), 0)
    for text in texts[1:]:
        batch = add(BATCH, batch, len(text), 0)
    listed = f"[{','.join(texts)}]"
    assert batch.bytes == len(listed)
    assert has_room(BATCH, batch, 3, len(listed) + 4)
    assert not has_room(BATCH, batch, 3, len(listed) + 3)
    assert has_room(TRAILING, batch, 1 << 40, 0)


def test_a_batch_that_may_hold_fewer_now_takes_no_more() -> None:
    batch = add(BATCH, begin(BATCH, "r", 1, 0), 1, 0)
    assert not takes(Gather(GatherKind.BATCH, 1_000, size=2), batch, 1)


# -- at a submit -------------------------------------------------------------------------------------------------------


def _entry(submission: Submission, **said: object) -> str | None:
    policy = TaskPolicy.model_validate({"name": "echo", **said})
    registry = Registry(tasks={"echo": Task("echo", flow=to_flow(policy), gather=to_gather(policy))})
    return entry_of("r", 1, submission, registry, None).gather


def test_submits_gather_by_the_value_of_the_key_and_all_of_a_task_where_it_has_none() -> None:
    keyed = {"debounce": {"period": 5, "key": "input.a"}}
    assert _entry(Submission("echo", '{"a": 7.0}'), **keyed) == "trailing:7"
    assert _entry(Submission("echo", '{"a": null}'), **keyed) is None
    assert _entry(Submission("echo"), debounce={"period": 5}) == "trailing:"
    assert _entry(Submission("echo"), debounce={"period": 5, "mode": "leading"}) == "leading:"
    assert _entry(Submission("echo")) is None


def test_a_batch_gathers_only_what_draws_on_the_same_and_a_debounce_whatever_it_draws_on() -> None:
    some = [Submission("echo", f'{{"user": "{user}", "all": 1}}') for user in "aab"]
    for rule, more, names in (
        ({"concurrency": [{"key": "input.user"}]}, {"batch_size": 2}, 2),
        ({"concurrency": [{"key": "input.all"}]}, {"batch_size": 2}, 1),
        ({"throttle": {"limit": 1, "period": 5, "key": "input.user"}}, {"batch_size": 2}, 2),
        ({"concurrency": [{"key": "input.user"}]}, {"debounce": {"period": 5}}, 1),
    ):
        assert len({_entry(one, **rule, **more) for one in some}) == names, (rule, more)


@pytest.mark.parametrize(
    ("said", "member", "expression"),
    [
        ({"debounce": {"period": 5, "key": "input.a"}}, "debounce.key", "input.a"),
        ({"batch_size": 5, "batch_key": "input.b"}, "batch_key", "input.b"),
        ({"throttle": {"limit": 5, "period": 1, "key": "input.c"}}, "throttle.key", "input.c"),
    ],
)
def test_a_key_that_fails_names_its_member(said: dict[str, object], member: str, expression: str) -> None:
    with pytest.raises(Invalid) as caught:
        _entry(Submission("echo", "{}"), **said)
    problem = caught.value
    assert (problem.code, problem.extra["policy"], problem.extra["expression"]) == (
        "expression_failed",
        member,
        expression,
    )
    assert problem.detail.startswith(f"{member}: ")


@pytest.mark.parametrize("said", [{"debounce": {"period": 5, "key": "input"}}, {"batch_size": 5, "batch_key": "input"}])
def test_what_is_gathered_cannot_be_delayed(said: dict[str, object]) -> None:
    for more in ({"delay": 0.0}, {"run_at": 5}):
        with pytest.raises(Invalid) as caught:
            _entry(Submission("echo", "1", **more), **said)
        assert (caught.value.code, caught.value.extra["field"]) == ("gathered_not_delayed", next(iter(more)))
        assert _entry(Submission("echo", "null", **more), **said) is None

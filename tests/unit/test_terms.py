"""Whose policy counts where several tasks share a rule."""

from hurlbat_dispatcher.domain.policies import ConcurrencyRule, FlowPolicy, Strategy
from hurlbat_dispatcher.domain.runs import Task
from hurlbat_dispatcher.domain.terms import RuleTerms, terms_of

ROTATES, CANCELS = Strategy.GROUP_ROUND_ROBIN, Strategy.CANCEL_NEWEST


def task(name: str, most: int, *workers: str, strategy: Strategy = ROTATES) -> Task:
    """Return a task with a rule that others share."""
    return Task(name, workers=workers, flow=FlowPolicy((ConcurrencyRule("input", most, strategy, "shared"),)))


def shared(*tasks: Task) -> RuleTerms:
    """Return the terms of the shared rule."""
    return terms_of(tasks, {}, {}, {}).rules["name:shared"]


def test_the_smallest_number_of_the_tasks_that_are_served_counts() -> None:
    assert shared(task("a", 5, "w"), task("b", 3, "v"), task("c", 4, "w")) == RuleTerms(3, ROTATES)


def test_a_task_that_nobody_serves_any_more_has_no_say() -> None:
    left = task("a", 1)
    assert shared(left, task("b", 5, "w", strategy=CANCELS)) == RuleTerms(5, CANCELS)
    assert shared(task("b", 5, "w", strategy=CANCELS), left) == RuleTerms(5, CANCELS)


def test_runs_of_a_task_that_nobody_serves_are_still_held_by_its_rule() -> None:
    assert shared(task("a", 2)) == RuleTerms(2, ROTATES)

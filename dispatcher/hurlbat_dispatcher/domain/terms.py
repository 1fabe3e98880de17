"""The terms in force: who may serve which task, how many runs a rule lets run, which limits there are."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from hurlbat_dispatcher.domain.policies import FlowPolicy, StaticLimit, Strategy
from hurlbat_dispatcher.domain.runs import Task
from hurlbat_dispatcher.domain.workers import NOWHERE, Worker

RANKING = frozenset(
    {
        Strategy.CANCEL_IN_PROGRESS,
        Strategy.CANCEL_NEWEST,
        Strategy.QUEUE_NEWEST_ONLY,
        Strategy.QUEUE_OLDEST_ONLY,
    }
)
"""Strategies that rank the runs of a group and cancel some."""


class RuleTerms(NamedTuple):
    """What a concurrency rule says now."""

    max_runs: int
    strategy: Strategy


class TaskTerms(NamedTuple):
    """The workers that may take a task's runs, by how well each is liked, and whether the task is paused."""

    workers: tuple[tuple[str, int], ...] = ()
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """All terms in force. `pauses`: rate limit keys by name, until when (ms) they are paused, None: till resumed."""

    tasks: Mapping[str, TaskTerms] = field(default_factory=dict)
    rules: Mapping[str, RuleTerms] = field(default_factory=dict)
    limits: Mapping[str, StaticLimit] = field(default_factory=dict)
    pauses: Mapping[str, int | None] = field(default_factory=dict)


def terms_of(
    tasks: Iterable[Task],
    workers: Mapping[str, Worker],
    limits: Mapping[str, StaticLimit],
    pauses: Mapping[str, int | None],
) -> Terms:
    """Gather the terms.

    A rule that several tasks share holds them to the smallest number of those that a worker serves; what nobody serves
    any more counts only where nobody else has the rule.
    """
    rules: dict[str, RuleTerms] = {}
    found: dict[str, TaskTerms] = {}
    for task in sorted(tasks, key=lambda task: not task.is_served):
        for rule in task.flow.concurrency:
            name = rule.id_for(task.name)
            known = rules.get(name)
            if known is not None and not task.is_served:
                continue
            most = rule.max_runs if known is None else min(known.max_runs, rule.max_runs)
            rules[name] = RuleTerms(most, rule.strategy if known is None else known.strategy)
        served = _eligible(task, workers) if task.graph is None else ((NOWHERE, 0),)
        found[task.name] = TaskTerms(served, task.paused)
    return Terms(found, rules, dict(limits), dict(pauses))


def _eligible(task: Task, workers: Mapping[str, Worker]) -> tuple[tuple[str, int], ...]:
    eligible = []
    for name in task.workers:
        worker = workers.get(name)
        score = None if worker is None else liking(task.flow, worker.labels)
        if score is not None:
            eligible.append((name, score))
    return tuple(eligible)


def liking(policy: FlowPolicy, labels: Mapping[str, str]) -> int | None:
    """Return how well a task likes a worker with these labels: the weights that match; None: one required does not."""
    score = 0
    for wanted in policy.labels:
        if labels.get(wanted.key) == wanted.value:
            score += 0 if wanted.required else wanted.weight
        elif wanted.required:
            return None
    return score

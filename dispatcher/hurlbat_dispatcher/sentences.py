"""Sentences that say why a run waits or ended, and what would free it."""

import json
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

from hurlbat_dispatcher.domain.holding import BudgetView, Kind
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.policies import throttle_prefix
from hurlbat_dispatcher.domain.runs import Run, RunKind
from hurlbat_dispatcher.domain.workers import SERVING, WorkerState
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.telling import rfc3339, span

_CONDITIONS: Final = {
    "skip_if": "its skip_if came true",
    "cancel_if": "its cancel_if came true",
    "wait_for can never come true": "its wait_for could never come true",
}
"""Reasons of nodes, as sentences go on with them."""


def holder_of(budgets: Sequence[BudgetView]) -> BudgetView | None:
    """Return the budget that holds the run; of several workers' slots the first."""
    return next((one for one in budgets if one.holds), None)


def why_ended(run: Run) -> str:
    """Say why a run ended as it did."""
    at = f" at {rfc3339(run.finished_at)}" if run.finished_at is not None else ""
    if run.state is RunState.COMPLETED:
        how = f" on worker {run.worker}, in attempt {run.attempt}" if run.attempt else ""
        return f"It completed{at}{how}."
    if run.state is RunState.FAILED:
        error = json.loads(run.error or "{}")
        if not run.attempt and run.kind is not RunKind.TASK:
            return f"It failed{at}: {error.get('message') or 'no reason was given'}."
        said = ": ".join(str(error[name]) for name in ("code", "message") if error.get(name))
        used = f"all {run.max_attempts} tries were used" if run.max_attempts > 1 else "it had one try"
        tail = used if run.tries >= run.max_attempts else "it is not to be repeated"
        free = run.attempt - run.tries
        if free:
            tail += f"; {free} of its attempts {'was' if free == 1 else 'were'} not charged"
        return f"It failed{at} after attempt {run.attempt}: {said or 'no reason was given'} ({tail})."
    displaced = next((entry for entry in reversed(run.timeline) if entry.kind == "displaced"), None)
    if run.state is RunState.CANCELLED and run.reason == "concurrency" and displaced is not None:
        detail = displaced.detail
        by = f"run {detail['by']} took its place" if detail.get("by") else "there was no place for it"
        return f"It was cancelled{at} by the concurrency rule {detail['rule']} ({detail['strategy']}): {by}."
    reason = _CONDITIONS.get(run.reason or "", run.reason)
    return f"It was {run.state}{at}: {reason or 'no reason was given'}."


def why_held(task: str, budgets: Sequence[BudgetView], registry: Registry) -> str:
    """Say what holds a waiting run."""
    holder = holder_of(budgets)
    if holder is None:
        return "Nothing holds it: it starts in a moment."
    if holder.reserved_for is not None and holder.kind is not Kind.SLOTS:
        return f"{_named(holder, task)} is kept for run {holder.reserved_for}, which was passed over too often."
    match holder.kind:
        case Kind.PAUSE:
            return f"Task {task} is paused."
        case Kind.CONCURRENCY:
            return f"{_named(holder, task)} is full: {holder.used} of {holder.limit} runs are under way."
        case Kind.RATE_LIMIT:
            return _why_limited(holder, task)
        case Kind.SLOTS:
            return _why_no_slot(task, [one for one in budgets if one.holds], registry)


def how_to_free(task: str, budgets: Sequence[BudgetView], registry: Registry) -> str | None:
    """Say what would let a waiting run go on."""
    holder = holder_of(budgets)
    if holder is None:
        return None
    match holder.kind:
        case Kind.PAUSE:
            return f"Resume the task: POST /tasks/{task}/resume."
        case Kind.CONCURRENCY:
            return "The end of one of the runs that occupy it, or a higher max_runs."
        case Kind.RATE_LIMIT:
            return _how_to_lift(holder)
        case Kind.SLOTS:
            slots = [one for one in budgets if one.holds]
            if not slots[0].name:
                return f"A worker that serves task {task} and has the labels that it requires."
            working = [one for one in slots if _takes_work(one, registry)]
            if not working:
                return "A worker that takes runs again: see its problem in GET /workers."
            if all(_slots_of(one, registry) < one.units for one in working):
                return f"A worker with at least {slots[0].units} slots."
            if all(_is_away(one, registry) for one in working):
                return "The worker, when it can be reached again; it is tried every few seconds."
            return "The end of a run that occupies a slot, more slots, or another worker."


def _named(view: BudgetView, task: str) -> str:
    if view.kind is Kind.CONCURRENCY:
        return f"The concurrency group {view.key!r} of rule {view.name}"
    if _throttles(view, task):
        key = view.name.removeprefix(throttle_prefix(task))
        return f"The throttle of task {task}{'' if key == task else f' for {key!r}'}"
    return f"The {'dynamic ' if view.dynamic else ''}rate limit {view.name}"


def _throttles(view: BudgetView, task: str) -> bool:
    return bool(view.dynamic) and view.name.startswith(throttle_prefix(task))


def _why_limited(view: BudgetView, task: str) -> str:
    name, units = _named(view, task), "runs" if _throttles(view, task) else "units"
    until = f" There is room at {rfc3339(view.opens_at)}." if view.opens_at is not None else ""
    if view.note is not None:
        return f"{name}: {view.note}.{until}"
    if view.limit is None or view.units > view.limit:
        return f"{name} lets {view.limit or 0} units through, and the run takes {view.units}."
    takes = f", and the run takes {view.units}" if view.units > 1 else ""
    return f"{name} is used up: {view.used} of {view.limit} {units} in {span(view.duration or 0)}{takes}.{until}"


def _how_to_lift(view: BudgetView) -> str:
    path = f"/rate-limits/{quote(view.name, safe='')}"
    time = "Time, or " if view.opens_at is not None else ""
    if view.note == "it is paused":
        resume = f"the key: POST {path}/resume{'?dynamic=true' if view.dynamic else ''}."
        return f"Time, or resume {resume}" if time else f"Resume {resume}"
    if view.dynamic:
        return "Time." if time else "Cancel it and submit it anew."
    return f"{time}{'a' if time else 'A'} higher limit: PUT {path}."


def _takes_work(view: BudgetView, registry: Registry) -> bool:
    worker = registry.workers.get(view.name)
    return worker is not None and (worker.state in SERVING or worker.state is WorkerState.UNREACHABLE)


def _slots_of(view: BudgetView, registry: Registry) -> int:
    worker = registry.workers.get(view.name)
    return 0 if worker is None else worker.slots


def _is_away(view: BudgetView, registry: Registry) -> bool:
    worker = registry.workers.get(view.name)
    return worker is not None and worker.state is WorkerState.UNREACHABLE


def _why_no_slot(task: str, slots: Sequence[BudgetView], registry: Registry) -> str:
    if not slots[0].name:
        known = registry.tasks.get(task)
        if known is not None and known.workers:
            labels = ", ".join(f"{one.key}={one.value}" for one in known.flow.labels if one.required)
            wanted = f"has the labels that it requires ({labels})" if labels else "is the one that it sticks to"
            return f"No worker that serves task {task} {wanted}."
        return f"No registered worker serves task {task}."
    working = [one for one in slots if _takes_work(one, registry)]
    if not working:
        one = slots[0]
        worker = registry.workers.get(one.name)
        state = "gone" if worker is None else worker.state
        problem = "" if worker is None or not worker.problem or state == "paused" else f": {worker.problem}"
        others = f" (and {len(slots) - 1} more)" if len(slots) > 1 else ""
        return f"Worker {one.name} is {state}{problem}{others}."
    one = working[0]
    if all(_slots_of(view, registry) < view.units for view in working):
        most = max(_slots_of(view, registry) for view in working)
        return f"The run takes {one.units} slots, and no worker that serves task {task} has more than {most}."
    if all(_is_away(view, registry) for view in working):
        more = f" (and {len(working) - 1} more)" if len(working) > 1 else ""
        return f"Worker {one.name} cannot be reached, and is tried with one delivery at a time{more}."
    reserved = next((view.reserved_for for view in working if view.reserved_for), None)
    if reserved is not None and len(working) == 1:
        return f"Worker {one.name} is kept for run {reserved}, which needs many slots and was passed over too often."
    if len(working) > 1:
        return f"All slots of the {len(working)} workers that serve task {task} are taken."
    if one.note is not None:
        return f"Worker {one.name} has no room now: {one.note} ({one.used} in use)."
    takes = f", and the run takes {one.units}" if one.units > 1 else ""
    return f"All slots of worker {one.name} are taken ({one.used} of {one.limit}{takes})."

"""Say runs, workers and tasks in JSON. Payloads go out as the text that came in; times are RFC 3339 in UTC."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
from orjson import Fragment
from starlette.responses import Response

from hurlbat_dispatcher import (
    BudgetView,
    Explanation,
    Family,
    NodeView,
    Problem,
    RateLimit,
    Run,
    SigningKey,
    Task,
    TimelineEntry,
    Worker,
)

_NULL = Fragment(b"null")


class Json(Response):
    """An answer in JSON."""

    media_type = "application/json"

    def __init__(self, value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(orjson.dumps(value), status, headers)


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """Return the problem with the headers that belong to its status."""
    more = dict(headers or {})
    if problem.status == 401:
        scheme = "Basic" if problem.code == "webhook_unauthorized" else "Bearer"
        more["www-authenticate"] = f'{scheme} realm="hurlbat"'
    elif problem.status == 405:
        more["allow"] = ", ".join(problem.extra["allow"])
    elif problem.status in (429, 503):
        more["retry-after"] = str(max(1, math.ceil(problem.extra.get("retry_after", 1))))
    return Response(orjson.dumps(problem.as_json()), problem.status, more, "application/problem+json")


def page(items: Sequence[Any], next_cursor: str | None) -> dict[str, Any]:
    """Return a list as it is shown."""
    return {"items": items, "next_cursor": next_cursor}


def show_run(run: Run, *, timeline: bool = True, family: Family | None = None) -> dict[str, Any]:
    """Return a run as it is shown; in lists and answers to submits it comes without its timeline.

    Where one run alone is looked at, its `family` is shown as well: the nodes of a workflow, how many children it has.
    """
    shown = {
        "id": run.id,
        "task": run.task,
        "task_version": run.task_version,
        "kind": run.kind,
        "state": run.state,
        "attempt": run.attempt,
        "tries": run.tries,
        "max_attempts": run.max_attempts,
        "input": Fragment(run.input),
        "output": _raw(run.output),
        "error": _raw(run.error),
        "metadata": Fragment(run.metadata),
        "priority": run.priority,
        "worker": run.worker,
        "reason": run.reason,
        "cancelled_by": run.cancelled_by,
        "idempotency_key": run.idempotency_key,
        "parent": run.parent,
        "root": run.root,
        "node": run.node,
        "was_node": run.was_node,
        "child_key": run.child_key,
        "trigger": _raw(run.trigger),
        "created_at": rfc3339(run.created_at),
        "due_at": rfc3339(run.due_at),
        "started_at": _time(run.started_at),
        "finished_at": _time(run.finished_at),
        "expires_at": _time(run.expires_at),
    }
    if timeline:
        shown["timeline"] = [show_entry(entry) for entry in run.timeline]
    if family is not None:
        if family.nodes is not None:
            shown["nodes"] = [_show_node(node) for node in family.nodes]
        shown["children"] = {"total": sum(family.children.values()), "by_state": dict(family.children)}
    return shown


def _show_node(node: NodeView) -> dict[str, Any]:
    return {
        "name": node.name,
        "task": node.task,
        "state": node.state,
        "run": node.run,
        "parents": list(node.parents),
        "reason": node.reason,
        "started_at": _time(node.started_at),
        "finished_at": _time(node.finished_at),
    }


def show_entry(entry: TimelineEntry) -> dict[str, Any]:
    """Return an entry of a run's timeline as it is shown."""
    detail = {
        name: rfc3339(value) if name.endswith("_at") and isinstance(value, int) else value
        for name, value in entry.detail.items()
    }
    return {"at": rfc3339(entry.at), "kind": entry.kind, "attempt": entry.attempt, **detail}


def show_explanation(found: Explanation) -> dict[str, Any]:
    """Return why a run is as it is, as it is shown."""
    budgets = [_show_budget(one) for one in found.budgets]
    return {
        "run_id": found.run.id,
        "task": found.run.task,
        "state": found.run.state,
        "summary": found.summary,
        "held_by": next((one for one in budgets if one["holds"]), None),
        "budgets": budgets,
        "position": found.position,
        "earliest_start": _time(found.earliest_start),
        "frees": found.frees,
    }


def _show_budget(view: BudgetView) -> dict[str, Any]:
    return {
        "kind": view.kind,
        "name": view.name,
        "key": view.key,
        "limit": view.limit,
        "used": view.used,
        "units": view.units,
        "duration": None if view.duration is None else view.duration / 1000,
        "dynamic": view.dynamic,
        "room": view.room,
        "holds": view.holds,
        "opens_at": _time(view.opens_at),
        "occupied_by": list(view.occupied_by),
        "reserved_for": view.reserved_for,
        "note": view.note,
    }


def show_worker(worker: Worker) -> dict[str, Any]:
    """Return a worker as it is shown."""
    return {
        "name": worker.name,
        "url": worker.url,
        "mode": worker.mode,
        "state": worker.state,
        "problem": worker.problem,
        "slots": worker.slots,
        "window": worker.window,
        "pinned": worker.pinned,
        "in_flight": worker.in_flight,
        "max_batch": worker.max_batch,
        "tasks": list(worker.tasks),
        "labels": dict(worker.labels),
        "created_at": rfc3339(worker.created_at),
        "updated_at": rfc3339(worker.updated_at),
        "last_seen_at": _time(worker.last_seen_at),
        "keys": [_show_key(key) for key in worker.keys],
    }


def _show_key(key: SigningKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "algorithm": key.algorithm,
        "public_key": key.public_key,
        "created_at": _time(key.created_at),
        "until": _time(key.until),
    }


def show_task(task: Task) -> dict[str, Any]:
    """Return a task with the part of its policy that is in force."""
    backoff = task.backoff
    return {
        "name": task.name,
        "version": task.version,
        "retries": task.max_attempts - 1,
        "backoff": {
            "strategy": backoff.strategy,
            "initial": backoff.initial,
            "factor": backoff.factor,
            "max": backoff.max,
            "delays": list(backoff.delays),
            "jitter": backoff.jitter,
        },
        "execution_timeout": task.execution_timeout / 1000,
        "schedule_timeout": None if task.schedule_timeout is None else task.schedule_timeout / 1000,
        "priority": task.priority,
        "slot_cost": task.flow.slot_cost,
        "labels": {
            label.key: {"value": label.value, "required": label.required, "weight": label.weight}
            for label in task.flow.labels
        },
        "sticky": task.flow.sticky,
        "concurrency": [
            {"key": rule.key, "max_runs": rule.max_runs, "strategy": rule.strategy, "name": rule.name}
            for rule in task.flow.concurrency
        ],
        "rate_limits": [
            {"key": rule.key, "units": rule.units}
            if rule.key is not None
            else {"dynamic_key": rule.dynamic_key, "units": rule.units, "limit": rule.limit, "duration": rule.duration}
            for rule in task.flow.rate_limits
            if not rule.prefix
        ],
        **task.ways,
        "paused": task.paused,
        "workers": list(task.workers),
    }


def show_rate_limit(limit: RateLimit) -> dict[str, Any]:
    """Return a rate limit as it is shown."""
    return {
        "key": limit.key,
        "dynamic": limit.dynamic,
        "limit": limit.limit,
        "duration": None if limit.duration is None else limit.duration / 1000,
        "used": limit.used,
        "waiting": limit.waiting,
        "paused": limit.paused,
        "paused_until": _time(limit.paused_until),
        "updated_at": _time(limit.updated_at),
    }


def rfc3339(ms: int) -> str:
    """Return a time in milliseconds since the epoch as `2030-01-31T12:00:00.000Z`."""
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(ms: int | None) -> str | None:
    return None if ms is None else rfc3339(ms)


def _raw(text: str | None) -> Fragment:
    return _NULL if text is None else Fragment(text)

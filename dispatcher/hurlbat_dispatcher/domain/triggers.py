"""What started a run besides a submit, as it is kept with the run, shown, and told to its worker: raw JSON."""

import json
from typing import Any


def by_event(event: str, key: str, scope: str | None, *, filter: str | None = None, payload: str | None = None) -> str:
    """Return the trigger of a run that an event started; `payload` is the raw JSON of the filter's own."""
    return _object('"payload":' + (payload or "null"), type="event", event=event, key=key, scope=scope, filter=filter)


def by_schedule(schedule: str, due_at: str, *, manual: bool) -> str:
    """Return the trigger of a run that a schedule started; `due_at` is RFC 3339."""
    return _object("", type="schedule", schedule=schedule, due_at=due_at, manual=manual)


def by_failure(run_id: str, task: str) -> str:
    """Return the trigger of a run that was started as another one had finally failed."""
    return _object("", type="failure", run=run_id, task=task)


def is_failure(trigger: str | None) -> bool:
    """Tell whether the run was started by the failure of another."""
    return trigger is not None and trigger.startswith('{"type":"failure"')


def _object(more: str, **members: Any) -> str:
    text = json.dumps(members, separators=(",", ":"))
    return f"{text[:-1]},{more}}}" if more else text

"""What started a run besides a submit, as it is kept with the run, shown, and told to its worker: raw JSON."""

import json
from collections.abc import Mapping
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


def by_workflow(run_id: str, workflow: str, node: str, parents: str, conditions: str) -> str:
    """Return the trigger of a node's run.

    `parents` is raw JSON, by the names of nodes the run and its state, `conditions` what it has waited for.
    """
    more = f'"parents":{parents},"conditions":{conditions}'
    return _object(more, type="workflow", workflow=workflow, run=run_id, node=node)


def is_workflow(trigger: str | None) -> bool:
    """Tell whether the run is a node that was reached."""
    return trigger is not None and trigger.startswith('{"type":"workflow"')


def parents_in(trigger: str) -> dict[str, str]:
    """Return the runs of a node's parents that have ended well, by the names of their nodes."""
    parents = json.loads(trigger)["parents"].items()
    return {name: parent["run"] for name, parent in parents if parent["state"] in ("completed", "skipped")}


def is_failure(trigger: str | None) -> bool:
    """Tell whether the run was started by the failure of another."""
    return trigger is not None and trigger.startswith('{"type":"failure"')


def _object(more: str, **members: Any) -> str:
    text = json.dumps(members, separators=(",", ":"))
    return f"{text[:-1]},{more}}}" if more else text


def tell_parents(parents: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    """Return the outputs of a node's parents as it is sent them: `parents` are runs by name, `outputs` JSON by run."""
    told = ",".join(f"{json.dumps(name)}:{outputs.get(run_id, 'null')}" for name, run_id in parents.items())
    return f"{{{told}}}"

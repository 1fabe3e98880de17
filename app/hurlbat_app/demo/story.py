"""Tell a run's timeline the way a person would: what happened, how long after its submit, and why."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

MAX_CHARS = 100
_SAID = {"at", "kind", "attempt", "started_at", "worker", "due_at", "code", "type", "message", "value", "level"}


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, so many seconds after the run was submitted."""

    after: float
    text: str


def tell(run: Mapping[str, Any]) -> list[Moment]:
    """Return what happened to a run as `GET /runs/{id}` shows it, in order."""
    begun = _seconds(run["created_at"])
    told = {entry["attempt"] for entry in run["timeline"] if entry["kind"] == "started"}
    moments = []
    for entry in run["timeline"]:
        if "started_at" in entry and entry["started_at"] is not None and entry["attempt"] not in told:
            moments.append((_seconds(entry["started_at"]), _started(entry)))
        moments.append((_seconds(entry["at"]), _say(entry, run)))
    return [Moment(max(0.0, at - begun), text) for at, text in sorted(moments, key=lambda moment: moment[0])]


def moment(entry: Mapping[str, Any], run: Mapping[str, Any]) -> Moment:
    """Return one entry of a run's timeline; of the run only what is known of it so far is said."""
    return Moment(max(0.0, _seconds(entry["at"]) - _seconds(run["created_at"])), _say(entry, run))


def ending(run: Mapping[str, Any]) -> str:
    """Return how the run ended, in a few words."""
    begun, ended = _seconds(run["created_at"]), _seconds(run["finished_at"] or run["created_at"])
    return f"{run['state']} after {ended - begun:.2f} s{_attempts(run)}"


def _attempts(run: Mapping[str, Any]) -> str:
    """Return how often a run was started, and how many of these starts were not charged, where some were not."""
    count = run["attempt"]
    free = count - run.get("tries", count)
    said = f" and {count} attempt{'' if count == 1 else 's'}" if count else ""
    if not free:
        return said
    if free < count:
        return f"{said} ({free} of them not charged)"
    return f"{said} ({'not' if count == 1 else 'none'} charged)"


def short(value: Any) -> str:
    """Return a value as JSON, cut where it becomes long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_CHARS else f"{text[:MAX_CHARS]}…"


def _say(entry: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    match entry["kind"]:
        case "created":
            return f"{_origin(run.get('trigger'))} with {short(run['input'])}"
        case "scheduled" if entry.get("due_at"):
            return f"waits for its time, in {_seconds(entry['due_at']) - _seconds(entry['at']):.1f} s"
        case "moved" if entry.get("due_at"):
            return f"moved, to start in {_seconds(entry['due_at']) - _seconds(entry['at']):.1f} s"
        case "started":
            return _started(entry)
        case "node" if entry.get("node"):
            return f"node {entry['node']}: {entry.get('state')}"
        case "progress":
            value = entry.get("value")
            return " ".join(part for part in (None if value is None else f"{value:4.0%}", entry.get("message")) if part)
        case "log":
            return f"{entry.get('level', 'info')}: {entry.get('message')}"
        case "retry":
            again = _seconds(entry["due_at"]) - _seconds(entry["at"])
            return f"attempt {entry['attempt']} failed: {_error(entry)}; again in {again:.1f} s"
        case "completed":
            return f"completed with {short(run['output'])}" if _is_its_end(entry, run) else "completed"
        case "failed":
            return f"failed: {_error((run['error'] if _is_its_end(entry, run) else None) or entry)}"
        case kind:
            return " ".join([kind.replace("_", " "), *_rest(entry)])


def _is_its_end(entry: Mapping[str, Any], run: Mapping[str, Any]) -> bool:
    """Tell whether this is how the run stands ended now, not an end that a replay has undone."""
    ends = [one["at"] for one in run.get("timeline") or () if one["kind"] == entry["kind"]]
    return bool(run["state"] == entry["kind"] and (not ends or ends[-1] == entry["at"]))


def _origin(trigger: Mapping[str, Any] | None) -> str:
    match trigger:
        case None:
            return "submitted"
        case {"type": "event", "key": key}:
            return f"started by the event {key}"
        case {"type": "workflow", "node": node, "workflow": workflow}:
            return f"reached as node {node} of {workflow}"
        case {"type": "schedule", "schedule": name, "manual": manual}:
            return f"started by hand from the schedule {name}" if manual else f"started by the schedule {name}"
        case _:
            return f"started by a {trigger['type']}"


def _started(entry: Mapping[str, Any]) -> str:
    if not entry.get("worker") and not entry["attempt"]:
        return "begun"
    return f"attempt {entry['attempt']} started" + (f" on {entry['worker']}" if entry.get("worker") else "")


def _error(error: Mapping[str, Any]) -> str:
    if error.get("code") == "node_failed":  # which says itself of what type that was
        return str(error.get("message"))
    kind = error.get("type") or error.get("code") or "error"
    message = f"{kind}: {error.get('message', '')}"
    return f"{message} {short(error['details'])}" if error.get("details") else message


def _rest(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("message"):
        yield f"({entry['message']})"
    for name, value in entry.items():
        if name not in _SAID and value is not None:
            yield f"{name}={short(value)}"


def _seconds(time: Any) -> float:
    if isinstance(time, int):
        return time / 1000
    return datetime.fromisoformat(str(time)).astimezone(UTC).timestamp()

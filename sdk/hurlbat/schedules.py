"""Schedules, which have runs of a task made at the times of a crontab expression, and the calls about them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypedDict

from hurlbat.errors import ConfigError
from hurlbat.jsontext import Member
from hurlbat.payloads import encode
from hurlbat.runs import Run, run_from
from hurlbat.sending import (
    Call,
    Page,
    Reply,
    Request,
    ask,
    aware,
    list_page,
    not_hurlbat,
    object_in,
    path_of,
    send,
    values_of,
)

_LONGEST_PREFIX = 100


class ScheduleOptions(TypedDict, total=False):
    """What may be said of a schedule."""

    timezone: str
    """An IANA time zone, by which the expression is read; UTC."""
    metadata: Mapping[str, Any]
    """Attached to its runs."""
    priority: int
    """Of its runs, instead of the task's."""
    missed: Literal["skip", "once", "all"]
    """What is done for times that nobody was there for: nothing, one run for all (`once`), or each, up to 1,000."""
    overlap: Literal["allow", "skip", "cancel"]
    """What is done at a time while an earlier run is alive: run beside it, leave this one out, or cancel that one."""


class ScheduleChanges(ScheduleOptions, total=False):
    """What may be changed of a schedule."""

    expression: str
    """Other times, in 5 fields, or in 6 with seconds first."""
    run_at: datetime
    """Another time, of a schedule that has only one."""
    input: Any
    """Another input of its runs."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule as it stood when the server told of it. Times are RFC 3339.

    `source` is "api", or "task" for those in a task's policy. `problem` says why it fires no more.
    """

    name: str
    task: str
    expression: str | None = None
    run_at: str | None = None
    timezone: str = "UTC"
    input: Any = field(default=None, repr=False)
    metadata: Mapping[str, Any] = field(default_factory=dict, repr=False)
    priority: int | None = None
    missed: str = "once"
    overlap: str = "allow"
    paused: bool = False
    source: str = "api"
    next_at: str | None = None
    last_at: str | None = None
    last_run: str | None = None
    problem: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


_FIELDS = frozenset(Schedule.__dataclass_fields__)


def schedule_from(members: Mapping[str, Member]) -> Schedule:
    """Return the schedule that a JSON object tells of; what this version does not know is left out."""
    return Schedule(**{name: member.value for name, member in members.items() if name in _FIELDS})


def create(
    task: str,
    expression: str | None,
    run_at: datetime | None,
    input: str,
    name: str | None,
    options: ScheduleOptions,
) -> Call[Schedule]:
    """Create a schedule; `input` is raw JSON.

    Without a name it is named after what it says: to create the same one twice, also by a repeat, gives one.
    """
    if (expression is None) == (run_at is None):
        raise ConfigError("give either a crontab expression or run_at, a datetime with a zone")
    unknown = options.keys() - ScheduleOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown option {min(unknown)!r}; there are {', '.join(ScheduleOptions.__annotations__)}")
    said: dict[str, Any] = {"task": task, "expression": expression, **options}
    said["run_at"] = None if run_at is None else aware(run_at, "run_at")
    text = encode({name: value for name, value in said.items() if value is not None}, what="schedule")
    text = f'{text[:-1]},"input":{input}}}'
    if name is None:
        name = f"{task[:_LONGEST_PREFIX]}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    body = f'{text[:-1]},"name":{encode(name, what="name")}}}'
    return _schedule((yield from send(Request("POST", "/schedules", body))))


def get(name: str) -> Call[Schedule]:
    """Return a schedule."""
    return _schedule((yield from send(Request("GET", path_of("schedules", name)))))


def list_all(task: str | None, paused: bool | None, cursor: str | None, limit: int | None) -> Call[Page[Schedule]]:
    """Return a page of schedules."""
    asked = {"task": task, "paused": paused, "cursor": cursor, "limit": limit}
    return (yield from list_page("/schedules", asked, schedule_from))


def update(name: str, changes: ScheduleChanges) -> Call[Schedule]:
    """Change a schedule; what is not named stays."""
    run_at = changes.get("run_at")
    if isinstance(run_at, datetime):
        aware(run_at, "run_at")
    body = encode(dict(changes), what="schedule")
    return _schedule((yield from send(Request("PATCH", path_of("schedules", name), body))))


def pause(name: str) -> Call[Schedule]:
    """Let a schedule rest; times that pass meanwhile are not made up for."""
    return _schedule((yield from send(Request("POST", path_of("schedules", name, "pause")))))


def resume(name: str) -> Call[Schedule]:
    """Let a paused schedule go on."""
    return _schedule((yield from send(Request("POST", path_of("schedules", name, "resume")))))


def trigger(name: str) -> Call[Run]:
    """Make a run of a schedule now; where its answer is lost, it is not repeated."""
    reply = yield from send(Request("POST", path_of("schedules", name, "trigger"), repeatable=False))
    return run_from(object_in(reply, "a run"))


def delete(name: str) -> Call[None]:
    """Forget a schedule; the runs that it made stay."""
    yield from ask("DELETE", "schedules", name)


def next_times(name: str, count: int) -> Call[list[datetime]]:
    """Return the next times of a schedule."""
    found = yield from ask("GET", "schedules", name, "next", asked={"count": count})
    return [datetime.fromisoformat(text) for text in found["items"]]


def preview(expression: str, timezone: str, count: int) -> Call[list[datetime]]:
    """Return the next times of an expression that nothing uses yet."""
    asked = {"expression": expression, "timezone": timezone, "count": count}
    found = yield from ask("POST", "schedules", "preview", body=asked)
    return [datetime.fromisoformat(text) for text in found["items"]]


def list_fires(name: str, cursor: str | None, limit: int | None) -> Call[Page[dict[str, Any]]]:
    """Return a page of what a schedule did at its times, newest first."""
    asked = {"cursor": cursor, "limit": limit}
    return (yield from list_page(path_of("schedules", name, "fires"), asked, values_of))


def _schedule(reply: Reply) -> Schedule:
    try:
        return schedule_from(object_in(reply, "a schedule"))
    except TypeError as error:
        raise not_hurlbat(reply.status, f"the answer is not a schedule ({error})") from error

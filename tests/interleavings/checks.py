"""What must hold in the rows after every commit, whatever the schedule was."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState

_NO_ENDS = frozenset({"log", "progress", "late"})
"""Kinds of timeline rows that are not about the end of an attempt."""


def answer(attempt: int) -> str:
    """Return the output of an attempt, which says whose it is."""
    return f'"the answer of attempt {attempt}"'


class SeenRun(NamedTuple):
    """What is looked at of a run."""

    id: str
    state: str
    attempt: int
    tries: int
    max_attempts: int
    worker: str | None
    sender: str | None
    started_at: int | None
    finished_at: int | None
    holds_until: int | None
    idempotency_key: str | None
    output: str | None
    reason: str | None
    due_at: int
    input: str
    trigger: str | None
    parent: str | None
    child_key: str | None

    @property
    def final(self) -> bool:
        """Tell whether it has ended."""
        return self.state in FINAL

    @property
    def takes_a_slot(self) -> bool:
        """Tell whether a slot of its worker is taken for it."""
        return self.state == RunState.RUNNING or self.holds_until is not None


class Seen(NamedTuple):
    """A committed state: runs by id, timeline rows (run, kind, attempt), keys (task, key) → run, and the shard.

    `working` are the servers that may be given work.
    """

    runs: Mapping[str, SeenRun]
    told: Sequence[tuple[str, str, int]]
    keys: Mapping[tuple[str, str], str]
    owner: str | None
    epoch: int
    working: frozenset[str]
    fires: Mapping[tuple[str, int, int], str | None] = MappingProxyType({})
    """The run of each fire: (schedule, due time, by hand)."""
    schedules: Mapping[str, tuple[int | None, int, str]] = MappingProxyType({})
    """When each schedule fires next, whether it is paused, and its expression."""
    starts: Mapping[str, Sequence[str]] = MappingProxyType({})
    """The runs that each event has started."""


class Commit(NamedTuple):
    """A commit: by whom, in which epoch of ownership if in one, and the committed states before and after it."""

    by: str
    epoch: int | None
    before: Seen
    after: Seen


LOOK = f"""
SELECT json_build_object(
    'runs', (SELECT coalesce(json_agg(json_build_array({", ".join(SeenRun._fields)}) ORDER BY id), '[]') FROM run),
    'told', (SELECT coalesce(json_agg(json_build_array(run, kind, attempt) ORDER BY n), '[]') FROM timeline),
    'keys', (SELECT coalesce(json_agg(json_build_array(task, key, run)), '[]') FROM idempotency),
    'working', (SELECT coalesce(json_agg(id), '[]') FROM dispatcher WHERE stopping = 0),
    'fires', (SELECT coalesce(json_agg(json_build_array(schedule, due_at, manual, run)), '[]') FROM schedule_fire),
    'schedules', (SELECT coalesce(json_agg(json_build_array(name, next_at, paused, expression)), '[]') FROM schedule),
    'starts', (SELECT coalesce(json_agg(json_build_array(event.id, event_start.run)), '[]')
               FROM event LEFT JOIN event_start ON event_start.event = event.id),
    'owner', owner,
    'epoch', epoch
) FROM shard"""
"""The SQL of one look at all that is checked."""


def seen(found: Mapping[str, Any]) -> Seen:
    """Make a state of what `LOOK` has found."""
    return Seen(
        runs={run[0]: SeenRun._make(run) for run in found["runs"]},
        told=[(run, kind, attempt) for run, kind, attempt in found["told"]],
        keys={(task, key): run for task, key, run in found["keys"]},
        owner=found["owner"],
        epoch=found["epoch"],
        working=frozenset(found["working"]),
        fires={(name, due_at, manual): run for name, due_at, manual, run in found["fires"]},
        schedules={name: (next_at, paused, expression) for name, next_at, paused, expression in found["schedules"]},
        starts={
            event: [run for other, run in found["starts"] if other == event and run is not None]
            for event, _ in found["starts"]
        },
    )


def violations(history: Sequence[Commit], slots: Mapping[str, int]) -> list[str]:
    """Return a sentence for each promise that these commits have broken."""
    return [f"{found} (by {commit.by})" for commit in history for found in _broken_by(commit, slots)]


def _broken_by(commit: Commit, slots: Mapping[str, int]) -> Iterator[str]:
    before, after = commit.before, commit.after
    if commit.epoch is not None and (after.owner, after.epoch) != (commit.by, commit.epoch) and before != after:
        yield f"wrote in epoch {commit.epoch} what only {after.owner} of epoch {after.epoch} may write"
    if after.epoch < before.epoch:
        yield f"the epoch went back from {before.epoch} to {after.epoch}"
    if after.owner not in (None, before.owner) and after.epoch == before.epoch:
        yield f"epoch {after.epoch} was {before.owner}'s and is {after.owner}'s"
    for run_id in before.runs.keys() - after.runs.keys():
        yield f"run {run_id} is gone"
    for run in after.runs.values():
        was = before.runs.get(run.id)
        replayed = after.told.count((run.id, "replayed", run.attempt)) > before.told.count(
            (run.id, "replayed", run.attempt)
        )
        if not _may_become(was, run, replayed=replayed):
            yield f"{_short(was)} became {_short(run)}"
        starts = run.state == RunState.RUNNING and (was is None or was.attempt < run.attempt)
        if starts and run.sender != commit.by and run.sender not in after.working:
            yield f"{_short(run)} was given to {run.sender}, which takes no more work"
        yield from _disagreements(run)
    used = Counter(run.worker for run in after.runs.values() if run.takes_a_slot)
    for worker, many in used.items():
        if worker is not None and many > slots.get(worker, 0):
            yield f"{many} slots of {worker} are taken, and it has {slots.get(worker, 0)}"
    yield from _fires(before, after)
    yield from _events(before, after)
    yield from _keys(after)
    yield from _timeline(after)


_GONE = (None, 1, "")


def _fires(before: Seen, after: Seen) -> Iterator[str]:
    for fire, run_id in after.fires.items():
        if before.fires.get(fire, run_id) != run_id:
            yield f"the fire {fire} had run {before.fires[fire]} and has {run_id}"
        if fire not in before.fires and (run_id not in after.runs or run_id in before.runs):
            yield f"the fire {fire} has run {run_id}, which was not stored with it"
        if fire not in before.fires and not fire[2] and before.schedules.get(fire[0], _GONE)[:2] == (None, 1):
            yield f"{fire} was fired, and its schedule was paused"
    for name, (next_at, *terms) in after.schedules.items():
        was, *were = before.schedules.get(name, _GONE)
        left = was is not None and was != next_at and terms == were
        if left and (name, was, 0) not in after.fires:
            yield f"{name} went from {was} to {next_at}, and nothing was fired"
    by_schedule = Counter(run.trigger for run in after.runs.values() if run.trigger and '"schedule"' in run.trigger)
    for trigger, many in by_schedule.items():
        if many > 1:
            yield f"{many} runs are of {trigger}"


def _events(before: Seen, after: Seen) -> Iterator[str]:
    for event, runs in after.starts.items():
        if event in before.starts and before.starts[event] != runs:
            yield f"the event {event} had the runs {before.starts[event]} and has {runs}"
        if any(run_id not in after.runs for run_id in runs):
            yield f"the event {event} was stored without its runs {runs}"
    told = {run_id for runs in after.starts.values() for run_id in runs}
    for run in after.runs.values():
        if run.trigger and '"event"' in run.trigger and run.id not in told:
            yield f"{_short(run)} is of an event that does not say so"


def _may_become(was: SeenRun | None, run: SeenRun, *, replayed: bool) -> bool:
    """Tell whether one transaction may do this to a run."""
    if was is None:
        return (run.state, run.attempt, run.tries) in {("queued", 0, 0), ("running", 1, 1)}
    same_attempt = run.attempt == was.attempt
    match was.state, run.state:
        case "queued", "queued" if run.due_at != was.due_at:
            return same_attempt and run.attempt == 0
        case "queued", "queued":
            return same_attempt and run.tries == was.tries
        case "queued", "running":
            return run.attempt == was.attempt + 1 and run.tries == was.tries + 1
        case "running", "running" if (run.due_at, run.input) != (was.due_at, was.input):
            return False
        case "running", "running":
            return same_attempt and run.tries == was.tries and run.started_at == was.started_at
        case "running", "queued":
            return same_attempt and run.tries in (was.tries, was.tries - 1)
        case (("queued" | "running"), _):
            return same_attempt and run.tries == was.tries
        case _, "queued":
            return same_attempt and replayed and was.holds_until is None
        case _:
            return run._replace(holds_until=None) == was._replace(holds_until=None)


def _disagreements(run: SeenRun) -> Iterator[str]:
    if run.tries > run.max_attempts:
        yield f"{_short(run)} was tried {run.tries} times of {run.max_attempts}"
    if run.final != (run.finished_at is not None):
        yield f"{_short(run)} has finished_at {run.finished_at}"
    if run.finished_at is not None and run.started_at is not None and run.finished_at < run.started_at:
        yield f"{_short(run)} ended {run.started_at - run.finished_at} ms before it started"
    if run.output is not None and run.output != answer(run.attempt):
        yield f"{_short(run)} has {run.output}"
    if run.state == RunState.RUNNING and (run.worker is None or run.started_at is None):
        yield f"{_short(run)} has worker {run.worker} and started_at {run.started_at}"
    if (run.state == RunState.QUEUED and run.worker is not None) or (run.holds_until is not None and not run.final):
        yield f"{_short(run)} has worker {run.worker} and holds_until {run.holds_until}"


def _keys(after: Seen) -> Iterator[str]:
    alive = Counter(run.idempotency_key for run in after.runs.values() if not run.final)
    for key, many in alive.items():
        if key is not None and many > 1:
            yield f"{many} runs that have not ended have the key {key}"
    children = Counter((run.parent, run.child_key) for run in after.runs.values() if run.child_key is not None)
    for (parent, key), many in children.items():
        if many > 1:
            yield f"{many} children of run {parent} have the key {key}"
    for (task, key), run_id in after.keys.items():
        if task == "" and run_id in after.runs:
            continue  # it is what its parent and itself are called
        if run_id not in after.runs or after.runs[run_id].idempotency_key != key:
            yield f"the key {key} is of run {run_id}, which does not have it"


def _timeline(after: Seen) -> Iterator[str]:
    ends = Counter((run, attempt) for run, kind, attempt in after.told if kind not in _NO_ENDS)
    for run in after.runs.values():
        told = [ends[run.id, attempt] for attempt in range(1, run.attempt + 1)]
        over = [1] * run.attempt
        going_on = [*over[:-1], 0] if over else []
        allowed = (over,) if run.state == RunState.QUEUED else (going_on,) if not run.final else (over, going_on)
        if told not in allowed:
            yield f"{_short(run)}, and its timeline tells these numbers of ends of its attempts: {told}"


def _short(run: SeenRun | None) -> str:
    return "nothing" if run is None else f"run …{run.id[-2:]} {run.state} in attempt {run.attempt}"

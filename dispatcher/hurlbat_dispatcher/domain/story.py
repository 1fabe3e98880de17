"""The story of a run: its columns, and the rows of surprises between them, in the order in which they were committed.

While a run lives its story is only ever added to, so that the place of an entry in it is a number for good. Rows come
in the order of their commits; what stands in columns has its place between them by what the rows say:

    created, scheduled   first. When it was due at first is kept by the row of whatever has moved that (`was_due_at`)
    started              before the first row that an attempt can have only when it runs, or else last
    the end              before what can only come after it: a late answer to a run that had ended, the call of another
                         task for its failure, a replay; or else last

Two things are not told for good: the start of an attempt that was not charged and is not told of (there are a hundred
before that), or whose timeline was full.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.runs import Run, RunKind, TimelineEntry

AFTER_THE_END: Final = frozenset({"callback", "callback_failed"})
"""Kinds of rows that are written with the end of a run, or after it."""
_BEFORE_THE_START: Final = frozenset({"moved", "gathered"})
_HIDDEN: Final = frozenset({"started_at", "worker", "delivery", "max_attempts"})
"""Columns of which the row of an end keeps what they said: they are told by the start, or by the run."""


def tell(run: Run, rows: Sequence[TimelineEntry]) -> tuple[TimelineEntry, ...]:
    """Tell the whole story of a run, given the rows of its timeline as they were written."""
    story = _Story(run, _lives(run, rows))
    for row in story.rows:
        story.add(row)
    story.begin(story.attempt)
    if run.finished_at is not None:
        story.end()
    if run.kind is RunKind.WORKFLOW:
        return tuple(
            replace(entry, attempt=0, detail={"worker": None} if entry.kind == "started" else entry.detail)
            for entry in story.told
        )
    return tuple(story.told)


def _lives(run: Run, rows: Sequence[TimelineEntry]) -> Sequence[TimelineEntry]:
    """Return the rows of a workflow with its lives where others have attempts: it begins once in each."""
    if run.kind is not RunKind.WORKFLOW:
        return rows
    found, life = [], 1
    for row in rows:
        found.append(replace(row, attempt=0 if row.kind in _BEFORE_THE_START else life))
        life += row.kind == "replayed"
    return found


class _Story:
    """What is told so far, and in which life and attempt of the run that is."""

    def __init__(self, run: Run, rows: Sequence[TimelineEntry]) -> None:
        self.rows = rows
        self.attempt = run.attempt
        if run.kind is RunKind.WORKFLOW:
            self.attempt = 1 + sum(row.kind == "replayed" for row in rows)
            run = run._replace(attempt=self.attempt)
        self.told = [TimelineEntry(run.created_at, "created", 0)]
        due_at = None if run.node or run.was_node else _due_at_first(run, rows)
        if due_at is not None:
            self.told.append(TimelineEntry(run.created_at, "scheduled", 0, {"due_at": due_at}))
        self._starts = _starts(run, rows)
        self._ends = [_end_before(row) for row in rows if row.kind == "replayed"]
        self._attempts = [row.attempt for row in rows if row.kind == "replayed"] + [run.attempt]
        if run.finished_at is not None:
            self._ends.append(_end(run, run.finished_at))
        self._life = 0
        self._ended = False
        self._begun = 0
        self._over = 0

    def add(self, row: TimelineEntry) -> None:
        """Tell a row, and before it what must have happened by then."""
        if row.kind == "late":
            self._before_late(row)
        else:
            self.begin(row.attempt)
            if row.kind == "replayed" or row.kind in AFTER_THE_END:
                self.end()
        if _ends_attempt(row):
            self._over = row.attempt
        if row.kind == "replayed":
            self.told.append(TimelineEntry(row.at, row.kind, row.attempt))
            self._life, self._ended = self._life + 1, False
        else:
            self.told.append(TimelineEntry(row.at, row.kind, row.attempt, _shown(row)))

    def begin(self, attempt: int) -> None:
        """Tell that an attempt has started, once, and if it has."""
        if attempt > self._begun:
            self._begun = attempt
            if attempt in self._starts:
                self.told.append(self._starts[attempt])

    def end(self) -> None:
        """Tell how this life of the run has ended, once."""
        end = self._ends[self._life] if self._life < len(self._ends) else None
        if end is not None and not self._ended:
            self._ended = True
            self.told.append(end)

    def _before_late(self, row: TimelineEntry) -> None:
        """An answer of an attempt that was over came to the run as it stood: the row says in which state that was."""
        state = row.detail.get("state")
        if state in FINAL:
            self.begin(self._attempts[self._life])
            self.end()
        elif state == RunState.RUNNING:
            self.begin(self._over + 1)


def _starts(run: Run, rows: Sequence[TimelineEntry]) -> dict[int, TimelineEntry]:
    """Return the starts of attempts: the row that ends one says when it began, a column when the last one did."""
    found: dict[int, TimelineEntry] = {}
    for row in rows:
        started_at = row.detail.get("started_at")
        if started_at is not None:
            found.setdefault(row.attempt, _start(row.attempt, started_at, row.detail.get("worker")))
    if run.started_at is not None:
        found.setdefault(run.attempt, _start(run.attempt, run.started_at, run.worker))
    return found


def _start(attempt: int, at: int, worker: str | None) -> TimelineEntry:
    return TimelineEntry(at, "started", attempt, {"worker": worker})


def _due_at_first(run: Run, rows: Sequence[TimelineEntry]) -> int | None:
    """Return for when a run was scheduled (ms) that was to start later; None of one that was to start at once."""
    for row in rows:
        if _ends_attempt(row) or "was_due_at" in row.detail:
            due_at: int | None = row.detail.get("was_due_at")
            return due_at
    kept = run.attempt == 0 or (run.attempt == 1 and run.state != RunState.QUEUED)
    return run.due_at if kept and run.due_at > run.created_at else None


def _ends_attempt(row: TimelineEntry) -> bool:
    """Tell whether the row is of an attempt that was put back, or of a replay: both keep what columns said."""
    return "started_at" in row.detail


def _end(run: Run, at: int) -> TimelineEntry:
    """Return how a run has ended; said as it will be when the run is replayed, which keeps this much of an error."""
    failure: Mapping[str, Any] = json.loads(run.error or "{}")
    detail = {"reason": run.reason} | {name: failure.get(name) for name in ("code", "type", "message")}
    shown = {name: value for name, value in detail.items() if value is not None}
    return TimelineEntry(at, str(run.state), run.attempt, shown)


def _end_before(replayed: TimelineEntry) -> TimelineEntry | None:
    """Return how a run had ended that was replayed, if that is known."""
    shown = _shown(replayed)
    if "finished_at" not in shown or "was" not in shown:
        return None
    return TimelineEntry(shown.pop("finished_at"), shown.pop("was"), replayed.attempt, shown)


def _shown(row: TimelineEntry) -> dict[str, Any]:
    """Return what a row tells people."""
    detail: Mapping[str, Any] = row.detail
    shown = {name: value for name, value in detail.items() if name not in _HIDDEN and value is not None}
    if _ends_attempt(row):
        shown.pop("was_due_at", None)
    return shown

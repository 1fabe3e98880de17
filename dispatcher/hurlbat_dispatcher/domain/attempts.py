"""The attempts of a run, one by one: what became of each, and what was made of its answer, in one sentence.

What is told comes from where the run's story comes from: the columns of its last attempt, and the rows of its timeline
for those before.
"""

import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.runs import Run, TimelineEntry


class AttemptState(StrEnum):
    """What became of an attempt."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PUT_BACK = "put_back"
    """It did not count: its run waits again, or did."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run. Times are ms; `charged` tells whether it counts against `max_attempts`.

    `code` and `message` are of what went wrong, `kind` says how it was put back, `delivery` by what it was sent; each
    where that is known.
    """

    run_id: str
    attempt: int
    task: str
    state: AttemptState
    worker: str | None = None
    charged: bool | None = None
    started_at: int | None = None
    finished_at: int | None = None
    code: str | None = None
    message: str | None = None
    due_at: int | None = None
    """When its run was due again."""
    late: str | None = None
    """What came of it after it was over."""
    delivery: str | None = None
    kind: str | None = None
    tries: int = 0
    """How many of the run's attempts were charged up to this one."""
    max_attempts: int = 1
    """How many might be, when it was made; each replay allows more."""


_PUT_BACK: Final = {
    "not_sent": "Nothing was sent",
    "pushed_back": "The worker had no room for it",
    "held": "The worker refused everything, and its runs are held",
    "not_started": "The worker never said that it had begun",
}
_ENDS: Final = {
    RunState.COMPLETED: AttemptState.COMPLETED,
    RunState.FAILED: AttemptState.FAILED,
    RunState.CANCELLED: AttemptState.CANCELLED,
    RunState.RUNNING: AttemptState.RUNNING,
}


def attempts_of(
    run: Run, rows: Sequence[TimelineEntry], delivery: str | None, numbers: range | None = None
) -> list[Attempt]:
    """Return the attempts of a run, the first one first, given its timeline's rows as they were written.

    `delivery` is by what the last one was sent; `numbers` are those that are wanted, None for all: a run that a busy
    worker pushes back has one every few seconds, for days. Of attempts that were put back a hundred times and more most
    have no row; they are known to have been, and no more.
    """
    told: dict[int, Attempt] = {}
    for row in rows:
        if row.kind == "retry" or row.kind in _PUT_BACK:
            told[row.attempt] = _before(run, row)
        elif row.kind == "replayed" and row.attempt and row.attempt not in told:
            told[row.attempt] = _replayed(run, row)
    if run.started_at is not None and run.attempt not in told and run.state in _ENDS:
        told[run.attempt] = _last(run, delivery)
    late = {row.attempt: str(row.detail.get("outcome")) for row in rows if row.kind == "late"}
    wanted = range(1, run.attempt + 1) if numbers is None else numbers
    found = [told.get(n) or Attempt(run.id, n, run.task, AttemptState.PUT_BACK, charged=False) for n in wanted]
    charged = sorted(number for number, one in told.items() if one.charged is not False)
    return [
        replace(
            one,
            late=late.get(one.attempt),
            tries=bisect_right(charged, one.attempt),
            max_attempts=_max_attempts(run, rows, one.attempt),
        )
        for one in found
    ]


def _max_attempts(run: Run, rows: Sequence[TimelineEntry], number: int) -> int:
    """Return how many attempts might be charged when this one was made: the first replay after it says so."""
    replays = (row for row in rows if row.kind == "replayed" and row.attempt >= number)
    kept = next((row.detail.get("max_attempts") for row in replays), None)
    return run.max_attempts if kept is None else int(kept)


def sentence(attempt: Attempt) -> str:
    """Say what was made of an attempt."""
    said = _verdict(attempt)
    if attempt.late is not None:
        said += f" An answer that came after that ({attempt.late}) changed nothing."
    return said


def _verdict(attempt: Attempt) -> str:
    of = f" by worker {attempt.worker}" if attempt.worker else ""
    what = attempt.message or attempt.code or "no reason was given"
    why = f"{attempt.code}: {attempt.message}" if attempt.code and attempt.message else what
    match attempt.state:
        case AttemptState.RUNNING:
            return f"It is with worker {attempt.worker}, and its end was not heard of yet."
        case AttemptState.COMPLETED:
            return f"It was completed{of}; what it gave is the output of the run."
        case AttemptState.CANCELLED:
            return f"The run was cancelled while it ran: {what}."
        case AttemptState.FAILED if attempt.due_at is not None:
            return f"It failed ({why}) as try {attempt.tries} of {attempt.max_attempts}; the run was due again."
        case AttemptState.FAILED:
            which = f" as try {attempt.tries} of {attempt.max_attempts}" if attempt.max_attempts > 1 else ""
            return f"It failed ({why}){which}, and the run with it."
    if attempt.kind is not None:
        detail = f" ({attempt.message})" if attempt.message else ""
        return f"{_PUT_BACK[attempt.kind]}{detail}. It does not count against max_attempts; the run was due again."
    return "It was put back and does not count; of so many that were, not each is told."


def _before(run: Run, row: TimelineEntry) -> Attempt:
    detail = row.detail
    failed = row.kind == "retry"
    message = _text(detail, "message")
    return Attempt(
        run.id,
        row.attempt,
        run.task,
        AttemptState.FAILED if failed else AttemptState.PUT_BACK,
        _text(detail, "worker"),
        failed,
        detail.get("started_at"),
        row.at,
        _text(detail, "code") if failed else None,
        message,
        detail.get("due_at"),
        delivery=_text(detail, "delivery"),
        kind=None if failed else row.kind,
    )


def _replayed(run: Run, row: TimelineEntry) -> Attempt:
    """Return the last attempt of a life that a replay has ended: the row keeps what the columns said."""
    detail = row.detail
    was = detail.get("was")
    return Attempt(
        run.id,
        row.attempt,
        run.task,
        _ENDS.get(RunState(was), AttemptState.CANCELLED) if was else AttemptState.PUT_BACK,
        _text(detail, "worker"),
        True,
        detail.get("started_at"),
        detail.get("finished_at"),
        _text(detail, "code"),
        _text(detail, "message") or _text(detail, "reason"),
        delivery=_text(detail, "delivery"),
    )


def _last(run: Run, delivery: str | None) -> Attempt:
    error: Mapping[str, Any] = json.loads(run.error or "{}") if run.state in FINAL else {}
    return Attempt(
        run.id,
        run.attempt,
        run.task,
        _ENDS[run.state],
        run.worker,
        None if run.state is RunState.RUNNING else True,
        run.started_at,
        run.finished_at,
        _text(error, "code"),
        _text(error, "message") or run.reason,
        delivery=delivery,
    )


def _text(detail: Mapping[str, Any], name: str) -> str | None:
    value = detail.get(name)
    return None if value is None else str(value)

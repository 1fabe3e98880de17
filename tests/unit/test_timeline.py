"""The story of a run, told from its columns and the rows of surprises."""

from typing import Any

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, TimelineEntry
from hurlbat_dispatcher.domain.story import tell


def run(**more: Any) -> Run:
    usual: dict[str, Any] = {
        "id": "r",
        "task": "t",
        "state": RunState.COMPLETED,
        "attempt": 1,
        "tries": 1,
        "max_attempts": 3,
        "input": "null",
        "metadata": "{}",
        "priority": 2,
        "created_at": 10,
        "due_at": 10,
        "started_at": 10,
        "finished_at": 10,
        "worker": "w",
    }
    return Run(**usual | more)


def kinds(entries: tuple[TimelineEntry, ...]) -> list[tuple[str, int]]:
    return [(entry.kind, entry.attempt) for entry in entries]


def test_a_plain_life_is_told_from_its_columns() -> None:
    assert tell(run(), []) == (
        TimelineEntry(10, "created", 0),
        TimelineEntry(10, "started", 1, {"worker": "w"}),
        TimelineEntry(10, "completed", 1),
    )


def test_everything_within_one_millisecond_is_told_in_its_order() -> None:
    """A replay, and the start that it leads to, may be one turn apart and share their moment."""
    rows = [
        TimelineEntry(10, "retry", 1, {"started_at": 10, "worker": "w"}),
        TimelineEntry(10, "replayed", 2, {"started_at": 10, "worker": "w"}),
        TimelineEntry(10, "pushed_back", 3, {"started_at": 10, "worker": "w"}),
    ]
    assert kinds(tell(run(attempt=4), rows)) == [
        ("created", 0),
        ("started", 1),
        ("retry", 1),
        ("started", 2),
        ("replayed", 2),
        ("started", 3),
        ("pushed_back", 3),
        ("started", 4),
        ("completed", 4),
    ]


def late(at: int, attempt: int, state: str) -> TimelineEntry:
    """Return the row of an answer that came too late: for a run in this state then."""
    return TimelineEntry(at, "late", attempt, {"outcome": "completed", "state": state})


def test_a_late_answer_comes_after_the_end() -> None:
    for moment in (20, 30):
        told = tell(run(finished_at=20), [TimelineEntry(15, "log", 1, {}), late(moment, 1, "completed")])
        assert kinds(told) == [("created", 0), ("started", 1), ("log", 1), ("completed", 1), ("late", 1)]


def test_a_late_answer_comes_before_or_after_a_start_of_the_same_moment_as_the_state_says() -> None:
    rows = [TimelineEntry(10, "retry", 1, {"started_at": 10, "worker": "w"})]
    told = tell(run(attempt=2), [*rows, late(10, 1, "running")])
    assert kinds(told)[2:] == [("retry", 1), ("started", 2), ("late", 1), ("completed", 2)]
    told = tell(run(attempt=2), [*rows, late(10, 1, "queued")])
    assert kinds(told)[2:] == [("retry", 1), ("late", 1), ("started", 2), ("completed", 2)]


def test_what_a_failure_calls_comes_after_it() -> None:
    told = tell(run(state=RunState.FAILED), [TimelineEntry(10, "callback", 1, {"task": "t", "run": "other"})])
    assert kinds(told) == [("created", 0), ("started", 1), ("failed", 1), ("callback", 1)]


WAITING: dict[str, Any] = {"state": RunState.QUEUED, "attempt": 0, "started_at": None, "finished_at": None}


def test_a_delayed_run_says_for_when() -> None:
    told = tell(run(**WAITING, due_at=99, worker=None), [])
    assert told == (TimelineEntry(10, "created", 0), TimelineEntry(10, "scheduled", 0, {"due_at": 99}))


def test_for_when_a_run_was_scheduled_stays_told() -> None:
    """Whatever moves the time at which it is due keeps the first one."""
    scheduled = TimelineEntry(10, "scheduled", 0, {"due_at": 99})
    moved = TimelineEntry(20, "moved", 0, {"due_at": 50, "was_due_at": 99})
    retry = {"started_at": 50, "worker": "w", "due_at": 70}
    assert tell(run(due_at=99, started_at=99, finished_at=120), [])[1] == scheduled
    assert tell(run(**WAITING, due_at=50), [moved])[1:] == (scheduled, moved)
    put_back = tell(run(due_at=70, attempt=2), [moved, TimelineEntry(60, "retry", 1, retry)])
    assert put_back[1] == scheduled
    put_back = tell(run(due_at=70, attempt=2), [TimelineEntry(60, "retry", 1, retry | {"was_due_at": 99})])
    assert put_back[1] == scheduled
    assert put_back[3] == TimelineEntry(60, "retry", 1, {"due_at": 70})
    assert [entry.kind for entry in tell(run(due_at=70, attempt=2), [TimelineEntry(60, "retry", 1, retry)])] == [
        *("created", "started", "retry", "started", "completed")
    ]


def test_the_end_says_why() -> None:
    told = tell(run(state=RunState.CANCELLED, reason="enough"), [])
    assert told[-1] == TimelineEntry(10, "cancelled", 1, {"reason": "enough"})

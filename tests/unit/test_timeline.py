"""The story of a run, told from its columns and the rows of surprises."""

from typing import Any

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, TimelineEntry
from hurlbat_dispatcher.store.views import tell


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


def test_a_late_answer_comes_after_the_end() -> None:
    for moment in (20, 30):
        told = tell(run(finished_at=20), [TimelineEntry(15, "log", 1, {}), TimelineEntry(moment, "late", 1, {})])
        assert kinds(told) == [("created", 0), ("started", 1), ("log", 1), ("completed", 1), ("late", 1)]


def test_a_delayed_run_says_for_when() -> None:
    told = tell(run(state=RunState.QUEUED, attempt=0, due_at=99, started_at=None, finished_at=None, worker=None), [])
    assert told == (TimelineEntry(10, "created", 0), TimelineEntry(10, "scheduled", 0, {"due_at": 99}))


def test_the_end_says_why() -> None:
    told = tell(run(state=RunState.CANCELLED, reason="enough"), [])
    assert told[-1] == TimelineEntry(10, "cancelled", 1, {"reason": "enough"})

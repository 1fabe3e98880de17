"""What was noted is read as what was: killed attempts end with their process, and a torn line is left for later."""

import json
from pathlib import Path
from typing import Any

from tests.chaos.client import Order, read
from tests.chaos.history import Execution, Submission
from tests.chaos.journal import executions, lines
from tests.chaos.report import longest_gap


def noted(event: str, at: float, pid: int = 7) -> dict[str, Any]:
    """Return a line of a worker."""
    return {"event": event, "run_id": "r", "attempt": 1, "worker": "one", "pid": pid, "at": at}


def test_a_line_that_is_being_written_is_left_for_the_next_time(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(f"{json.dumps(noted('begin', 1))}\n{json.dumps(noted('completed', 2))[:20]}")

    assert lines(log) == [noted("begin", 1)]


def test_an_attempt_ends_when_it_says_so_or_with_its_process() -> None:
    log = [noted("begin", 1), noted("begin", 2, 8), noted("begin", 3, 9), noted("completed", 4)]

    assert executions(log, deaths={8: 5.0}) == [
        Execution("r", 1, "one", 7, 1, 4, "completed"),
        Execution("r", 1, "one", 8, 2, 5.0, "killed"),
        Execution("r", 1, "one", 9, 3),
    ]


def test_an_attempt_that_one_process_begins_twice_is_two_executions() -> None:
    log = [noted("begin", 1), noted("begin", 2), noted("completed", 3)]

    assert executions(log, {}) == [
        Execution("r", 1, "one", 7, 1, 3, "completed"),
        Execution("r", 1, "one", 7, 2),
    ]


def asked(number: int, action: str = "submit") -> dict[str, Any]:
    """Return a line of the client before a request."""
    return {"at": 1.0, "action": action, "number": number, "url": "http://server/runs"}


def answered(number: int, status: int | None, code: str, action: str = "submit") -> dict[str, Any]:
    """Return a line of the client after a request."""
    return asked(number, action) | {"status": status, "code": code, "run_id": "r" if status == 201 else None}


def told(*log: dict[str, Any]) -> list[Submission]:
    """Return what the log says of the submissions."""
    return list(read(log, lambda number: Order(number, "work", 0.0)).submissions)


def test_what_was_never_answered_may_be_stored_and_what_was_refused_is_not() -> None:
    maybe = [
        *(asked(1), answered(1, None, "unanswered")),
        *(asked(2), answered(2, None, "refused")),
        *(asked(3), answered(3, 503, "stopping")),
        *(asked(4), answered(4, 503, "outcome_unknown")),
        *(asked(5), answered(5, 422, "invalid")),
        *(asked(6), answered(6, 500, "internal")),
        asked(7),
    ]

    assert {one.number: one.maybe for one in told(*maybe)} == {1: 1, 2: 0, 3: 0, 4: 1, 5: 0, 6: 1, 7: 1}


def test_a_submission_has_what_was_acknowledged_of_it() -> None:
    log = (
        *(asked(1), answered(1, 201, "ok")),
        *(asked(1, "cancel"), answered(1, 201, "ok", "cancel")),
        *(asked(1, "replay"), answered(1, None, "unanswered", "replay")),
    )

    [submission] = told(*log)

    assert submission == Submission(1, "work", acknowledged=("r",), cancels=1, cancelled=1, replays=1, replayed=0)


def test_a_gap_is_measured_between_what_happened_and_the_ends_of_the_time_that_is_looked_at() -> None:
    assert longest_gap([1.0, 2.0, 9.0], 0.0, 10.0) == 7.0
    assert longest_gap([1.0, 2.0, 9.0], 2.5, 5.0) == 2.5
    assert longest_gap([], 0.0, 3.0) == 3.0

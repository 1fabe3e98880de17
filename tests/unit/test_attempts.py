"""What is told of attempts, where a run has no rows for them, or several lives."""

from typing import Any

from hurlbat_dispatcher.domain.attempts import AttemptState, attempts_of, sentence
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, TimelineEntry

RUN = Run("r", "echo", RunState.COMPLETED, 1, 1, 3, "null", "{}", 2, 0, 0, started_at=10, finished_at=20, worker="w")


def _row(kind: str, attempt: int, **detail: Any) -> TimelineEntry:
    return TimelineEntry(15, kind, attempt, detail)


def test_a_run_that_has_not_started_has_none() -> None:
    assert attempts_of(RUN._replace(state=RunState.QUEUED, attempt=0, started_at=None), [], None) == []


def test_an_attempt_that_runs_is_not_charged_yet_and_one_that_ended_is() -> None:
    running = RUN._replace(state=RunState.RUNNING, finished_at=None)
    [one] = attempts_of(running, [], None)
    assert (one.state, one.charged, one.started_at, one.finished_at) == (AttemptState.RUNNING, None, 10, None)
    assert sentence(one) == "It is with worker w, and its end was not heard of yet."
    [one] = attempts_of(RUN, [], "d")
    assert (one.state, one.charged, one.finished_at, one.delivery) == (AttemptState.COMPLETED, True, 20, "d")


def test_of_attempts_that_were_put_back_too_often_to_be_told_one_knows_that_they_were() -> None:
    cancelled = RUN._replace(state=RunState.CANCELLED, attempt=3, tries=0, started_at=None, reason="enough")
    found = attempts_of(cancelled, [_row("not_sent", 1, started_at=1, message="away")], None)
    assert [one.state for one in found] == [AttemptState.PUT_BACK] * 3
    assert [sentence(one) for one in found] == [
        "Nothing was sent (away). It does not count against max_attempts; the run was due again.",
        *["It was put back and does not count; of so many that were, not each is told."] * 2,
    ]


def test_of_a_run_that_was_put_back_for_days_only_what_is_wanted_is_made() -> None:
    waiting = RUN._replace(state=RunState.QUEUED, attempt=10**15, tries=0, started_at=None, finished_at=None)
    rows = [_row("pushed_back", 10**15, started_at=1, message="busy")]
    found = attempts_of(waiting, rows, None, range(10**15 - 1, 10**15 + 1))
    assert [(one.attempt, one.message) for one in found] == [(10**15 - 1, None), (10**15, "busy")]


def test_the_last_attempt_of_each_life_keeps_how_it_ended() -> None:
    rows = [
        _row("retry", 1, started_at=1, worker="v", due_at=16, code="http_error", message="500"),
        _row("replayed", 2, was="cancelled", started_at=12, finished_at=14, worker="w", reason="not wanted"),
        _row("late", 2, outcome="completed", state="queued"),
    ]
    first, second, third = attempts_of(RUN._replace(attempt=3), rows, None)
    assert (first.state, first.code, first.worker, first.due_at) == (AttemptState.FAILED, "http_error", "v", 16)
    assert (second.state, second.finished_at) == (AttemptState.CANCELLED, 14)
    assert sentence(second) == (
        "The run was cancelled while it ran: not wanted. An answer that came after that (completed) changed nothing."
    )
    assert third.state is AttemptState.COMPLETED


def test_a_failure_is_told_as_a_try_which_attempts_that_were_put_back_are_not() -> None:
    rows = [
        _row("not_sent", 1, started_at=1, message="away"),
        _row("retry", 2, started_at=2, due_at=16, code="http_error", message="500"),
        _row("pushed_back", 3, started_at=3, message="busy"),
        _row("not_sent", 4, started_at=4, message="away"),
        _row("retry", 5, started_at=5, due_at=16, code="http_error", message="502"),
    ]
    failed = RUN._replace(state=RunState.FAILED, attempt=6, tries=3, error='{"code":"http_error","message":"504"}')

    found = attempts_of(failed, rows, None)

    assert [sentence(one) for one in found if one.state is AttemptState.FAILED] == [
        "It failed (http_error: 500) as try 1 of 3; the run was due again.",
        "It failed (http_error: 502) as try 2 of 3; the run was due again.",
        "It failed (http_error: 504) as try 3 of 3, and the run with it.",
    ]


def test_each_life_of_a_run_has_as_many_tries_as_it_had_then() -> None:
    rows = [
        _row("replayed", 0, was="cancelled", finished_at=5, max_attempts=1),
        _row("retry", 1, started_at=1, due_at=16, code="http_error", message="500"),
        _row("replayed", 2, was="failed", started_at=12, finished_at=14, code="http_error", max_attempts=2),
        _row("replayed", 2, was="cancelled", finished_at=15, max_attempts=4),
        _row("replayed", 3, was="completed", started_at=17, finished_at=18, max_attempts=6),
    ]

    found = attempts_of(RUN._replace(attempt=4, tries=4, max_attempts=8), rows, None)

    assert [(one.tries, one.max_attempts) for one in found] == [(1, 2), (2, 2), (3, 6), (4, 8)]


def test_a_replay_that_has_not_kept_it_leaves_what_may_be_charged_now() -> None:
    rows = [_row("replayed", 1, was="failed", started_at=12, finished_at=14)]
    found = attempts_of(RUN._replace(attempt=2, tries=2, max_attempts=8), rows, None)
    assert [one.max_attempts for one in found] == [8, 8]

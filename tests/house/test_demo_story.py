"""The demo tells timelines for people."""

import pytest

from hurlbat_app.demo.story import Moment, ending, tell

RUN = {
    "state": "completed",
    "attempt": 2,
    "input": "EUR",
    "output": {"EUR": 1.08},
    "error": None,
    "created_at": "2030-01-01T00:00:00.000Z",
    "finished_at": "2030-01-01T00:00:01.500Z",
    "timeline": [
        {"at": "2030-01-01T00:00:00.000Z", "kind": "created", "attempt": 0},
        {
            "at": "2030-01-01T00:00:00.100Z",
            "kind": "retry",
            "attempt": 1,
            "started_at": "2030-01-01T00:00:00.010Z",
            "worker": "shop",
            "due_at": "2030-01-01T00:00:01.100Z",
            "code": "task_error",
            "type": "ConnectionError",
            "message": "no answer",
        },
        {"at": "2030-01-01T00:00:01.110Z", "kind": "started", "attempt": 2, "worker": "shop"},
        {"at": "2030-01-01T00:00:01.200Z", "kind": "progress", "attempt": 2, "value": 0.5, "message": "half way"},
        {"at": "2030-01-01T00:00:01.300Z", "kind": "pushed_back", "attempt": 2, "message": "no room"},
        {"at": "2030-01-01T00:00:01.500Z", "kind": "completed", "attempt": 2},
    ],
}


def test_a_timeline_is_told_in_order_with_the_start_of_every_attempt() -> None:
    assert [(round(moment.after, 3), moment.text) for moment in tell(RUN)] == [
        (0.0, 'submitted with "EUR"'),
        (0.01, "attempt 1 started on shop"),
        (0.1, "attempt 1 failed: ConnectionError: no answer; again in 1.0 s"),
        (1.11, "attempt 2 started on shop"),
        (1.2, " 50% half way"),
        (1.3, "pushed back (no room)"),
        (1.5, 'completed with {"EUR": 1.08}'),
    ]
    assert ending(RUN) == "completed after 1.50 s and 2 attempts"


@pytest.mark.parametrize(
    ("attempt", "tries", "said"),
    [
        (0, 0, ""),
        (1, 1, " and 1 attempt"),
        (1, 0, " and 1 attempt (not charged)"),
        (3, 0, " and 3 attempts (none charged)"),
        (4, 4, " and 4 attempts"),
        (5, 4, " and 5 attempts (1 of them not charged)"),
    ],
)
def test_attempts_that_cost_no_try_are_told_as_such(attempt: int, tries: int, said: str) -> None:
    assert ending(RUN | {"attempt": attempt, "tries": tries}) == f"completed after 1.50 s{said}"


def test_what_a_run_has_come_to_is_told_of_its_last_end_alone() -> None:
    def entry(second: int, kind: str, **more: str) -> dict[str, object]:
        return {"at": f"2030-01-01T00:00:0{second}.000Z", "kind": kind, "attempt": 1, **more}

    ends = [entry(1, "completed"), entry(2, "replayed"), entry(3, "failed", type="OSError", message="no disk")]
    again = [*ends, entry(4, "replayed"), entry(5, "completed")]
    error = {"type": "ValueError", "message": "no answer"}

    assert [one.text for one in tell(RUN | {"timeline": again})] == [
        "completed",
        "replayed",
        "failed: OSError: no disk",
        "replayed",
        'completed with {"EUR": 1.08}',
    ]
    assert tell(RUN | {"state": "queued", "output": None, "timeline": again[:2]})[0].text == "completed"
    failed = tell(
        RUN | {"state": "failed", "error": error, "timeline": [*again, entry(6, "replayed"), entry(7, "failed")]}
    )
    assert [one.text for one in failed if one.text.startswith("failed")] == [
        "failed: OSError: no disk",
        "failed: ValueError: no answer",
    ]


def test_a_failed_run_tells_its_error_with_the_fields_that_were_refused() -> None:
    error = {
        "code": "invalid_input",
        "type": "invalid_input",
        "message": "one field",
        "details": [{"loc": ["name"]}],
    }
    timeline = [{"at": "2030-01-01T00:00:00.250Z", "kind": "failed", "attempt": 1}]

    told = tell(RUN | {"state": "failed", "error": error, "timeline": timeline})

    assert told == [Moment(0.25, 'failed: invalid_input: one field [{"loc": ["name"]}]')]


def test_what_started_a_run_and_what_it_waits_for_is_told() -> None:
    created = {"at": "2030-01-01T00:00:00.000Z", "kind": "created", "attempt": 0}
    scheduled = created | {"kind": "scheduled", "due_at": "2030-01-01T00:01:00.000Z"}
    run = RUN | {"timeline": [created, scheduled]}
    event = {"type": "event", "event": "e1", "key": "order", "scope": None, "filter": None, "payload": None}
    schedule = {"type": "schedule", "schedule": "nightly", "due_at": created["at"], "manual": False}
    failure = {"type": "failure", "run": "r1", "task": "work"}

    told = [
        tell(run | {"trigger": trigger}) for trigger in (None, event, schedule, schedule | {"manual": True}, failure)
    ]

    assert [moments[0].text for moments in told] == [
        'submitted with "EUR"',
        'started by the event order with "EUR"',
        'started by the schedule nightly with "EUR"',
        'started by hand from the schedule nightly with "EUR"',
        'started by a failure with "EUR"',
    ]
    assert told[0][1].text == "waits for its time, in 60.0 s"

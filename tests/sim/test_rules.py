"""The rules themselves: each must object to what breaks it, and to nothing that is well."""

from dataclasses import replace
from typing import Any

import pytest

from tests.sim.history import History, Rule
from tests.sim.plan import Plan, plan_of
from tests.sim.rows import Change, Moment, Row
from tests.sim.rules import complaints

NOW = 1_800_000_100_000
WAIT = {"strategy": "fixed", "initial": 4.0, "jitter": False}


def plan() -> Plan:
    """A plan whose task waits four seconds after a failure, and whose network changes no answers."""
    found = plan_of(0)
    tasks = tuple(replace(task, policy=task.policy | {"backoff": WAIT}) for task in found.tasks)
    return replace(found, tasks=tasks, lease=15.0, faults=replace(found.faults, garbage=0.0, ended_early=0.0))


TASK = max(plan().tasks, key=lambda task: task.max_attempts)
WORKER = plan().workers[0].name
MOMENT = Moment(
    "s0",
    NOW,
    NOW,
    owner="owner",
    epoch=3,
    owned_until=NOW + 5_000,
    leases={"owner": NOW + 5_000},
    servers={"owner": "s0"},
)
ELSEWHERE = replace(MOMENT, process="s1", servers={"owner": "s0", "other": "s1"}, leases={"owner": NOW + 5_000})


def queued(**more: Any) -> Row:
    usual: dict[str, Any] = dict.fromkeys(Row._fields)
    usual |= {"id": "r", "task": TASK.name, "state": "queued", "ready": 1, "attempt": 0, "tries": 0, "input": "1"}
    usual |= {"max_attempts": TASK.max_attempts, "created_at": NOW - 50_000, "due_at": NOW - 40_000}
    return Row(**usual | more)


def running(**more: Any) -> Row:
    usual: dict[str, Any] = {
        "state": "running",
        "attempt": 1,
        "tries": 1,
        "worker": WORKER,
        "sender": "owner",
        "started_at": NOW,
    }
    return queued(**usual | more)


def completed(**more: Any) -> Row:
    return running(**{"state": "completed", "finished_at": NOW, "output": "said"} | more)


def failed(**more: Any) -> Row:
    return running(**{"state": "failed", "finished_at": NOW, "error": '{"code": "task_error"}'} | more)


def cancelled(**more: Any) -> Row:
    return running(**{"state": "cancelled", "finished_at": NOW, "holds_until": NOW + 5_000} | more)


def put_back(**more: Any) -> Row:
    return queued(
        **{"attempt": 1, "tries": 1, "ready": 0, "due_at": NOW + 4_000, "error": '{"code": "task_error"}'} | more
    )


def history() -> History:
    found = History(lambda: 0.0, lambda _: None)
    found.outputs["r", 1] = "said"
    return found


def broken(before: Row | None, after: Row | None, moment: Moment = MOMENT, known: History | None = None) -> list[Rule]:
    return [rule for rule, _ in complaints(Change(before, after), moment, plan(), known or history())]


LOST = {"error": '{"code": "lease_expired"}', "due_at": NOW + 4_000}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, queued()),
        (None, running()),
        (queued(ready=0), queued(ready=1)),
        (queued(), running()),
        (running(), completed()),
        (running(lease_until=NOW + 900), running(lease_until=NOW + 15_000)),
        (running(), put_back()),
        (running(), put_back(tries=0, due_at=NOW, error=None)),
        (
            running(tries=TASK.max_attempts, attempt=TASK.max_attempts),
            failed(tries=TASK.max_attempts, attempt=TASK.max_attempts),
        ),
        (running(sender="dead"), put_back(**LOST)),
        (running(lease_until=NOW - 1), put_back(**LOST)),
        (cancelled(), cancelled(holds_until=None)),
    ],
)
def test_what_is_well_is_not_complained_of(before: Row | None, after: Row) -> None:
    assert broken(before, after) == []


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (Rule.KEPT, queued(), None),
        (Rule.TABLE, None, completed()),
        (Rule.COUNTED, None, running(attempt=2)),
        (Rule.COUNTED, queued(), running(attempt=2)),
        (Rule.COUNTED, queued(), running(tries=0)),
        (Rule.COUNTED, queued(), running(max_attempts=99)),
        (Rule.COUNTED, running(), running(attempt=1, tries=0)),
        (Rule.COUNTED, running(attempt=9, tries=9), put_back(attempt=9, tries=9)),
        (Rule.COUNTED, running(attempt=3, tries=3), put_back(attempt=3, tries=1)),
        (Rule.COUNTED, running(), failed()),
        (Rule.TABLE, running(), running(attempt=2, tries=2)),
        (Rule.TABLE, queued(), completed(attempt=0, tries=0)),
        (Rule.DUE, queued(due_at=NOW + 1), running(due_at=NOW + 1)),
        (Rule.DUE, running(), put_back(due_at=NOW + 3_000)),
        (Rule.DUE, running(), put_back(tries=0, due_at=NOW - 1_000, error=None)),
        (Rule.COUNTED, running(), put_back(tries=0)),
        (Rule.EXPIRED, queued(expires_at=NOW - 9), running(expires_at=NOW - 9)),
        (Rule.EXPIRED, queued(expires_at=NOW + 9), queued(state="failed", finished_at=NOW)),
        (Rule.ANSWER, running(), completed(output="something else")),
        (Rule.ASKED, running(), cancelled()),
        (Rule.SLOTS, running(), cancelled(holds_until=None)),
        (Rule.LEFT, running(), cancelled(holds_until=NOW + 60_000)),
        (Rule.LEFT, running(), completed(lease_until=NOW + 9)),
        (Rule.LEASE, running(), running(lease_until=NOW + 16_000)),
        (Rule.LEASE, running(), put_back(lease_until=NOW + 9)),
        (Rule.SNAPSHOT, queued(), running(worker=None)),
        (Rule.SNAPSHOT, running(), completed(output=None)),
        (Rule.SNAPSHOT, running(), put_back(worker=WORKER)),
        (Rule.FINAL, completed(), completed(output="other")),
        (Rule.FINAL, failed(), completed()),
        (Rule.ASKED, completed(), queued(attempt=1, tries=1, max_attempts=1 + TASK.max_attempts)),
        (Rule.RESCUE, running(lease_until=NOW + 1), put_back(**LOST)),
    ],
)
def test_a_broken_rule_is_complained_of(rule: Rule, before: Row | None, after: Row | None) -> None:
    assert rule in broken(before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (queued(), running()),
        (None, running()),
        (queued(ready=0), queued(ready=1)),
        (queued(expires_at=NOW), queued(expires_at=NOW, state="failed", finished_at=NOW, error="{}")),
        (running(sender="dead"), put_back(**LOST)),
    ],
)
def test_only_the_owner_starts_readies_expires_and_rescues(before: Row | None, after: Row) -> None:
    assert broken(before, after) == []
    assert broken(before, after, ELSEWHERE) == [Rule.OWNER]


def test_an_attempt_of_a_server_that_lives_is_rescued_by_nobody_else() -> None:
    leases = {"owner": NOW + 5_000, "other": NOW + 1}
    living = replace(MOMENT, leases=leases, servers={"owner": "s0", "other": "s1"})
    assert broken(running(sender="other"), put_back(**LOST), living) == [Rule.RESCUE]
    assert broken(running(sender="owner"), put_back(**LOST), living) == []


def test_a_replay_that_was_asked_for_is_allowed_once() -> None:
    known = history()
    known.replays["r"] = 1
    again = queued(attempt=1, tries=1, max_attempts=1 + TASK.max_attempts)
    assert broken(completed(), again, known=known) == []
    assert broken(completed(), again, known=known) == [Rule.ASKED]


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        (Rule.COUNTED, completed(), queued(attempt=1, tries=1, max_attempts=1_000)),
        (Rule.COUNTED, completed(), queued(attempt=1, tries=0, max_attempts=TASK.max_attempts)),
    ],
)
def test_a_replay_gives_what_was_promised_and_no_more(rule: Rule, before: Row, after: Row) -> None:
    known = history()
    known.replays["r"] = 1
    assert rule in broken(before, after, known=known)


def test_a_cancellation_that_was_asked_for_is_allowed() -> None:
    known = history()
    known.cancels.add("r")
    assert broken(running(), cancelled(), known=known) == []


def test_the_wait_that_a_worker_asked_for_takes_the_place_of_the_policys() -> None:
    known = history()
    known.failures["r", 1] = 2.0
    assert broken(running(), put_back(due_at=NOW + 2_000), known=known) == []
    assert broken(running(), put_back(due_at=NOW + 1_000), known=known) == [Rule.DUE]

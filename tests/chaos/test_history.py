"""The checker of a chaos run sees every lie: good histories pass, and for each promise there are some that break it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from tests.chaos.history import (
    BLINK,
    Change,
    Ending,
    Execution,
    History,
    Judgement,
    Promise,
    Row,
    Run,
    Submission,
    Trouble,
    changes,
    judge,
)

LOST: Final = Trouble("worker killed", 9.0, 40.0, ("connection_reset", "unknown_outcome"))


@dataclass(frozen=True)
class Story:
    """One run as each of the three sides tells of it."""

    asked: Submission
    stored: Run
    executed: tuple[Execution, ...]
    slots: int = 1
    troubles: tuple[Trouble, ...] = (LOST,)

    def but(self, *, asked: Mapping[str, Any] | None = None, **stored: Any) -> "Story":
        """Return the same, told otherwise."""
        return replace(self, asked=replace(self.asked, **(asked or {})), stored=replace(self.stored, **stored))

    @property
    def history(self) -> History:
        """All of it."""
        return History([self.asked], self.executed, [self.stored], slots={"one": self.slots}, troubles=self.troubles)


def execution(attempt: int, begun: float, outcome: str = "completed") -> Execution:
    """Return an attempt that takes a second."""
    return Execution("r", attempt, "one", 100, begun, begun + 1, outcome)


def retry(attempt: int, at: float, code: str = "task_error") -> Row:
    """Return the row of a charged attempt after which the run waited for two seconds."""
    return Row(at, "retry", attempt, code, due_at=at + 2)


QUICK: Final = Story(
    Submission(1, "work", acknowledged=("r",)),
    Run("r", 1, "work", "completed", 1, 1, 4, created_at=10.0, finished_at=12.0, answer_of=1),
    (execution(1, 11),),
)
"""A run that succeeds at once."""
STUMBLING: Final = Story(
    Submission(1, "work", stumbles=True, acknowledged=("r",)),
    Run("r", 1, "work", "completed", 2, 2, 4, 10.0, 16.0, answer_of=2, rows=(retry(1, 12),)),
    (execution(1, 11, "failed"), execution(2, 14)),
)
"""A run that succeeds at its second attempt."""
BROKEN: Final = Story(
    Submission(1, "work", keyed=True, maybe=3, acknowledged=("r",)),
    Run("r", 1, "work", "failed", 2, 2, 2, 10.0, 16.0, "connection_reset", rows=(retry(1, 12, "connection_reset"),)),
    (execution(1, 11, "killed"), execution(2, 14, "killed")),
)
"""A run whose worker dies twice."""
REPLAYED: Final = Story(
    Submission(1, "once", at_most_once=True, acknowledged=("r",), replays=2, replayed=1),
    Run("r", 1, "once", "completed", 2, 1, 1, 10.0, 18.0, None, 2, (Row(15, "replayed", 1, None, None, 12.0),)),
    (execution(1, 11, "killed"), execution(2, 16)),
)
"""A run without retries that has failed, was replayed and succeeds."""
CANCELLED: Final = Story(
    Submission(1, "work", acknowledged=("r",), cancels=1, cancelled=1),
    Run("r", 1, "work", "cancelled", 2, 1, 4, 10.0, 13.0, rows=(Row(12, "not_sent", 1, None, due_at=12.0),)),
    (execution(2, 12, "stopped"),),
)
"""A run that is cancelled at its second start, as the first never left the server."""
WAITING: Final = Story(
    Submission(1, "work", acknowledged=("r",)),
    Run("r", 1, "work", "completed", 150, 1, 4, 10.0, 16.0, answer_of=150),
    (execution(150, 14),),
)
"""A run whose worker is away for so long that not every start is told of."""
GOOD: Final = {
    "quick": QUICK,
    "stumbling": STUMBLING,
    "broken": BROKEN,
    "replayed": REPLAYED,
    "cancelled": CANCELLED,
    "waiting": WAITING,
}


def broken_by(history: History) -> set[Promise]:
    """Return the promises that the checker finds broken."""
    return {breach.promise for breach in judge(history).breaches}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_in_which_every_promise_was_kept_passes(name: str) -> None:
    assert judge(GOOD[name].history).breaches == ()


PLANTED: Final[dict[str, tuple[Promise, Callable[[], History]]]] = {
    "an acknowledged run is gone": (
        Promise.KEPT,
        lambda: replace(QUICK.history, runs=[], executions=[]),
    ),
    "an acknowledged run is that of somebody else": (
        Promise.KEPT,
        lambda: replace(
            QUICK.history,
            submissions=[Submission(1, "work", maybe=1), Submission(2, "work", acknowledged=("r",))],
        ),
    ),
    "a run that nobody asked for": (Promise.ASKED, lambda: replace(QUICK.history, submissions=[])),
    "two runs of one submit without a key": (
        Promise.ASKED,
        lambda: replace(
            QUICK.history,
            runs=[QUICK.stored, replace(QUICK.stored, id="s")],
            executions=[*QUICK.executed, replace(execution(1, 13), run_id="s")],
        ),
    ),
    "two runs of one key": (
        Promise.KEYED,
        lambda: replace(BROKEN.history, runs=[BROKEN.stored, replace(BROKEN.stored, id="s")]),
    ),
    "a run that never ends": (
        Promise.FINISHED,
        lambda: QUICK.but(state="running", finished_at=None, answer_of=None).history,
    ),
    "a run that ended twice": (
        Promise.FINAL,
        lambda: replace(QUICK.history, changes=[Change("r", Ending("failed", 11.5), Ending("completed", 12.0))]),
    ),
    "an end that was undone by no replay": (
        Promise.FINAL,
        lambda: replace(REPLAYED.history, changes=[Change("r", Ending("failed", 13.0), None)]),
    ),
    "an attempt executed by two processes": (
        Promise.ONCE,
        lambda: replace(QUICK, executed=(*QUICK.executed, replace(execution(1, 11), pid=101)), slots=2).history,
    ),
    "a run without retries that is executed twice": (
        Promise.AT_MOST_ONCE,
        lambda: BROKEN.but(asked={"at_most_once": True}).history,
    ),
    "a replayed run without retries that is executed twice in its second life": (
        Promise.AT_MOST_ONCE,
        lambda: (
            replace(REPLAYED, executed=(*REPLAYED.executed, execution(3, 19)))
            .but(attempt=3, answer_of=3, finished_at=20.0, rows=(*REPLAYED.stored.rows, Row(18, "not_started", 2)))
            .history
        ),
    ),
    "an attempt that was sent before it was stored": (
        Promise.COMMITTED,
        lambda: replace(QUICK, executed=(*QUICK.executed, execution(2, 13))).history,
    ),
    "an execution of no stored run": (
        Promise.COMMITTED,
        lambda: replace(QUICK.history, executions=[*QUICK.executed, replace(execution(1, 13), run_id="s")]),
    ),
    "an executed attempt that another follows for no reason": (
        Promise.EXPLAINED,
        lambda: STUMBLING.but(rows=()).history,
    ),
    "an attempt of which nothing tells": (
        Promise.EXPLAINED,
        lambda: CANCELLED.but(rows=()).history,
    ),
    "an attempt that was executed, one of many of which nothing tells": (
        Promise.EXPLAINED,
        lambda: replace(WAITING, executed=(execution(7, 11), *WAITING.executed)).history,
    ),
    "an attempt that was executed, but told as not sent": (
        Promise.UNSENT,
        lambda: replace(CANCELLED, executed=(execution(1, 11), execution(2, 12.5, "stopped")), slots=2).history,
    ),
    "a completed run that nobody completed": (
        Promise.ANSWERED,
        lambda: replace(QUICK, executed=(execution(1, 11, "failed"),)).history,
    ),
    "the answer of an old attempt": (Promise.ANSWERED, lambda: STUMBLING.but(answer_of=1).history),
    "a failure where there was no trouble": (
        Promise.BLAMED,
        lambda: replace(BROKEN, troubles=()).history,
    ),
    "a failure long before the trouble": (
        Promise.BLAMED,
        lambda: replace(BROKEN, troubles=(replace(LOST, began=30.0),)).history,
    ),
    "a failure long after the trouble": (
        Promise.BLAMED,
        lambda: replace(BROKEN, troubles=(replace(LOST, until=15.0),)).history,
    ),
    "a failure by what the trouble does not explain": (Promise.BLAMED, lambda: BROKEN.but(code="http_error").history),
    "a failure of the task that was to succeed": (
        Promise.BLAMED,
        lambda: STUMBLING.but(asked={"stumbles": False}).history,
    ),
    "a run that stumbles for good": (
        Promise.BLAMED,
        lambda: STUMBLING.but(state="failed", code="task_error", answer_of=None).history,
    ),
    "a run that nobody cancelled": (
        Promise.CANCELLED,
        lambda: CANCELLED.but(asked={"cancels": 0, "cancelled": 0}).history,
    ),
    "an acknowledged cancel that did nothing": (
        Promise.CANCELLED,
        lambda: QUICK.but(asked={"cancels": 1, "cancelled": 1}).history,
    ),
    "a replay that nobody asked for": (
        Promise.REPLAYED,
        lambda: REPLAYED.but(asked={"replays": 0, "replayed": 0}).history,
    ),
    "an acknowledged replay that did nothing": (
        Promise.REPLAYED,
        lambda: QUICK.but(asked={"replays": 1, "replayed": 1}).history,
    ),
    "more tries than allowed": (Promise.BOUNDED, lambda: BROKEN.but(max_attempts=1).history),
    "a charge that was not counted": (Promise.BOUNDED, lambda: STUMBLING.but(tries=0).history),
    "a start before the run was asked for": (
        Promise.PATIENT,
        lambda: replace(QUICK, executed=(execution(1, 10 - 2 * BLINK),)).history,
    ),
    "a delayed run that starts at once": (Promise.PATIENT, lambda: QUICK.but(asked={"delay": 1.5}).history),
    "a retry that does not wait": (
        Promise.PATIENT,
        lambda: replace(STUMBLING, executed=(STUMBLING.executed[0], execution(2, 13))).history,
    ),
    "more at a worker than it has slots": (
        Promise.SLOTS,
        lambda: replace(
            QUICK.history,
            submissions=[QUICK.asked, Submission(2, "work")],
            runs=[QUICK.stored, replace(QUICK.stored, id="s", number=2)],
            executions=[*QUICK.executed, replace(execution(1, 11.5), run_id="s")],
        ),
    ),
}
"""Histories that cannot be: the promise that each breaks, and no other."""


@pytest.mark.parametrize("lie", PLANTED)
def test_a_history_that_cannot_be_is_found_for_what_it_is(lie: str) -> None:
    promise, planted = PLANTED[lie]

    assert broken_by(planted()) == {promise}


def test_every_promise_has_a_history_that_breaks_it() -> None:
    assert {promise for promise, _ in PLANTED.values()} == set(Promise)


def test_an_attempt_that_was_given_up_may_go_on_beyond_the_slots() -> None:
    cut_off = replace(execution(1, 11), ended=None, outcome=None)
    again = replace(STUMBLING, executed=(cut_off, execution(2, 14)))

    assert judge(again.history) == Judgement((), {"task_error": 1}, crowded=1)


def test_it_is_told_why_something_was_executed_again() -> None:
    assert judge(BROKEN.history).repeats == {"connection_reset": 1}
    assert judge(REPLAYED.history).repeats == {"replayed": 1}
    assert judge(QUICK.history).repeats == {}


def test_an_end_that_looks_otherwise_the_next_time_is_a_change() -> None:
    before = {"a": Ending("completed", 1.0), "b": Ending("failed", 2.0), "c": Ending("failed", 3.0)}
    now = {"a": Ending("completed", 1.0), "b": Ending("completed", 2.0), "d": Ending("failed", 4.0)}

    assert changes(before, now) == [
        Change("b", Ending("failed", 2.0), Ending("completed", 2.0)),
        Change("c", Ending("failed", 3.0), None),
    ]

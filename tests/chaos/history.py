"""What happened, told from three sides, and whether it can be true: the checker of a chaos run.

The client knows what it was promised, the workers what they executed, the database what is stored. None of them is
believed alone. Everything here is data and pure functions, so that planted lies can show that the checker sees them.
Times are seconds since the epoch, all by the clock of one machine.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

FINAL: Final = frozenset({"completed", "failed", "cancelled", "skipped"})
CHARGED: Final = "retry"
REPLAYED: Final = "replayed"
MAY_HAVE_RUN: Final = frozenset({CHARGED, "not_started", REPLAYED})
"""Kinds of timeline rows that say why an attempt, which may have been executed, is followed by another."""
NEVER_RAN: Final = frozenset({"not_sent", "pushed_back", "held"})
"""Kinds of timeline rows that say of an attempt that no worker began it."""
TOLD_ONE_BY_ONE: Final = 100
"""Uncharged starts of a run that have rows of their own; of those after them only some do."""
MEANT: Final = "task_error"
"""The code of attempts that were meant to fail."""
BLINK: Final = 0.005
"""Seconds by which clocks that are read in different processes, and cut to milliseconds, may seem to disagree."""


class Promise(StrEnum):
    """What must hold; a breach names the one that did not."""

    KEPT = "an acknowledged run is stored"
    ASKED = "what is stored was asked for"
    KEYED = "an idempotency key has one run"
    FINISHED = "every run ends once the faults have stopped"
    FINAL = "a final state changes by a replay alone"
    ONCE = "an attempt is executed once"
    AT_MOST_ONCE = "a run without retries is executed at most once"
    COMMITTED = "an attempt is stored before it is sent"
    EXPLAINED = "an executed attempt that another follows has its reason in the timeline"
    UNSENT = "what is told as not sent was not executed"
    ANSWERED = "a completed run has the answer of its last attempt"
    BLAMED = "an attempt fails if it is meant to, or by trouble that there was then"
    CANCELLED = "a run is cancelled if, and only if, somebody asked for it"
    REPLAYED = "a run is replayed as often as somebody asked for it"
    BOUNDED = "no more tries than allowed, and a try for every charge"
    PATIENT = "no attempt begins before it is due"
    SLOTS = "no worker has more attempts than slots, but for abandoned ones"


@dataclass(frozen=True, slots=True)
class Submission:
    """What the client knows of one thing that it asked for.

    `maybe` counts the submits that may have been stored: acknowledged, or never answered. `cancels` and `replays` count
    the requests that may have been obeyed, `cancelled` and `replayed` those that were acknowledged.
    """

    number: int
    task: str
    keyed: bool = False
    stumbles: bool = False
    doomed: bool = False
    at_most_once: bool = False
    delay: float = 0.0
    maybe: int = 1
    acknowledged: tuple[str, ...] = ()
    cancels: int = 0
    cancelled: int = 0
    replays: int = 0
    replayed: int = 0


@dataclass(frozen=True, slots=True)
class Execution:
    """What a worker has noted of one attempt; `ended` is None while, for all that is known, it goes on."""

    run_id: str
    attempt: int
    worker: str
    pid: int
    begun: float
    ended: float | None = None
    outcome: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a run's timeline. `finished_at` is told by a replay: when the run had ended before."""

    at: float
    kind: str
    attempt: int
    code: str | None = None
    due_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is stored. `answer_of` is the attempt that wrote the output, by the output's own words."""

    id: str
    number: int
    task: str
    state: str
    attempt: int
    tries: int
    max_attempts: int
    created_at: float
    finished_at: float | None = None
    code: str | None = None
    answer_of: int | None = None
    rows: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run had ended when somebody looked."""

    state: str
    finished_at: float


@dataclass(frozen=True, slots=True)
class Change:
    """A run that had ended was seen otherwise later; `after` is None where it had not ended then."""

    run_id: str
    before: Ending
    after: Ending | None


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that went wrong: from when until when, its aftermath included, it explains failures by these codes."""

    what: str
    began: float
    until: float
    codes: Sequence[str]


@dataclass(frozen=True, slots=True)
class History:
    """Everything that is known. `slots` is what each worker was registered with."""

    submissions: Sequence[Submission]
    executions: Sequence[Execution]
    runs: Sequence[Run]
    changes: Sequence[Change] = ()
    slots: Mapping[str, int] = field(default_factory=dict)
    troubles: Sequence[Trouble] = ()


@dataclass(frozen=True, slots=True)
class Breach:
    """A promise that was broken, and how."""

    promise: Promise
    what: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.what}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the checker found.

    `repeats` counts, by reason, the executions after which the same run was executed again; `crowded` the starts with
    more than `slots` executions at work in the worker, which abandoned attempts explain.
    """

    breaches: tuple[Breach, ...]
    repeats: Mapping[str, int]
    crowded: int

    def of(self, promise: Promise) -> list[str]:
        """Return the breaches of one promise."""
        return [breach.what for breach in self.breaches if breach.promise is promise]


def changes(before: Mapping[str, Ending], now: Mapping[str, Ending]) -> list[Change]:
    """Return the runs that had ended before and do not look the same now."""
    return [Change(run_id, ending, now.get(run_id)) for run_id, ending in before.items() if now.get(run_id) != ending]


def judge(history: History) -> Judgement:
    """Hold what is stored against what was promised and what was executed."""
    runs = {run.id: run for run in history.runs}
    asked = {submission.number: submission for submission in history.submissions}
    executed: dict[str, list[Execution]] = defaultdict(list)
    for execution in history.executions:
        executed[execution.run_id].append(execution)
    breaches = [*_acknowledgements(history, runs), *_endings(history.changes, runs)]
    repeats: Counter[str] = Counter()
    for run in history.runs:
        submission = asked.get(run.number)
        if submission is None:
            breaches.append(Breach(Promise.ASKED, f"nobody submitted {run}"))
            continue
        own = executed.get(run.id, [])
        breaches += (*_stored(run, submission), *_executed(run, submission, own))
        breaches += _failures(run, submission, history.troubles)
        repeats.update(_reasons(run, own))
    for run_id in executed.keys() - runs.keys():
        breaches.append(Breach(Promise.COMMITTED, f"executed, but not stored: {executed[run_id]}"))
    crowding, crowded = _slots(history, runs)
    return Judgement((*breaches, *crowding), dict(repeats), crowded)


# -- what the client was told ------------------------------------------------------------------------------------------


def _acknowledgements(history: History, runs: Mapping[str, Run]) -> Iterator[Breach]:
    stored = Counter(run.number for run in history.runs)
    for submission in history.submissions:
        for run_id in submission.acknowledged:
            run = runs.get(run_id)
            if run is None:
                yield Breach(Promise.KEPT, f"run {run_id} was acknowledged and is not there: {submission}")
            elif run.number != submission.number:
                yield Breach(Promise.KEPT, f"run {run_id} was acknowledged for {submission} and is {run}")
        there = stored[submission.number]
        if submission.keyed and max(there, len(submission.acknowledged)) > 1:
            yield Breach(Promise.KEYED, f"{there} runs: {submission}")
        elif not submission.keyed and there > submission.maybe:
            yield Breach(Promise.ASKED, f"{there} runs of {submission.maybe} that may have been stored: {submission}")


def _endings(seen: Iterable[Change], runs: Mapping[str, Run]) -> Iterator[Breach]:
    for change in seen:
        run = runs.get(change.run_id)
        before = run.rows if run else ()
        if not any(row.kind == REPLAYED and row.finished_at == change.before.finished_at for row in before):
            yield Breach(Promise.FINAL, f"{change}, now {run}")


# -- what is stored ----------------------------------------------------------------------------------------------------


def _stored(run: Run, submission: Submission) -> Iterator[Breach]:
    rows = Counter(row.kind for row in run.rows)
    if run.state not in FINAL:
        yield Breach(Promise.FINISHED, f"{run}")
    if run.state == "cancelled" and not submission.cancels:
        yield Breach(Promise.CANCELLED, f"nobody cancelled {run}")
    if submission.cancelled and not submission.replays and run.state != "cancelled":
        yield Breach(Promise.CANCELLED, f"{submission.cancelled} times acknowledged, and now {run}")
    if not submission.replayed <= rows[REPLAYED] <= submission.replays:
        asked = f"{submission.replayed} of {submission.replays} requests acknowledged"
        yield Breach(Promise.REPLAYED, f"{rows[REPLAYED]} times, {asked}: {run}")
    if not rows[CHARGED] <= run.tries <= run.max_attempts:
        yield Breach(Promise.BOUNDED, f"{rows[CHARGED]} charges: {run}")
    told = {row.attempt for row in run.rows if row.kind in MAY_HAVE_RUN | NEVER_RAN}
    silent = [attempt for attempt in range(1, run.attempt) if attempt not in told]
    if silent and run.attempt - run.tries < TOLD_ONE_BY_ONE:
        yield Breach(Promise.EXPLAINED, f"no row tells of attempts {silent}: {run}")


def _failures(run: Run, submission: Submission, troubles: Sequence[Trouble]) -> Iterator[Breach]:
    failures = [(row.attempt, row.code, row.at) for row in run.rows if row.kind == CHARGED]
    if run.state == "failed":
        failures.append((run.attempt, run.code, run.finished_at or 0.0))
    for attempt, code, at in failures:
        meant = code == MEANT and (submission.doomed or (submission.stumbles and attempt == 1))
        if not meant and not any(one.began - BLINK <= at <= one.until and code in one.codes for one in troubles):
            yield Breach(Promise.BLAMED, f"attempt {attempt} failed by {code} at {at:.3f}: {run}")


# -- what was executed -------------------------------------------------------------------------------------------------


def _executed(run: Run, submission: Submission, executions: Sequence[Execution]) -> Iterator[Breach]:
    times = Counter(execution.attempt for execution in executions)
    rows: dict[int, list[Row]] = defaultdict(list)
    for row in run.rows:
        rows[row.attempt].append(row)
    for attempt, count in sorted(times.items()):
        kinds = {row.kind for row in rows[attempt]}
        if count > 1:
            yield Breach(Promise.ONCE, f"attempt {attempt} was executed {count} times: {run}, {executions}")
        if attempt > run.attempt:
            yield Breach(Promise.COMMITTED, f"attempt {attempt} was executed: {run}")
        elif kinds & NEVER_RAN:
            yield Breach(Promise.UNSENT, f"attempt {attempt} was executed: {run}, {executions}")
        elif attempt < run.attempt and not kinds & MAY_HAVE_RUN:
            yield Breach(Promise.EXPLAINED, f"attempt {attempt} was executed: {run}")
    if submission.at_most_once:
        lives = Counter(_life(run, attempt) for attempt in times)
        if any(count > 1 for count in lives.values()):
            yield Breach(Promise.AT_MOST_ONCE, f"attempts {sorted(times)} were executed: {run}, {executions}")
    if run.state == "completed":
        answers = [one for one in executions if one.attempt == run.attempt and one.outcome == "completed"]
        if not answers or run.answer_of != run.attempt:
            yield Breach(Promise.ANSWERED, f"{run}, {executions}")
    for execution in executions:
        due_at = _due(run, submission, rows[execution.attempt - 1])
        if execution.begun < due_at - BLINK:
            yield Breach(Promise.PATIENT, f"{due_at - execution.begun:.3f} s early: {execution} of {run}")


def _life(run: Run, attempt: int) -> int:
    """Return how often the run had been replayed before this attempt."""
    return sum(row.kind == REPLAYED and row.attempt < attempt for row in run.rows)


def _due(run: Run, submission: Submission, before: Sequence[Row]) -> float:
    """Return when an attempt may begin, given the rows of the one before."""
    first = run.created_at + submission.delay
    return max(first, before[-1].due_at or 0.0) if before else first


def _reasons(run: Run, executions: Sequence[Execution]) -> Iterator[str]:
    """Tell of every execution but the last why it was followed by another."""
    last = max((execution.attempt for execution in executions), default=0)
    for attempt in {execution.attempt for execution in executions} - {last}:
        rows = [row for row in run.rows if row.attempt == attempt and row.kind in MAY_HAVE_RUN]
        yield (rows[0].code or rows[0].kind) if rows else "unexplained"


# -- slots -------------------------------------------------------------------------------------------------------------


def _slots(history: History, runs: Mapping[str, Run]) -> tuple[list[Breach], int]:
    breaches: list[Breach] = []
    crowded = 0
    by_worker: dict[str, list[Execution]] = defaultdict(list)
    for execution in history.executions:
        by_worker[execution.worker].append(execution)
    for worker, slots in history.slots.items():
        at_work: list[Execution] = []
        for execution in sorted(by_worker[worker], key=lambda one: one.begun):
            now = execution.begun
            at_work = [one for one in at_work if one.ended is None or one.ended > now]
            at_work.append(execution)
            if len(at_work) > slots:
                believed = [one for one in at_work if not _over(runs.get(one.run_id), one.attempt, now)]
                if len(believed) > slots:
                    who = [(one.run_id, one.attempt) for one in believed]
                    breaches.append(Breach(Promise.SLOTS, f"{len(believed)} of {slots} at {worker}, {now:.3f}: {who}"))
                else:
                    crowded += 1
    return breaches, crowded


def _over(run: Run | None, attempt: int, now: float) -> bool:
    """Tell whether the attempt had ended for the server, whatever its worker did."""
    if run is None or attempt > run.attempt:
        return False
    ends = [row.finished_at or row.at for row in run.rows if row.attempt == attempt and row.kind in MAY_HAVE_RUN]
    if attempt == run.attempt and run.finished_at is not None:
        ends.append(run.finished_at)
    return bool(ends) and min(ends) <= now

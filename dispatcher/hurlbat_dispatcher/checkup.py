"""The checkup: what must hold of the rows at every commit. Rows in, findings out.

What one snapshot shows is judged here. What only a history shows (that an acknowledged run is still there, that a final
state stayed what it was) is not, and what is merely late is in `lateness.py`.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.runs import CHILDREN, MAX_TIMELINE, RunKind
from hurlbat_dispatcher.findings import Code, Finding, Severity, warn
from hurlbat_dispatcher.flow_checkup import flow_violations, slots_taken
from hurlbat_dispatcher.graph_checkup import graph_violations
from hurlbat_dispatcher.store.checkup import Load, SeenKey, SeenRun, SeenWorker, Sight, Told, look_at_rows
from hurlbat_dispatcher.store.statement import Ask, Rows

__all__ = ["Code", "Finding", "Severity", "gathered", "strict_checkup", "violations", "warn"]
SETTLING_MS: Final = 10_000
"""How long a server may start runs by slots that were changed."""
SHOWN: Final = 10
"""Findings of a kind that are told one by one."""
QUIET_AFTER: Final = 100
"""Uncharged starts that the timeline tells one by one."""


def strict_checkup() -> Generator[Ask, Rows, list[Finding]]:
    """Check in all rows what must hold at every commit; for one who lowers no slots, as a simulator."""
    sight = yield from look_at_rows()
    return list(violations(sight, settling=0))


def violations(sight: Sight, *, settling: int = SETTLING_MS) -> Iterator[Finding]:
    """Find what must never be in any committed state.

    `settling` (ms) is how long slots that were lowered may be unknown to a server; 0 says that nobody lowers them.
    """
    told = _by_run(sight.told)
    for run in sight.runs:
        for rule in RULES:
            if rule.broken(run):
                yield _broken(rule.code, run, rule.says)
        if run.state not in FINAL and sight.lanes.get(run.lane) != run.task:
            yield _broken(
                Code.LANE_WRONG, run, "is of the task {task} and stands in the lane {lane}, which is not that task's"
            )
        if run.attempt:
            yield from _timeline(run, told[run.id])
    taken = slots_taken(sight.flow)
    for load in sight.loads:
        worker = _worker(sight, load.worker)
        if worker is not None and max(load.attempts, taken[load.worker]) > worker.slots:
            yield from _oversold(load, worker, taken[load.worker], settling)
    for key in sight.keys:
        if key.until is None or key.until > sight.now:
            yield from _key(key)
    yield from _owners(sight)
    yield from flow_violations(sight.flow, sight.now, SETTLING_MS)
    yield from graph_violations(sight)


def gathered(findings: Iterable[Finding], most: int = SHOWN) -> list[Finding]:
    """Return at most so many findings of a kind, and behind them how many others there are."""
    kinds: dict[Code, list[Finding]] = defaultdict(list)
    left: Counter[Code] = Counter()
    for finding in findings:
        if len(kinds[finding.code]) < most:
            kinds[finding.code].append(finding)
        else:
            left[finding.code] += 1
    for code, count in left.items():
        kinds[code].append(Finding(code, kinds[code][0].severity, None, f"and {count} more of this kind ({code})"))
    return [finding for found in kinds.values() for finding in found]


# -- one row ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """What no row of a run may be, and the words for it."""

    code: Code
    broken: Callable[[SeenRun], bool]
    says: str


_STATES: Final = frozenset(RunState)


def _ended(run: SeenRun) -> bool:
    return run.state in FINAL


def _is_workflow(run: SeenRun) -> bool:
    return run.kind == RunKind.WORKFLOW


def _incomplete(run: SeenRun) -> bool:
    """A workflow runs without attempts, at no worker."""
    if _is_workflow(run):
        return bool(run.attempt or run.tries or run.worker or run.started_at is None or not run.ready)
    return not run.attempt or not run.tries or run.started_at is None or not run.sender or not run.ready


def _result_fits(run: SeenRun) -> bool:
    match run.state:
        case RunState.COMPLETED:
            return run.has_output and not run.has_error
        case RunState.FAILED:
            return run.has_error and not run.has_output
        case _:
            return not run.has_output


RULES: Final = (
    Rule(Code.UNKNOWN_STATE, lambda run: run.state not in _STATES, "has the state {state}, which there is not"),
    Rule(
        Code.ENDED_WITHOUT_TIME,
        lambda run: _ended(run) and run.finished_at is None,
        "is {state} and has no time of its end, so it is never removed",
    ),
    Rule(
        Code.ENDED_WITH_LEASE,
        lambda run: _ended(run) and run.lease_until is not None,
        "is {state} and still has a lease",
    ),
    Rule(
        Code.ENDED_WITHOUT_RESULT,
        lambda run: not _result_fits(run),
        "is {state}, and its output and error do not fit that (output: {has_output}, error: {has_error})",
    ),
    Rule(
        Code.ENDED_WITHOUT_START,
        lambda run: (
            run.state == RunState.COMPLETED
            and (run.started_at is None or not (_is_workflow(run) or (run.tries and run.worker)))
        ),
        "is completed and was never started (tries {tries}, started at {started_at}, worker {worker})",
    ),
    Rule(
        Code.OPEN_WITH_END,
        lambda run: not _ended(run) and run.finished_at is not None,
        "is {state} and has a time of its end",
    ),
    Rule(
        Code.WAITING_WITH_LEFTOVERS,
        lambda run: run.state == RunState.QUEUED and (run.worker is not None or run.lease_until is not None),
        "waits, and still has a worker ({worker}) or a lease ({lease_until}) of its last attempt",
    ),
    Rule(
        Code.RUNNING_INCOMPLETE,
        lambda run: run.state == RunState.RUNNING and _incomplete(run),
        "is running without all of an attempt, a charged try, a start and a sender, or a workflow with one of them"
        " (attempt {attempt}, tries {tries}, started at {started_at}, sender {sender})",
    ),
    Rule(
        Code.HELD_WITHOUT_CANCEL,
        lambda run: run.holds_until is not None and run.state != RunState.CANCELLED,
        "is {state} and holds a slot as only a cancelled run does, so that its slot counts twice",
    ),
    Rule(
        Code.TOO_MANY_TRIES,
        lambda run: run.tries > run.max_attempts,
        "was charged {tries} times, and may be {max_attempts} times at most",
    ),
    Rule(
        Code.NO_TRIES_LEFT,
        lambda run: run.state == RunState.QUEUED and run.tries == run.max_attempts,
        "waits for another attempt though all of its {max_attempts} tries are used up",
    ),
    Rule(
        Code.STARTED_EARLY,
        lambda run: (
            run.state in (RunState.RUNNING, RunState.COMPLETED)
            and run.started_at is not None
            and run.started_at < run.due_at
        ),
        "was started at {started_at}, before it was due at {due_at}; or the database's clock was set back",
    ),
)

_UNWRITTEN: Final = "nothing that Hurlbat does leaves such a row: if nobody changed it by hand, please report it"


def _broken(code: Code, run: SeenRun, says: str) -> Finding:
    sentence = says.format_map(run._asdict())
    return Finding(code, Severity.VIOLATION, run.id, f"run {run.id} {sentence}; {_UNWRITTEN}")


# -- a run and its timeline ------------------------------------------------------------------------------------------

CHARGED: Final = "retry"
PUT_BACK: Final = frozenset({CHARGED, "not_sent", "pushed_back", "held", "not_started"})
REPLAYED: Final = "replayed"
LATE: Final = "late"


def _by_run(told: Iterable[Told]) -> defaultdict[str, list[Told]]:
    found: defaultdict[str, list[Told]] = defaultdict(list)
    for one in told:
        found[one.run].append(one)
    return found


def _timeline(run: SeenRun, told: list[Told]) -> Iterator[Finding]:
    put_back: Counter[int] = Counter()
    retries = replays = rows = 0
    for one in told:
        rows += one.rows
        if one.kind in PUT_BACK:
            put_back[one.attempt] += one.rows
        retries += one.rows if one.kind == CHARGED else 0
        replays += one.rows if one.kind == REPLAYED else 0
        if one.attempt > run.attempt and one.kind != LATE:
            yield _broken(Code.TOLD_AHEAD, run, f"is in attempt {{attempt}}, and its timeline tells of {one.attempt}")
    for attempt, count in sorted(put_back.items()):
        if count > 1:
            yield _broken(Code.PUT_BACK_TWICE, run, f"was put back {count} times after attempt {attempt}")
    working = run.state in (RunState.RUNNING, RunState.COMPLETED)
    if working and put_back[run.attempt]:
        yield _broken(
            Code.RUNNING_AFTER_END, run, "is {state} by attempt {attempt}, which the timeline says was over before"
        )
    least = retries + working
    if not least <= run.tries <= retries + replays + (run.state != RunState.QUEUED):
        yield _broken(
            Code.CHARGES_WRONG,
            run,
            f"was charged {{tries}} times, and its timeline tells of {retries} retries and {replays} replays",
        )
    quiet = run.attempt - run.tries > QUIET_AFTER or rows >= MAX_TIMELINE
    if run.state == RunState.QUEUED and not quiet:
        ends = {one.attempt for one in told if one.kind in PUT_BACK or one.kind == REPLAYED}
        if run.attempt not in ends:
            yield _broken(
                Code.WAITING_UNEXPLAINED, run, "waits after attempt {attempt}, and its timeline does not say why"
            )


# -- more than one row -----------------------------------------------------------------------------------------------


def _worker(sight: Sight, name: str) -> SeenWorker | None:
    return next((worker for worker in sight.workers if worker.name == name), None)


def _oversold(load: Load, worker: SeenWorker, taken: int, settling: int) -> Iterator[Finding]:
    more = f", which take {taken}," if taken > load.attempts else ""
    says = f"the worker {worker.name} has {load.attempts} attempts{more} in {worker.slots} slots"
    if not settling or load.started_at > worker.updated_at + settling:
        yield Finding(
            Code.SLOTS_OVERSOLD,
            Severity.VIOLATION,
            worker.name,
            f"{says}, and the last of them was started in full knowledge of that; please report it",
        )
    else:
        yield warn(
            Code.SLOTS_LOWERED, worker.name, f"{says}: they were started before it was changed, and nothing starts now"
        )


def _key(key: SeenKey) -> Iterator[Finding]:
    name = f"the idempotency key {key.key!r} of the task {key.task}"
    if key.task == CHILDREN:
        if key.run_state is not None:
            return
        code, says = Code.KEY_WITHOUT_RUN, f"the child key {key.key!r} goes with its run {key.run}, which is not there"
    elif key.run_state is None and key.until is None:
        code, says = Code.KEY_WITHOUT_RUN, f"{name} ends with its run {key.run}, which is not there"
    elif key.run_state is None:
        return  # a run that gathered several submits may go before the last of their keys does
    elif key.run_task != key.task or key.run_key is None:  # one that gathered has one of several
        code = Code.KEY_OF_ANOTHER_RUN
        says = f"{name} names run {key.run}, which was submitted as {key.run_task} with the key {key.run_key!r}"
    elif key.until is None and key.run_state in FINAL:
        code = Code.KEY_OUTLIVES_RUN
        says = f"{name} ends with its run {key.run}, which is {key.run_state}, and is still there"
    else:
        return
    yield Finding(code, Severity.VIOLATION, key.run, f"{says}; {_UNWRITTEN}")


def _owners(sight: Sight) -> Iterator[Finding]:
    if len(sight.shards) != 1:
        yield Finding(
            Code.OWNERS_WRONG,
            Severity.VIOLATION,
            None,
            f"the right to start runs has {len(sight.shards)} rows in the table shard, and must have one; "
            "restore the row with id 1 and remove others while no server runs",
        )
    servers = {server.id for server in sight.servers}
    for shard in sight.shards:
        if shard.owner is not None and shard.owner not in servers:
            yield Finding(
                Code.OWNER_UNKNOWN,
                Severity.VIOLATION,
                shard.owner,
                f"the right to start runs belongs to server {shard.owner}, which never entered; "
                "it passes to another server when its lease is over",
            )

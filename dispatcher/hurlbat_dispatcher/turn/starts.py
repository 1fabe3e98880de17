"""Starts: what may run is stored as running, with the server that sends it, and put into that server's hands."""

from collections.abc import Generator, Sequence
from typing import NamedTuple

from hurlbat.wire import DeliveredRun
from hurlbat_dispatcher.domain import senders
from hurlbat_dispatcher.domain.lanes import Started
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Task
from hurlbat_dispatcher.domain.triggers import is_workflow, parents_in, tell_parents
from hurlbat_dispatcher.store import graphs, leases, runs
from hurlbat_dispatcher.store.runs import NewRun
from hurlbat_dispatcher.store.schema import DEFAULT_TENANT
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn import decide
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Assigned, Ledger, Waiters
from hurlbat_dispatcher.turn.operations import Recall


class Payload(NamedTuple):
    """What is needed to send a run."""

    run_id: str
    task: str
    attempt: int
    max_attempts: int
    input: str
    metadata: str
    trigger: str | None


class _Start(NamedTuple):
    """A waiting run that starts: its worker, the attempt, and who would like to send it."""

    worker: str
    attempt: int
    hint: str | None


def start(desk: Desk, ledger: Ledger, started: Sequence[Started], waiters: Waiters) -> Generator[Ask, Rows, None]:
    """Store the starts: new runs are inserted as running, waiting ones are read first, if they still wait."""
    waiting: dict[str, Started] = {}
    for one in started:
        row = waiters.pop(one.run_id, None)
        if row is None:
            waiting[one.run_id] = one
        else:
            _start_new(desk, ledger, one.slots.worker, row)
    if not waiting:
        return
    payloads: dict[str, Payload] = {}
    starts = yield from _still_waiting(desk, ledger, waiting, payloads)
    others = yield from _who_else(desk, starts)
    mine = []
    for run_id, (worker, attempt, hint) in starts.items():
        sender = senders.choose(desk.me, hint, others, desk.picture.sending)
        desk.picture.sent_by(run_id, attempt, sender)
        ledger.starts.append((ledger.now, ledger.now, worker, sender, DEFAULT_TENANT, run_id))
        if sender == desk.me:
            mine.append(run_id)
        else:
            ledger.assigned.append(Assigned(sender, run_id))
    missing = [run_id for run_id in mine if run_id not in payloads]
    if missing:
        found = yield runs.PAYLOADS.fetch(DEFAULT_TENANT, missing)
        payloads.update((row[0], Payload._make(row[:-2])) for row in found)
    for run_id in mine:
        _deliver(desk, ledger, starts[run_id].worker, payloads[run_id]._replace(attempt=starts[run_id].attempt))
    ledger.readies = [values for values in ledger.readies if values[-1] not in starts]


def take(desk: Desk, ledger: Ledger, run_ids: Sequence[str]) -> Generator[Ask, Rows, None]:
    """Take attempts that were started for this server to send, as far as that is still so."""
    rows = yield runs.TAKE.fetch(DEFAULT_TENANT, list(run_ids), desk.me)
    for *payload, worker in rows:
        if payload[0] not in ledger.touched:
            _deliver(desk, ledger, worker, Payload._make(payload))


def recall(desk: Desk, ledger: Ledger, operation: Recall) -> Generator[Ask, Rows, None]:
    """Settle what lives on this server's lease and is not in its hands: see `Recall`."""
    connected = yield runs.CONNECTED.fetch(desk.me)
    ledger.connected = frozenset(row[0] for row in connected)
    unsent: list[str] = []
    lost: list[tuple[str, int]] = []
    for run_id, attempt, started_at in connected:
        if (run_id, attempt) in operation.in_hand or run_id in ledger.touched:
            continue
        if (run_id, attempt) not in operation.took:
            unsent.append(run_id)
        elif operation.before is not None and started_at is not None and started_at < operation.before:
            lost.append((run_id, attempt))
    if unsent:
        yield from take(desk, ledger, unsent)
    yield from ledger.load(DEFAULT_TENANT, [run_id for run_id, _ in lost if run_id not in ledger.rows])
    for run_id, attempt in lost:
        row = ledger.rows.get(run_id)
        if row is not None and row.state == RunState.RUNNING and row.attempt == attempt and row.lease_until is None:
            decide.lose(desk, ledger, row)


def add_outputs(ledger: Ledger) -> Generator[Ask, Rows, None]:
    """Give nodes that are sent now the outputs of their parents, which are all stored by now."""
    wanted = {
        place: parents_in(run.trigger)
        for place, (_, run) in enumerate(ledger.deliveries)
        if run.trigger is not None and is_workflow(run.trigger)
    }
    ids = sorted({run_id for parents in wanted.values() for run_id in parents.values()})
    outputs = yield from graphs.outputs_of(DEFAULT_TENANT, ids)
    for place, parents in wanted.items():
        worker, run = ledger.deliveries[place]
        ledger.deliveries[place] = (worker, run._replace(parents=tell_parents(parents, outputs)))


def _start_new(desk: Desk, ledger: Ledger, worker: str, row: NewRun) -> None:
    row = row._replace(
        state=RunState.RUNNING.value,
        ready=1,
        attempt=1,
        tries=1,
        started_at=ledger.now,
        worker=worker,
        sender=desk.me,
    )
    ledger.inserts.append(row)
    desk.picture.sent_by(row.id, 1, desk.me)
    _deliver(desk, ledger, worker, Payload(row.id, row.task, 1, row.max_attempts, row.input, row.metadata, row.trigger))


def _still_waiting(
    desk: Desk, ledger: Ledger, waiting: dict[str, Started], payloads: dict[str, Payload]
) -> Generator[Ask, Rows, dict[str, _Start]]:
    """Return those of the runs that wait still; what was read on the way comes into `payloads`.

    What another server would like to send was read just now, when it became due, and its payload is not needed here.
    """
    starts: dict[str, _Start] = {}
    unknown: list[str] = []
    for run_id, one in waiting.items():
        row = ledger.rows.get(run_id)
        if row is None or row.sender is None:
            unknown.append(run_id)
        elif run_id not in ledger.touched and row.state == RunState.QUEUED and row.ready:
            starts[run_id] = _Start(one.slots.worker, row.attempt + 1, row.sender)
    found = (yield runs.PAYLOADS.fetch(DEFAULT_TENANT, unknown)) if unknown else ()
    for *payload, hint, ready in found:
        read = Payload._make(payload)
        row = ledger.rows.get(read.run_id)
        if read.run_id not in ledger.touched and (ready if row is None else row.ready):
            payloads[read.run_id] = read
            starts[read.run_id] = _Start(waiting[read.run_id].slots.worker, read.attempt + 1, hint)
    for run_id in waiting:
        if run_id not in starts:
            desk.release(run_id, unsent=True)  # cancelled in the meantime, here or by another server
    return starts


def _who_else(desk: Desk, starts: dict[str, _Start]) -> Generator[Ask, Rows, tuple[str, ...]]:
    """Return the other servers that may be given work until the commit."""
    wanted = desk.peers
    if wanted and desk.picture.sending.get(desk.me, 0) + len(starts) <= senders.AHEAD:
        hints = {one.hint for one in starts.values()}
        wanted = tuple(peer for peer in wanted if peer in hints)
    rows = (yield leases.ALIVE.fetch(list(wanted))) if wanted else ()
    return tuple(row[0] for row in rows)


def _deliver(desk: Desk, ledger: Ledger, worker: str, payload: Payload) -> None:
    known: Task | None = desk.registry.tasks.get(payload.task)
    delivered = DeliveredRun(
        payload.run_id,
        payload.task,
        payload.attempt,
        payload.max_attempts,
        payload.input,
        payload.metadata,
        (known.execution_timeout if known else 300_000) / 1000,
        desk.lease_tokens.of(payload.run_id, payload.attempt),
        f"{desk.report_base}/runs/{payload.run_id}/attempts/{payload.attempt}",
        payload.trigger,
    )
    ledger.deliveries.append((worker, delivered))

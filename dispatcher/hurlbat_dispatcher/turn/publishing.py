"""Events are stored together with the runs that they start: one that is known already starts nothing."""

from collections.abc import Generator, Sequence

from hurlbat_dispatcher.errors import Conflict, Problem
from hurlbat_dispatcher.store.publishing import KNOWN, NewEvent, NewStart
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import EventStart, Operation, Publication, Publish, Published
from hurlbat_dispatcher.turn.submits import Intake, place

KnownEvents = dict[tuple[int, str], str]
"""(tenant, id) → the digest of its content."""


def read_events(operations: Sequence[Operation]) -> Generator[Ask, Rows, KnownEvents]:
    """Read which of the events are known already."""
    wanted: dict[int, dict[str, None]] = {}
    for operation in operations:
        if isinstance(operation, Publish):
            for event in operation.events:
                wanted.setdefault(event.tenant, {})[event.id] = None
    known: KnownEvents = {}
    for tenant, ids in wanted.items():
        rows = yield KNOWN.fetch(tenant, list(ids))
        known.update(((tenant, row[0]), row[1]) for row in rows)
    return known


def publish(desk: Desk, ledger: Ledger, operation: Publish, intake: Intake, known: KnownEvents) -> None:
    """Store each event that is new, and place the runs of those who listen."""
    results: list[Published | Problem] = []
    for event in operation.events:
        digest = known.get((event.tenant, event.id))
        if digest is None:
            known[event.tenant, event.id] = event.digest
            _keep(desk, ledger, event, intake)
            results.append(Published(event.id, created=True))
        elif digest == event.digest:
            results.append(Published(event.id, created=False))
        else:
            sentence = f"there is an event {event.id} with another content; use another id"
            results.append(Conflict("event_conflict", sentence, event=event.id))
    ledger.reply(operation, results)


def _keep(desk: Desk, ledger: Ledger, event: Publication, intake: Intake) -> None:
    ledger.events.append(
        NewEvent(
            event.tenant,
            event.id,
            event.key,
            event.scope,
            event.payload,
            event.metadata,
            event.priority,
            event.digest,
            event.replay_of,
            ledger.now,
        )
    )
    for n, start in enumerate(event.starts):
        placed, run_id = _placed(desk, ledger, start, intake), None
        if isinstance(placed, Problem):
            start = start._replace(outcome="failed", reason=placed.detail)
        else:
            run_id = placed
        ledger.event_starts.append(
            NewStart(event.tenant, event.id, n, start.task, start.filter, start.outcome, run_id, start.reason)
        )


def _placed(desk: Desk, ledger: Ledger, start: EventStart, intake: Intake) -> str | Problem | None:
    if start.entry is None:
        return None
    placed = place(desk, ledger, start.entry, intake)
    return placed if isinstance(placed, Problem) else placed.run_id

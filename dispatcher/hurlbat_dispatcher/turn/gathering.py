"""Submits gather: what comes with the key of a run that still takes more becomes part of it, and no run of its own.

The gatherings are locked before the runs that they name, by all servers in the same order, so that what two of them
take in at the same moment gathers, too. Everything is stored in the commit that accepts the submits.
"""

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field

from hurlbat_dispatcher.domain.gathering import Gathered, GatherKind, add, begin, due_at, has_room, takes
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.runs import expiry, rank
from hurlbat_dispatcher.store import gathering as store
from hurlbat_dispatcher.store.gathering import GatheringRow
from hurlbat_dispatcher.store.runs import NewRun, RunRow
from hurlbat_dispatcher.store.statement import Ask, Rows, Values
from hurlbat_dispatcher.turn.ledger import Ledger, Waiters
from hurlbat_dispatcher.turn.operations import Entry

Name = tuple[int, str, str]
"""(tenant, task, key) of a gathering."""


@dataclass(slots=True)
class Gatherings:
    """What a turn knows of the gatherings that its submissions name, and what it has done with them.

    `most` is how many bytes the input of a batch may have.
    """

    most: int = 1 << 20
    open: dict[Name, Gathered] = field(default_factory=dict)
    asked: set[Name] = field(default_factory=set)
    stored: set[Name] = field(default_factory=set)
    changed: dict[Name, None] = field(default_factory=dict)
    newest: dict[str, Entry] = field(default_factory=dict)
    """The submission that takes the place of those before it in a stored run."""
    items: dict[str, list[str]] = field(default_factory=dict)
    """What a batch, new or stored, has gathered in this turn."""
    keys: dict[str, str] = field(default_factory=dict)
    """The idempotency keys of stored runs that had none."""


def read_open(gatherings: Gatherings, entries: Iterable[Entry]) -> Generator[Ask, Rows, dict[int, list[str]]]:
    """Read and lock the gatherings that submissions name; return the runs of those that were found, by tenant."""
    wanted: dict[int, tuple[dict[str, None], dict[str, None]]] = {}
    names: set[Name] = set()
    for entry in entries:
        if entry.gather is not None:
            name = (entry.tenant, entry.task.name, entry.gather)
            if name not in gatherings.asked:
                names.add(name)
                tasks, keys = wanted.setdefault(entry.tenant, ({}, {}))
                tasks[entry.task.name] = None
                keys[entry.gather] = None
    gatherings.asked |= names
    found: dict[int, list[str]] = {}
    for tenant, (tasks, keys) in wanted.items():
        rows = yield store.OPEN.fetch(tenant, list(tasks), list(keys))
        for row in map(GatheringRow._make, rows):
            if row[:3] in names:
                gatherings.open[row[:3]] = Gathered._make(row[3:])
                gatherings.stored.add(row[:3])
                found.setdefault(tenant, []).append(row.run)
    return found


def read_more(ledger: Ledger, gatherings: Gatherings, entries: Sequence[Entry]) -> Generator[Ask, Rows, None]:
    """Read the gatherings that more submissions name, and their runs."""
    for tenant, ids in (yield from read_open(gatherings, entries)).items():
        yield from ledger.load(tenant, sorted(run_id for run_id in ids if run_id not in ledger.rows))


def absorb(ledger: Ledger, gatherings: Gatherings, waiters: Waiters, entry: Entry, lane: int) -> str | None:
    """Return the run that takes a submission in; None where that is a new run, which `begin_with` is told."""
    gather, name = entry.task.gather, (entry.tenant, entry.task.name, entry.gather or "")
    found = gatherings.open.get(name)
    if gather is None or found is None:
        return None
    row = waiters.get(found.run) or ledger.rows.get(found.run)
    if row is None or not _may_take(gather.kind, row, ledger.now) or not takes(gather, found, ledger.now):
        return None
    leads = gather.kind is GatherKind.LEADING
    if not leads and row.id in ledger.touched and row.id not in gatherings.items and row.id not in gatherings.newest:
        return None  # somebody else has changed it in this turn: it was moved, or replayed
    size = _bytes(entry.submission.input)
    if not has_room(gather, found, size, gatherings.most):
        gatherings.items.setdefault(row.id, [])
        _let_wait(ledger, waiters, row, ledger.now, row.priority, entry)
        return None
    grown = add(gather, found, size, ledger.now)
    gatherings.open[name] = grown
    gatherings.changed[name] = None
    if leads:
        return row.id
    asked = entry.submission
    priority = entry.task.priority if asked.priority is None else asked.priority
    due = grown.until
    if gather.kind is GatherKind.BATCH:
        due = row.due_at if takes(gather, grown, ledger.now) else due  # it stays where it was, unless it is full
        gatherings.items.setdefault(row.id, []).append(asked.input)
        priority = max(priority, row.priority)
    elif row.id in waiters:
        waiters[row.id] = row = waiters[row.id]._replace(
            lane=lane,
            parent=asked.parent,
            root=entry.root,
            child_key=asked.child_key,
            awaited=int(asked.awaited) or None,
            trigger=asked.trigger,
            input=asked.input,
            metadata=asked.metadata,
        )
    else:
        gatherings.newest[row.id] = entry
        ledger.rows[row.id] = row = ledger.rows[row.id]._replace(lane=lane)
        if found.until == found.first_at + gather.period < grown.until:  # what was told of it first, and once
            ledger.note(row, "gathered", {"due_at": grown.until, "was_due_at": row.due_at})
    _let_wait(ledger, waiters, row, due, priority, entry)
    return row.id


def begin_with(gatherings: Gatherings, row: NewRun, entry: Entry, now: int) -> NewRun:
    """Let a new run begin a gathering, and return it as it is then."""
    gather = entry.task.gather
    assert gather is not None
    assert entry.gather is not None
    name = (entry.tenant, entry.task.name, entry.gather)
    gathered = begin(gather, row.id, _bytes(entry.submission.input), now)
    gatherings.open[name] = gathered
    gatherings.changed[name] = None
    due = due_at(gather, gathered)
    if due <= now:
        return row
    expires_at, _ = expiry(
        created_at=row.created_at,
        due_at=due,
        ttl_at=row.ttl_at,
        schedule_timeout=entry.task.schedule_timeout,
        tries=0,
    )
    return row._replace(ready=0, joined_at=None, due_at=due, rank=rank(due, row.priority), expires_at=expires_at)


def take_key(
    ledger: Ledger, gatherings: Gatherings, waiters: Waiters, run_id: str, key: str, *, until_its_end: bool
) -> bool:
    """Let a run that absorbed a submission have its idempotency key, where it has none.

    Return False where the key would last until the end of a run that is over.
    """
    row = waiters.get(run_id) or ledger.rows[run_id]
    if until_its_end and row.state in FINAL:
        return False
    if row.idempotency_key is None and run_id in waiters:
        waiters[run_id] = waiters[run_id]._replace(idempotency_key=key)
    elif row.idempotency_key is None:
        ledger.rows[run_id] = ledger.rows[run_id]._replace(idempotency_key=key)
        gatherings.keys[run_id] = key
    return True


def settle(ledger: Ledger, gatherings: Gatherings, waiters: Waiters) -> None:
    """Put what has gathered in this turn into the rows, new and stored, that have it from now on."""
    if not gatherings.changed and not gatherings.items:
        return
    begun: list[Values] = []
    gone_on: list[Values] = []
    for name in sorted(gatherings.changed):
        gathered = gatherings.open[name]
        if name in gatherings.stored:
            gone_on.append((*gathered, *name))
        else:
            begun.append((*name, *gathered))
    appended: list[Values] = []
    for run_id, items in gatherings.items.items():
        if run_id in waiters:
            row = waiters[run_id]
            waiters[run_id] = row._replace(input=f"{','.join((row.input[:-1], *items))}]")
        else:
            more = "".join(f",{item}" for item in items)
            appended.append((*_times(ledger.rows[run_id]), f"{more}]", *_this(ledger, gatherings, run_id)))
    replaced: list[Values] = []
    for run_id, entry in gatherings.newest.items():
        stored, asked = ledger.rows[run_id], entry.submission
        kin = (asked.parent, entry.root, asked.child_key, int(asked.awaited) or None)
        said = (*kin, asked.trigger, asked.input, asked.metadata)
        replaced.append((stored.lane, *_times(stored), *said, *_this(ledger, gatherings, run_id)))
    changed = {*gatherings.items, *gatherings.newest}
    taken: list[Values] = [_this(ledger, gatherings, run_id) for run_id in gatherings.keys if run_id not in changed]
    ledger.gathered = [
        (store.BEGIN, begun),
        (store.GO_ON, gone_on),
        (store.REPLACE, replaced),
        (store.APPEND, appended),
        (store.TAKE_KEY, taken),
    ]


def _may_take(kind: GatherKind, row: NewRun | RunRow, now: int) -> bool:
    """Tell whether a run can have more: a leading one unless it never started and never will, others while they wait.

    One that waits must not be seen by those who start it, now or from the next moment on.
    """
    if kind is GatherKind.LEADING:
        return not (row.attempt == 0 and row.state in FINAL)
    waits = row.state == RunState.QUEUED and row.attempt == 0 and not row.ready and row.due_at > now
    return waits and (row.expires_at is None or row.expires_at > now)


def _let_wait(ledger: Ledger, waiters: Waiters, row: NewRun | RunRow, due: int, priority: int, entry: Entry) -> None:
    """Let the run of a gathering wait until then (ms)."""
    expires_at, _ = expiry(
        created_at=row.created_at,
        due_at=due,
        ttl_at=row.ttl_at,
        schedule_timeout=entry.task.schedule_timeout,
        tries=0,
    )
    if row.id in waiters:
        waiters[row.id] = waiters[row.id]._replace(
            due_at=due, priority=priority, rank=rank(due, priority), expires_at=expires_at
        )
        return
    if due < row.due_at:
        ledger.queued = True
        ledger.note(ledger.rows[row.id], "gathered", {"due_at": due, "was_due_at": row.due_at})
    ledger.rows[row.id] = ledger.rows[row.id]._replace(
        due_at=due, priority=priority, rank=rank(due, priority), expires_at=expires_at
    )
    ledger.touched.add(row.id)
    ledger.wake_at(due)
    ledger.wake_at(expires_at)


def _times(row: RunRow) -> Values:
    return row.priority, row.rank, row.due_at, row.expires_at


def _this(ledger: Ledger, gatherings: Gatherings, run_id: str) -> Values:
    return gatherings.keys.get(run_id), ledger.rows[run_id].tenant, run_id


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())

"""Cancel or replay many runs at once: a filter says which, and an operation says how far it is."""

import re
from dataclasses import dataclass, replace
from typing import Final

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Ids
from hurlbat_dispatcher.domain.bulk import CHANGEABLE, USUAL, OperationKind, OperationState, RunFilter
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound, Unavailable
from hurlbat_dispatcher.loops.bulk import BulkWork
from hurlbat_dispatcher.pages import Page
from hurlbat_dispatcher.store import bulk as store
from hurlbat_dispatcher.store.bulk import ALL, FIRST_ID, Bounds, OperationRow
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.views import LAST_ID
from hurlbat_dispatcher.turn.desk import Desk

MAX_AT_WORK: Final = 10
"""Operations that are at work at a time."""
MAX_IDS: Final = 1_000
"""Runs that a filter may name."""
COUNTED: Final = 5_000
"""Runs of each state that are looked at in one read, to count them."""
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DONE_TO: Final = {OperationKind.CANCEL: "cancelled", OperationKind.REPLAY: "replayed"}


@dataclass(frozen=True, slots=True)
class BulkOperation:
    """Something that is done to many runs. Times are ms since the epoch.

    Of the `matched` runs, it was done to `done`; `skipped` were no longer what was meant when it was their turn.
    """

    id: str
    kind: OperationKind
    state: OperationState
    filter: RunFilter
    reason: str | None
    matched: int
    done: int
    skipped: int
    created_at: int
    finished_at: int | None


class Bulk:
    """All operations on many runs."""

    def __init__(self, tenant: int, database: Database, ids: Ids, desk: Desk, work: BulkWork) -> None:
        self._tenant = tenant
        self._database = database
        self._ids = ids
        self._desk = desk
        self._work = work

    async def count(self, kind: OperationKind, wanted: RunFilter) -> int:
        """Return to how many runs it would be done now; nothing is. Raises `Invalid`."""
        return await self._count(_checked(kind, wanted), ALL)

    async def start(self, kind: OperationKind, wanted: RunFilter, *, reason: str | None = None) -> BulkOperation:
        """Begin to do it to all runs that are meant now. Raises `Invalid`, and `Conflict` when too many are at work."""
        wanted = _checked(kind, wanted)
        if self._work.stopping:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        now = max(self._desk.last_now, await available(self._database.read(database_now())))
        id_ = self._ids.new()
        matched = await self._count(wanted, Bounds(now, id_))
        over = not matched
        row = OperationRow(
            id_,
            kind.value,
            wanted.to_json(),
            reason,
            (OperationState.DONE if over else OperationState.RUNNING).value,
            matched,
            0,
            0,
            None,
            None if over else self._work.me,
            now,
            now if over else None,
        )
        if not await available(self._database.write(store.add(self._tenant, row, MAX_AT_WORK))):
            raise Conflict(
                "too_many_operations",
                f"{MAX_AT_WORK} operations are at work, which is the most at a time; wait until one of them is done"
                " (GET /operations)",
                limit=MAX_AT_WORK,
            )
        if not over:
            self._work.begin(id_)
        return _shown(row)

    async def get(self, operation_id: str) -> BulkOperation:
        """Return an operation. Raises `NotFound`."""
        row = None
        if _ID.fullmatch(operation_id):
            row = await available(self._database.read(store.one(self._tenant, operation_id)))
        if row is None:
            raise NotFound("operation_unknown", f"there is no operation {operation_id[:64]}")
        return _shown(row)

    async def page(self, *, cursor: str | None = None, limit: int = 50) -> Page[BulkOperation]:
        """Return operations, the newest first. Raises `Invalid`."""
        if cursor is not None and not _ID.fullmatch(cursor):
            raise Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor")
        rows = await available(self._database.read(store.page(self._tenant, cursor or LAST_ID, limit + 1)))
        shown = rows[:limit]
        return Page([_shown(row) for row in shown], shown[-1].id if len(rows) > limit else None)

    async def _count(self, wanted: RunFilter, bounds: Bounds) -> int:
        """Count the runs that are meant, a slice at a time: everybody else reads in between."""
        counted, after = 0, FIRST_ID
        while True:
            look = store.matching(self._tenant, wanted, bounds, after, COUNTED)
            ids, until = await available(self._database.read(look))
            counted += len(ids)
            if until is None:
                return counted
            after = until


def _checked(kind: OperationKind, wanted: RunFilter) -> RunFilter:
    """Return the filter with the states that it means. Raises `Invalid`."""
    possible = CHANGEABLE[kind]
    if wanted == RunFilter():
        every = ", ".join(f'"{state}"' for state in possible)
        raise Invalid(
            "filter_empty",
            "filter must name at least one of task, state, created_after, created_before and ids; to mean all runs, "
            f"name the states: [{every}]",
            field="filter",
        )
    for state in wanted.states:
        if state not in possible:
            raise _wrong("state", f"a {state} run cannot be {_DONE_TO[kind]}; it must be of {', '.join(possible)}")
    if wanted.ids is not None and not 1 <= len(wanted.ids) <= MAX_IDS:
        raise _wrong("ids", f"must have 1 to {MAX_IDS} items", limit=MAX_IDS)
    after, before = wanted.created_after, wanted.created_before
    if after is not None and before is not None and before <= after:
        raise _wrong("created_before", "must be later than created_after")
    return replace(
        wanted,
        states=tuple(dict.fromkeys(wanted.states)) or USUAL[kind],
        ids=None if wanted.ids is None else tuple(sorted(set(wanted.ids))),
    )


def _wrong(name: str, rule: str, **more: int) -> Invalid:
    return Invalid("member_invalid", f"filter.{name}: {rule}", field=f"filter.{name}", **more)


def _shown(row: OperationRow) -> BulkOperation:
    return BulkOperation(
        row.id,
        OperationKind(row.kind),
        OperationState(row.state),
        RunFilter.from_json(row.filter),
        row.reason,
        row.matched,
        row.done,
        row.skipped,
        row.created_at,
        row.finished_at,
    )

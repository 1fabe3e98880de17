"""Taking submissions in: each is checked, and answered after the commit that stores its run."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.awaiting import Awaiting
from hurlbat_dispatcher.clock import Clock, Ids
from hurlbat_dispatcher.domain.runs import Run, Submission
from hurlbat_dispatcher.entries import child_of, entry_of, without_gathered
from hurlbat_dispatcher.errors import Invalid, Problem, Unavailable
from hurlbat_dispatcher.moments import check_moment
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.run_ids import is_run_id, unknown_parent, unknown_run
from hurlbat_dispatcher.store import kin, views
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kin import ParentRow
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.operations import Entry, Operation, Placed, Submit
from hurlbat_dispatcher.waiting import Waiting

MAX_BULK: Final = 1_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """A run that is stored: new, or the one that had the idempotency key before."""

    run: Run
    created: bool


class Submitting:
    """The door for submissions."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        desk: Desk,
        clock: Clock,
        ids: Ids,
        waiting: Waiting,
        awaiting: Awaiting,
        *,
        put: Callable[[Operation], None],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._desk = desk
        self._clock = clock
        self._ids = ids
        self._waiting = waiting
        self._awaiting = awaiting
        self._put = put

    async def submit(self, submission: Submission) -> Accepted:
        """Accept a run. Raises `Invalid`, `Conflict`, `Overloaded`, `Unavailable`."""
        [entry] = await self._entries([submission])
        if isinstance(entry, Problem):
            raise entry
        return await self._submitted(entry)

    async def submit_and_wait(self, submission: Submission, seconds: float) -> Run:
        """Accept a run and return it when it has ended, or as it is after so many seconds. Raises as `submit` does."""
        [entry] = await self._entries([submission])
        if isinstance(entry, Problem):
            raise entry

        async def submitted() -> Run:
            return (await self._submitted(entry)).run

        return await self._waiting.end_of_new(entry.id, seconds, submitted())

    async def submit_many(self, submissions: Sequence[Submission]) -> list[Accepted | Problem]:
        """Accept up to 1,000 runs in one commit, with an outcome for each, in order."""
        if len(submissions) > MAX_BULK:
            raise Invalid("too_many", f"at most {MAX_BULK} runs at a time", limit=MAX_BULK)
        checked = await self._entries(submissions)
        entries = [one for one in checked if isinstance(one, Entry)]
        placed = iter(await self._ask(Submit(entries)) if entries else ())
        return await self._accepted([next(placed) if isinstance(one, Entry) else one for one in checked])

    async def _entries(self, submissions: Sequence[Submission]) -> list[Entry | Problem]:
        """Check submissions; the parents that they name are read together."""
        parents = await self._parents(submissions)
        now = self._clock.now_ms()
        checked: list[Entry | Problem] = []
        for submission in submissions:
            try:
                checked.append(self._entry(submission, parents, now))
            except Problem as problem:
                checked.append(problem)
        return await self._awaiting.let_in(checked)

    async def _parents(self, submissions: Sequence[Submission]) -> dict[str, ParentRow]:
        named = {one.parent: None for one in submissions if one.parent is not None and is_run_id(one.parent)}
        return await available(self._database.read(kin.parents(self._tenant, list(named)))) if named else {}

    def _entry(self, submission: Submission, parents: Mapping[str, ParentRow], now: int) -> Entry:
        check_moment(submission.run_at, now)
        if submission.child_key is not None:
            _check_child_key(submission)
        if submission.parent is None:
            return entry_of(self._ids.new(), self._tenant, submission, self._registry, None)
        parent = parents.get(submission.parent)
        if parent is None:
            raise unknown_parent(submission.parent)
        return child_of(parent, self._ids.new(), self._tenant, submission, self._registry)

    async def _submitted(self, entry: Entry) -> Accepted:
        [placed] = await self._ask(Submit([entry]))
        [outcome] = await self._accepted([placed])
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    async def _accepted(self, placed: Sequence[Placed | Problem]) -> list[Accepted | Problem]:
        """Show what became of submissions; the runs that had their keys before are read together."""
        old = {one.run_id: None for one in placed if isinstance(one, Placed) and one.run is None}
        found = await available(self._database.read(views.many_runs(self._tenant, list(old)))) if old else {}
        runs = {run_id: without_gathered(run, self._registry) for run_id, run in found.items()}

        def outcome(one: Placed | Problem) -> Accepted | Problem:
            if isinstance(one, Problem):
                return one
            run = one.run or runs.get(one.run_id)
            return unknown_run(one.run_id) if run is None else Accepted(run, one.created)

        return [outcome(one) for one in placed]

    async def _ask(self, operation: Submit) -> Any:
        if self._desk.draining:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        operation.reply = asyncio.get_running_loop().create_future()
        self._put(operation)
        return await operation.reply


def _check_child_key(submission: Submission) -> None:
    if submission.parent is None:
        raise Invalid(
            "member_invalid",
            "child_key names a child among those of its parent, so it needs a parent",
            field="child_key",
        )
    if submission.idempotency_key is not None:
        raise Invalid("member_invalid", "child_key and idempotency_key exclude each other", field="child_key")

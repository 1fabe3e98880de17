"""Runs that wait for runs: who would wait for ever is told so at once, and nothing is stored.

That a run waits for another is known by the submission that said so, and by the requests that are open at this server.
Of who waits in any other way nothing is assumed: it may go on, and then there is room.
"""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.domain.awaiting import Room, Waiter, Work, held_back
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from hurlbat_dispatcher.domain.policies import PLAIN, Draws, read_draws
from hurlbat_dispatcher.domain.runs import RunKind, Task
from hurlbat_dispatcher.domain.terms import liking
from hurlbat_dispatcher.errors import Conflict, Problem
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.run_ids import unknown_run
from hurlbat_dispatcher.store import kin, runs
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.kin import KinRow
from hurlbat_dispatcher.store.statement import Ask, Rows
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.operations import Entry


class Awaiting:
    """Who waits for whom, and whether that can end."""

    def __init__(self, tenant: int, database: Database, registry: Registry, desk: Desk) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._desk = desk
        self._open: dict[str, Counter[str]] = {}
        """Requests that are open: who waits, for which runs."""

    async def let_in(self, checked: Sequence[Entry | Problem]) -> list[Entry | Problem]:
        """Return submissions as they are, but with a problem for each whose parent would wait for it for ever."""
        parents = {
            one.submission.parent: None
            for one in checked
            if isinstance(one, Entry) and one.submission.awaited and one.submission.parent is not None
        }
        if not parents:
            return list(checked)
        lines = {run_id: await self._line(run_id) for run_id in parents}
        told: dict[tuple[str, str, str], str | None] = {}
        refused: list[tuple[int, Entry, Conflict]] = []
        for at, one in enumerate(checked):
            if isinstance(one, Entry) and one.submission.awaited and one.submission.parent in lines:
                parent = one.submission.parent
                name = (parent, one.task.name, one.draws)
                if name not in told:
                    told[name] = self._held_back(lines[parent], self._work_of(one.task, read_draws(one.draws)))
                said = told[name]
                if said is not None:
                    refused.append((at, one, _would_deadlock(said, parent)))
        let_in = list(checked)
        under_way = await self._under_way([one for _, one, _ in refused])
        for at, one, problem in refused:
            if one.submission.key not in under_way:
                let_in[at] = problem
        return let_in

    async def check(self, run_id: str, by: str) -> None:
        """Return when one run may wait for another. Raises `NotFound`, and `Conflict` where it would wait for ever."""
        line = await self._line(by)
        found = await self._line(run_id)
        if not found:
            raise unknown_run(run_id)
        run = found[0]
        if run.state in FINAL:
            return
        if run_id == by:
            raise _would_deadlock(f"run {by} would wait for its own end", by)
        if self._is_waiting(run_id, by) or any(waiter.run_id == run_id for waiter in self._waiters(line)):
            said = f"run {run_id} waits for run {by}, which would wait for its end; let it end instead"
            raise _would_deadlock(said, by)
        held = self._held_back(line, await self._missing(run))
        if held is not None:
            raise _would_deadlock(held, by)

    @contextmanager
    def waits(self, by: str, run_id: str) -> Iterator[None]:
        """Know meanwhile that a run waits for another."""
        open_ = self._open.setdefault(by, Counter())
        open_[run_id] += 1
        try:
            yield
        finally:
            open_[run_id] -= 1
            if not open_[run_id]:
                del open_[run_id]
            if not open_ and self._open.get(by) is open_:
                del self._open[by]

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _line(self, run_id: str) -> list[KinRow]:
        return await available(self._database.read(kin.line(self._tenant, run_id)))

    def _held_back(self, line: Sequence[KinRow], needed: Sequence[Work]) -> str | None:
        waiters = self._waiters(line)
        return held_back(waiters, needed, self._desk.picture.terms.rules) if waiters else None

    def _waiters(self, line: Sequence[KinRow]) -> list[Waiter]:
        """Return who goes on only after the first of a line: it, its parent if that waits for it, and so on."""
        waiters: list[Waiter] = []
        for row in line:
            if row.state != RunState.RUNNING:
                break
            waiters.append(Waiter(row.id, row.worker or "", _draws(row.draws)))
            if not (row.awaited or row.kind == RunKind.NODE or row.id in self._open.get(row.parent or "", ())):
                break
        return waiters

    def _is_waiting(self, run_id: str, other: str) -> bool:
        """Tell whether a run waits for another by requests that are open here, or for one that does, and so on."""
        seen, coming = {run_id}, [run_id]
        while coming:
            for awaited in self._open.get(coming.pop(), ()):
                if awaited == other:
                    return True
                if awaited not in seen:
                    seen.add(awaited)
                    coming.append(awaited)
        return False

    async def _missing(self, run: KinRow) -> list[Work]:
        """Return what has still to start for a run to end, as far as that is known."""
        task = self._registry.tasks.get(run.task)
        if run.state != RunState.RUNNING:
            return [] if task is None else self._work_of(task, _draws(run.draws))
        if run.kind != RunKind.WORKFLOW:
            return []
        nodes = await available(self._database.read(kin.waiting_nodes(self._tenant, run.id)))
        tasks = ((self._registry.tasks.get(name), _draws(draws)) for name, draws in nodes)
        return [work for task, draws in tasks if task is not None for work in self._work_of(task, draws)]

    def _work_of(self, task: Task, draws: Draws) -> list[Work]:
        """Return what has to start first of a run: of a workflow, that is the nodes that it begins with, too."""
        needed: list[Work] = []
        seen: set[str] = set()
        coming = [(task, draws)]
        while coming:
            one, its = coming.pop()
            if one.graph is None:
                needed.append(Work(one.name, its, self._workers_of(one, its)))
                continue
            needed.append(Work(one.name, its, {}))
            if one.name in seen:
                continue
            seen.add(one.name)
            for node in one.graph.nodes.values():
                found = self._registry.tasks.get(node.task)
                if found is not None and not (node.parents or node.skip_if or node.cancel_if):
                    coming.append((found, Draws(cost=found.flow.slot_cost)))
        return needed

    def _workers_of(self, task: Task, draws: Draws) -> dict[str, Room]:
        found = ((name, self._registry.workers.get(name)) for name in task.workers)
        return {
            name: Room(worker.slots, worker.pinned)
            for name, worker in found
            if worker is not None
            and liking(task.flow, worker.labels) is not None
            and not (draws.only and name != draws.worker)
        }

    async def _under_way(self, entries: Sequence[Entry]) -> set[tuple[str, str]]:
        """Return the keys among theirs whose runs have started before: nobody has to wait for their start."""
        keys = [one.submission.key for one in entries if one.submission.key is not None]
        return await available(self._database.read(_started(self._tenant, keys))) if keys else set()


def _started(tenant: int, keys: Sequence[tuple[str, str]]) -> Generator[Ask, Rows, set[tuple[str, str]]]:
    rows = yield runs.KEYS.fetch(tenant, [task for task, _ in keys], [key for _, key in keys])
    return {(row[0], row[1]) for row in rows if row[5] == RunState.RUNNING or row[5] in FINAL}


def _draws(text: str | None) -> Draws:
    return PLAIN if text is None else read_draws(text)


def _would_deadlock(said: str, by: str) -> Conflict:
    return Conflict("would_deadlock", said, run_id=by)

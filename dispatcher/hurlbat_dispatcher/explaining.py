"""Why a run is as it is: a sentence for people, and every budget that it draws on.

What holds a waiting run is asked of the picture that decided it, at the server that starts the runs.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from hurlbat_dispatcher.domain.gathering import GatherKind
from hurlbat_dispatcher.domain.holding import BudgetView, Holding, Kind
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run, RunKind, Task
from hurlbat_dispatcher.errors import NotFound, Unavailable
from hurlbat_dispatcher.graph_sentences import how_far, how_to_meet, opens_at, what_for
from hurlbat_dispatcher.graphs import read_graph
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.sentences import holder_of, how_to_free, why_ended, why_held
from hurlbat_dispatcher.store import graphs, views, workflows
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.graphs import WaitRow
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.store.workflows import NodeRow
from hurlbat_dispatcher.telling import rfc3339
from hurlbat_dispatcher.turn.desk import Desk

MOST_COUNTED: Final = 10_000
"""Runs before one in its line that are counted; more are told as at least so many."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a run is as it is. Times are ms.

    `position` is its place in the line of those that draw on the same, from 1, exact below `MOST_COUNTED`;
    `earliest_start` is when it may start at the earliest, where time alone decides that.
    """

    run: Run
    summary: str
    budgets: tuple[BudgetView, ...] = ()
    position: int | None = None
    earliest_start: int | None = None
    frees: str | None = None


class Explainer:
    """Explains runs.

    `look` has this server's writer say how a lane stands, `ask` asks the server that starts the runs, which raises
    `TimeoutError` when that does not answer.
    """

    def __init__(
        self,
        tenant: int,
        database: Database,
        desk: Desk,
        registry: Registry,
        look: Callable[[int], Awaitable[Holding | None]],
        ask: Callable[[int], Awaitable[Holding | None]],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._desk = desk
        self._registry = registry
        self._look = look
        self._ask = ask

    async def explain(self, run_id: str) -> Explanation:
        """Explain a run. Raises `NotFound`, `Unavailable`."""
        run = await self._database.read(views.one_run(self._tenant, run_id))
        if run is None:
            raise NotFound("run_unknown", f"there is no run {run_id[:64]}")
        if run.is_final:
            return Explanation(run, why_ended(run))
        since = "" if run.started_at is None else f" since {rfc3339(run.started_at)}"
        if run.state is RunState.RUNNING and run.kind is RunKind.WORKFLOW:
            text, reached, waits = await self._database.read(self._course(run.id))
            served = {name for name, task in self._registry.tasks.items() if task.is_served}
            unserved = {row.task for row in reached.values()} - served
            said = "" if text is None else how_far(read_graph(text), reached, waits, unserved)
            return Explanation(
                run, f"It runs{since}. {said}".rstrip(), frees="The end of its nodes, or a cancel ends it."
            )
        if run.state is RunState.SUSPENDED:
            found = await self._database.read(self._waits([run.id]))
            return _suspended(run, found.get(run.id, []))
        if run.state is RunState.RUNNING:
            return Explanation(
                run,
                f"Attempt {run.attempt} runs on worker {run.worker}{since}.",
                frees="Its result, its execution_timeout, or a cancel ends it.",
            )
        return await self._waiting(run)

    async def _waiting(self, run: Run) -> Explanation:
        found = await self._database.read(views.place_of(self._tenant, run.id, MOST_COUNTED))
        if found is None:  # it has changed meanwhile
            return await self.explain(run.id)
        place, ahead = found
        if not place.ready:
            return _delayed(run, self._desk.last_now, self._registry.tasks.get(run.task))
        try:
            holding = await (self._look(place.lane) if self._desk.owns else self._ask(place.lane))
        except TimeoutError:
            said = "the server that starts the runs did not answer; try again"
            raise Unavailable("owner_silent", said, retry_after=1) from None
        if holding is not None and run.kind is RunKind.WORKFLOW:  # which takes no slots
            holding = replace(holding, budgets=tuple(one for one in holding.budgets if one.kind is not Kind.SLOTS))
        if holding is None or holding.next:
            budgets = holding.budgets if holding is not None else ()
            return Explanation(run, "Nothing holds it: it starts in a moment.", budgets, ahead + 1)
        holder = holder_of(holding.budgets)
        summary = why_held(run.task, holding.budgets, self._registry)
        if ahead:
            count = f"At least {ahead}" if ahead >= MOST_COUNTED else str(ahead)
            runs, are = ("run", "is") if ahead == 1 else ("runs", "are")
            summary += f" {count} {runs} of its kind {are} before it."
        earliest = holder.opens_at if holder is not None and not ahead else None
        return Explanation(
            run, summary, holding.budgets, ahead + 1, earliest, how_to_free(run.task, holding.budgets, self._registry)
        )

    def _course(self, run_id: str) -> Script[tuple[str | None, dict[str, NodeRow], dict[str, list[WaitRow]]]]:
        text = yield from workflows.graph_of(self._tenant, run_id)
        reached = yield from workflows.nodes_of(self._tenant, run_id)
        waits = yield from self._waits([row.id for row in reached.values() if row.state == RunState.SUSPENDED])
        return text, reached, waits

    def _waits(self, run_ids: list[str]) -> Script[dict[str, list[WaitRow]]]:
        rows = (yield graphs.WAITS.fetch(self._tenant, run_ids)) if run_ids else ()
        found: dict[str, list[WaitRow]] = {}
        for row in map(WaitRow._make, rows):
            found.setdefault(row.run, []).append(row)
        return found


def _suspended(run: Run, waits: list[WaitRow]) -> Explanation:
    return Explanation(run, f"It {what_for(waits)}", earliest_start=opens_at(waits), frees=how_to_meet(waits))


def _delayed(run: Run, now: int, task: Task | None) -> Explanation:
    if run.due_at <= now:
        return Explanation(run, "It is due, and joins its line in a moment.", earliest_start=run.due_at)
    at = rfc3339(run.due_at)
    if run.attempt == 0:
        gather = None if task is None else task.gather
        if gather is None or gather.kind is GatherKind.LEADING:
            said, frees = "", "Time; or cancel it and submit it anew."
        elif gather.kind is GatherKind.TRAILING:
            said, frees = " Its task's debounce puts it off when more is submitted.", "Time, when no more is submitted."
        else:
            said = f" Its task gathers up to {gather.size} submits into one run, which starts at once when it has them."
            frees = "Time, or the rest of its batch."
        return Explanation(run, f"It is scheduled for {at}.{said}", earliest_start=run.due_at, frees=frees)
    last = next((entry for entry in reversed(run.timeline) if "message" in entry.detail), None)
    why = "" if last is None else f": {last.detail['message']}"
    return Explanation(
        run,
        f"It waits until {at} for its next attempt, as attempt {run.attempt} did not succeed{why}.",
        earliest_start=run.due_at,
        frees="Time.",
    )

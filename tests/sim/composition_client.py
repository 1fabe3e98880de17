"""Those who begin workflows and parents, adopt, cancel and replay; what they were told is held against rows."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hurlbat_dispatcher import Engine, EventSpec, Problem, Submission
from tests.sim.brood import ADOPTED
from tests.sim.composition_plan import BROOD, STEPS, Deed
from tests.sim.flow_plan import input_of
from tests.sim.graph_oracle import nodes_and_handlers
from tests.sim.history import Asked, Part, Rule
from tests.sim.plan import chosen
from tests.sim.rows import Row
from tests.sim.ways_plan import KEYS, SCOPES
from tests.sim.wire import Lost

if TYPE_CHECKING:
    from tests.sim.story import Story

T = TypeVar("T")

MOST: Final = 12
"""Workflows and parents of one history, at most."""
PATIENCE: Final = 3.0
"""Seconds between two looks for workflows that wait for nothing any more."""


class CompositionClient:
    """Does what the plan has, until all is to be well."""

    def __init__(self, story: "Story", spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._story = story
        self._plan = story.plan.composition
        self._history = story.history
        self._spawn = spawn
        self._chance = random.Random(f"composition client {story.plan.seed}")
        self._begun = 0
        self._said = 0
        self.busy = 0
        """Calls on their way whose outcome is not known."""

    async def live(self, until: float) -> None:
        """Do things until then (seconds of the loop's time)."""
        loop = asyncio.get_running_loop()
        while self._plan.deeds:
            await asyncio.sleep(self._chance.expovariate(1 / self._plan.every))
            if loop.time() >= until:
                return
            deed = chosen(self._chance, self._plan.deeds)
            self._history.counts[f"deed {deed}"] += 1
            self._begin(self._do(deed))

    async def give_up(self) -> None:
        """Cancel, again and again, the workflows that wait for events alone: nobody publishes any more."""
        while self._plan.on:
            for run_id in self._story.checker.composition.endless():
                try:
                    await self._cancel(run_id)
                except (Problem, Lost):
                    break
            await asyncio.sleep(PATIENCE)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        async def counted() -> None:
            self.busy += 1
            try:
                await work
            except (Problem, Lost):
                return
            finally:
                self.busy -= 1

        self._spawn(counted())

    async def _ask(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        return await self._story.ask_any(work)

    async def _do(self, deed: Deed) -> None:
        match deed:
            case Deed.BEGIN | Deed.BEGIN_LATER | Deed.BEGIN_PARENT if self._begun < MOST:
                self._begun += 1
                flows = [policy["name"] for policy in self._plan.workflows]
                task = BROOD if deed is Deed.BEGIN_PARENT else self._chance.choice(flows)
                delay = self._chance.uniform(0.1, 8.0) if deed is Deed.BEGIN_LATER else None
                await self._submit(task, delay=delay, ttl=self._chance.choice((None, None, None, 15.0)))
            case Deed.ADOPT:
                parent = self._some(lambda row: row.kind != "workflow" or row.node is None)
                if parent is not None:
                    key = self._chance.choice((None, ADOPTED, "adopted"))
                    await self._submit(self._chance.choice(STEPS), parent=parent.id, child_key=key)
            case Deed.TELL:
                spec = EventSpec(self._chance.choice(KEYS), self._input(), scope=self._chance.choice(SCOPES))
                await self._ask(lambda engine: engine.events.publish(spec))
            case Deed.CANCEL:
                row = self._some(lambda row: not row.final and row.kind == "workflow")
                if row is not None:
                    await self._cancel(row.id)
            case Deed.CANCEL_PART:
                row = self._some(lambda row: not row.final and row.parent is not None)
                row = row or self._some(lambda row: not row.final and row.task == BROOD)
                if row is not None:
                    await self._cancel(row.id)
            case Deed.REPLAY | Deed.REPLAY_NODES | Deed.REPLAY_ALL | Deed.REPLAY_PART:
                await self._replay(deed)
            case Deed.REDECLARE:
                await self._redeclare()
            case _:
                return

    async def _redeclare(self) -> None:
        """Let the workers declare another graph; runs that are under way keep theirs."""
        name = self._chance.choice(list(self._plan.others))
        policy = self._story.policies[name]
        now = next((graph for graph in self._plan.declared(name) if graph != policy["graph"]), policy["graph"])
        await self._story.redeploy(name, {**policy, "graph": now})

    def _input(self) -> str:
        self._said += 1
        return json.dumps(input_of(self._chance, 20_000 + self._said) | {"depth": 0})

    def _some(self, fits: Callable[[Row], bool]) -> Row | None:
        own = {BROOD, *self._plan.graphs}
        known = [
            row
            for row in self._story.rows.values()
            if (row.task in own or row.parent is not None) and row.was_node is None and fits(row)
        ]
        return self._chance.choice(known) if known else None

    async def _submit(self, task: str, **more: Any) -> None:
        submission = Submission(task, self._input(), metadata=f'{{"by{self._said}": 1}}', **more)
        accepted = await self._ask(lambda engine: engine.submit(submission))
        run_id = accepted.run.id
        self._history.counts["composed"] += 1
        self._history.note(f"acknowledged {run_id} {task} of {submission.parent}")
        if submission.child_key is None:
            self._history.acknowledged[run_id] = Asked(task, None, submission.input)
        if run_id not in self._story.rows:
            self._history.broke(Rule.STORED, f"run {run_id} was acknowledged and is not stored")

    async def _cancel(self, run_id: str) -> None:
        self._history.cancels.add(run_id)
        replays = self._history.replays[run_id]
        await self._ask(lambda engine: engine.cancel_run(run_id))
        row = self._story.rows.get(run_id)
        if self._history.replays[run_id] == replays == 0 and (row is None or row.state != "cancelled"):
            state = "gone" if row is None else row.state
            self._history.broke(Rule.STORED, f"the cancellation of {run_id} was acknowledged, and it is {state}")

    async def _replay(self, deed: Deed) -> None:
        if deed is Deed.REPLAY_PART:
            await self._replay_part()
            return
        row = self._some(lambda row: row.final and row.kind == "workflow" and row.node is None)
        if row is None:
            return
        names = [node["name"] for node in nodes_and_handlers(self._story.checker.composition.graph_of(row))]
        part: Part = "failed"
        if deed is Deed.REPLAY_ALL:
            part = "start"
        elif deed is Deed.REPLAY_NODES:
            part = self._chance.sample(names, min(len(names), self._chance.choice((1, 1, 2))))
        nodes = () if isinstance(part, str) else part
        self._history.replays[row.id] += 1
        self._history.redone[row.id].append(part)
        replayed = self._history.replayed[row.id]
        await self._ask(lambda engine: engine.replay_run(row.id, nodes=nodes, everything=part == "start"))
        self._history.counts["workflows replayed"] += 1
        if self._history.replayed[row.id] == replayed:
            self._history.broke(Rule.STORED, f"the replay of {row.id} was acknowledged and is not stored")

    async def _replay_part(self) -> None:
        """Ask for what is refused: a node alone is not run again."""
        row = self._some(lambda row: row.final and row.node is not None)
        if row is not None:
            await self._ask(lambda engine: engine.replay_run(row.id))
            self._history.broke(Rule.AGAIN, f"the node {row.id} was replayed by itself")

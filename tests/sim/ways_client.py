"""Those who publish events, fill what gathers, move runs of later and look after schedules; what each was promised.

Every promise that an answer makes is held against what is committed in the moment of the answer.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hurlbat_dispatcher import AcceptedEvent, Engine, EventSpec, Problem, ScheduleSpec, Submission
from hurlbat_dispatcher.errors import Conflict
from tests.sim.flow_plan import input_of
from tests.sim.history import Asked, Rule
from tests.sim.plan import chosen
from tests.sim.ways_plan import EXPRESSIONS, KEYS, SCOPES, Way
from tests.sim.wire import Lost

if TYPE_CHECKING:
    from tests.sim.story import Story

T = TypeVar("T")

AGAIN: Final = 40
"""How often a submit with a key is repeated while its outcome is unknown."""
MOST: Final = 60
"""Events and gathered submits of one history, at most."""


class WaysClient:
    """Does what the plan has, until all is to be well."""

    def __init__(self, story: "Story", spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._story = story
        self._plan = story.plan.ways
        self._history = story.history
        self._spawn = spawn
        self._chance = random.Random(f"ways client {story.plan.seed}")
        self._asked = 0
        self._named: dict[str, str] = {}
        """The run that each idempotency key of a gathered submit has."""
        self.busy = 0
        """Calls on their way whose outcome is not known."""

    async def live(self, until: float) -> None:
        """Do things until then (seconds of the loop's time)."""
        loop = asyncio.get_running_loop()
        while self._plan.doings:
            await asyncio.sleep(self._chance.expovariate(1 / self._plan.every))
            if loop.time() >= until:
                return
            way = chosen(self._chance, self._plan.doings)
            self._history.counts[f"way {way}"] += 1
            self._begin(way)

    def look_after_time(self) -> None:
        """Pause and resume a schedule, as a clock was set: what was fired may come a second time."""
        if self._plan.on:
            self._begin(Way.PAUSE_SCHEDULE)

    async def make_well(self) -> None:
        """Let no schedule fire any more."""
        while running := [name for name, one in self._story.checker.ways.schedules.items() if one.next_at is not None]:
            for name in running:
                try:
                    await self._ask(_pause(name))
                except (Problem, Lost):
                    await asyncio.sleep(0.3)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _begin(self, way: Way) -> None:
        async def counted() -> None:
            self.busy += 1
            try:
                await self._do(way)
            except (Problem, Lost):
                return
            finally:
                self.busy -= 1

        self._spawn(counted())

    async def _do(self, way: Way) -> None:
        gathers = list(self._plan.gathered)
        match way:
            case Way.PUBLISH | Way.PUBLISH_TWICE | Way.PUBLISH_MANY if self._asked < MOST:
                await self._publish(way)
            case Way.GATHER if gathers and self._asked < MOST:
                task, key = self._chance.choice(gathers), self._chance.choice("abc")
                for _ in range(self._chance.choice((1, 2, 4))):
                    await self._gather(task, self._input(key))
                    await asyncio.sleep(self._chance.choice((0.0, 0.1, 1.0)))
            case Way.GATHER_KEYED if gathers and self._asked < MOST:
                await self._gather_keyed(self._chance.choice(gathers), self._input())
            case Way.MOVE:
                await self._move()
            case Way.TRIGGER | Way.PAUSE_SCHEDULE | Way.CHANGE_SCHEDULE | Way.ONE_TIME:
                await self._keep_time(way)

    async def _ask(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        return await self._story.ask_any(work)

    def _input(self, group: str | None = None) -> str:
        self._asked += 1
        said = input_of(self._chance, 10_000 + self._asked)
        return json.dumps(said if group is None else said | {"g": group})

    # -- events --------------------------------------------------------------------------------------------------------

    async def _publish(self, way: Way) -> None:
        specs = [self._event() for _ in range(5 if way is Way.PUBLISH_MANY else 1)]
        if way is Way.PUBLISH_MANY:
            for spec, outcome in zip(
                specs, await self._ask(lambda engine: engine.events.publish_many(specs)), strict=True
            ):
                if isinstance(outcome, AcceptedEvent):
                    self._acknowledged(spec, outcome)
            return
        [spec] = specs
        if way is Way.PUBLISH:
            self._acknowledged(spec, await self._ask(lambda engine: engine.events.publish(spec)))
            return
        named = EventSpec(spec.key, spec.payload, f"e{self._asked}", spec.scope)
        await asyncio.gather(self._publish_named(named), self._publish_named(named))
        if not self._story.checker.ways.event_is_stored(named.id or ""):
            return
        other = EventSpec(spec.key, "{}", named.id, spec.scope)
        try:
            await self._ask(lambda engine: engine.events.publish(other))
        except Conflict:
            return
        self._history.broke(Rule.LISTENS, f"another event was accepted for the id {named.id}")

    async def _publish_named(self, spec: EventSpec) -> None:
        for _ in range(AGAIN):
            try:
                self._acknowledged(spec, await self._ask(lambda engine: engine.events.publish(spec)))
            except (Problem, Lost):
                await asyncio.sleep(self._chance.uniform(0.0, 1.0))
            else:
                return

    def _event(self) -> EventSpec:
        key, scope = self._chance.choice(KEYS), self._chance.choice(SCOPES)
        return EventSpec(key, self._input(), scope=scope)

    def _acknowledged(self, spec: EventSpec, accepted: AcceptedEvent) -> None:
        event = accepted.event
        self._history.counts["events"] += 1
        self._history.note(f"acknowledged event {event.id} {spec.key}")
        if not self._story.checker.ways.event_is_stored(event.id):
            self._history.broke(Rule.STORED, f"the event {event.id} was acknowledged and is not stored")
        for start in event.starts:
            if start.run is not None and start.task not in self._plan.gathered:
                self._history.acknowledged[start.run] = Asked(start.task, None, spec.payload)

    # -- gathering -----------------------------------------------------------------------------------------------------

    async def _gather(self, task: str, said: str, key: str | None = None) -> None:
        since = self._story.checker.ways.commits
        if key is None:
            self._story.checker.ways.submitted.add(said)
        accepted = await self._ask(lambda engine: engine.submit(Submission(task, said, idempotency_key=key)))
        run_id = accepted.run.id
        self._history.counts["gathered"] += 1
        self._history.note(f"acknowledged {run_id} {task} {said}")
        row = self._story.rows.get(run_id)
        if row is None or row.task != task:
            self._history.broke(Rule.STORED, f"{said} is in {run_id}, which is not stored")
        elif self._keeps(task, key) and not self._story.checker.ways.has(run_id, said, since):
            self._history.broke(Rule.GATHERED, f"{said} is said to be in {run_id}, which never had it")
        if key is not None:
            other = self._named.setdefault(key, run_id)
            if other != run_id and not self._story.rows[other].final:
                self._history.broke(Rule.KEYS, f"{key} is of {other}, which has not ended, and of {run_id}")

    def _keeps(self, task: str, key: str | None) -> bool:
        """Tell whether what was submitted must be seen in its run: what comes after may take its place at once."""
        policy = self._plan.gathered[task]
        return "batch_size" in policy or (key is None and policy["debounce"].get("mode") != "leading")

    async def _gather_keyed(self, task: str, said: str) -> None:
        key = f"g{self._asked}"

        async def insist() -> None:
            for _ in range(AGAIN):
                try:
                    await self._gather(task, said, key)
                except Conflict:
                    return
                except (Problem, Lost):
                    await asyncio.sleep(self._chance.uniform(0.0, 1.5))
                else:
                    return

        await asyncio.gather(*(insist() for _ in range(self._chance.choice((1, 2)))))

    # -- time ----------------------------------------------------------------------------------------------------------

    async def _move(self) -> None:
        now = self._story.checker.time()
        waiting = [
            row.id
            for row in self._story.rows.values()
            if row.state == "queued" and not row.attempt and row.task not in self._plan.gathered
        ]
        known = [run_id for run_id in self._history.acknowledged if run_id in self._story.rows][-6:]
        if not waiting and not known:
            return
        run_id = self._chance.choice(waiting or known)
        due_at = now + round(self._chance.uniform(-2_000, 12_000))
        asked = self._history.moves[run_id]
        asked.add(due_at)
        moved = await self._ask(lambda engine: engine.move_run(run_id, due_at))
        self._history.counts["moved"] += 1
        row = self._story.rows[run_id]
        if len(asked) == 1 and row.attempt == 0 and not row.final and row.due_at != moved.due_at:
            self._history.broke(Rule.MOVED, f"{run_id} was moved to {moved.due_at}, and is due at {row.due_at}")

    async def _keep_time(self, way: Way) -> None:
        chance, known = self._chance, list(self._story.checker.ways.schedules)
        if way is Way.ONE_TIME or not known:
            task = chance.choice(self._story.plan.usual).name
            run_at = self._story.checker.time() + round(chance.uniform(-2_000, 15_000))
            self._asked += 1
            spec = ScheduleSpec(task, f"one-time-{self._asked}", run_at=run_at, input=self._input())
            if chance.random() < 0.3:
                spec = replace(spec, name="by-hand", run_at=None, expression=chance.choice(EXPRESSIONS))
            await self._ask(lambda engine: engine.schedules.create(spec))
            return
        name = chance.choice(known)
        match way:
            case Way.TRIGGER:
                await self._ask(_trigger(name))
            case Way.PAUSE_SCHEDULE:
                await self._ask(_pause(name))
                await asyncio.sleep(chance.choice((0.0, 1.0, 12.0)))
                await self._ask(_resume(name))
            case _:
                await self._ask(_change("by-hand", chance.choice(EXPRESSIONS)))


def _pause(name: str) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.schedules.pause(name)


def _resume(name: str) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.schedules.resume(name)


def _trigger(name: str) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.schedules.trigger(name)


def _change(name: str, expression: str) -> Callable[[Engine], Awaitable[Any]]:
    return lambda engine: engine.schedules.update(name, {"expression": expression})

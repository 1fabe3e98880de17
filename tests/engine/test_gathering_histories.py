"""Submits that come one by one and in bulk, again and late, held against lists of what should have become of them."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hurlbat_dispatcher import Accepted, RunState, Submission
from tests.engine.conftest import CLEAR
from tests.engine.gathered import BATCH, LEADING, TRAILING, passes
from tests.engine.world import World
from tests.support.postgres import Cluster

STEP = 300
"""Seconds: no number of steps meets a period, or a longest wait."""
POLICIES: dict[str, dict[str, Any]] = {"trailing": TRAILING, "leading": LEADING, "batch": BATCH}

SUBMIT = st.tuples(
    st.just("submit"), st.sampled_from("ab"), st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=5)
)
PASS = st.tuples(st.just("pass"), st.integers(1, 5))
AGAIN = st.tuples(st.just("again"), st.integers(0, 30))
CANCEL = st.tuples(st.just("cancel"), st.sampled_from("ab"))
HISTORIES = st.lists(st.one_of(SUBMIT, SUBMIT, PASS, AGAIN, CANCEL), min_size=2, max_size=12)


@dataclass
class Group:
    """What one run should have: its submits (number, priority) in their order, and until when it takes more (s)."""

    first_at: int
    until: int = 0
    items: list[tuple[int, int]] = field(default_factory=list)
    cancelled: bool = False
    run: str = ""


class Truth:
    """What should become of submits, by lists of what has come."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.now = 0
        self.groups: dict[str, list[Group]] = {"a": [], "b": []}
        self.of: list[Group] = []
        """The group of each submit by its number."""

    def submit(self, key: str, priority: int) -> tuple[Group, bool]:
        """Take one more; return its group, and whether that is new."""
        groups = self.groups[key]
        fresh = not groups or not self._takes(groups[-1])
        if fresh:
            groups.append(Group(self.now))
        group = groups[-1]
        group.items.append((len(self.of), priority))
        self.of.append(group)
        if self.kind == "batch":
            group.until = group.first_at + 1000
        else:
            longest = group.first_at + 2500 if self.kind == "trailing" else self.now + 1000
            group.until = min(self.now + 1000, longest)
        return group, fresh

    def _takes(self, group: Group) -> bool:
        full = self.kind == "batch" and len(group.items) == 3
        return self.now < group.until and not group.cancelled and not full

    def waits(self, group: Group) -> bool:
        """Tell whether its run has not started."""
        return self.kind != "leading" and self._takes(group)

    def input(self, group: Group) -> Any:
        """Return what its run works on."""
        numbers = [number for number, _ in group.items]
        return {"trailing": numbers[-1], "leading": numbers[0], "batch": numbers}[self.kind]

    def priority(self, group: Group) -> int:
        """Return its run's priority."""
        priorities = [priority for _, priority in group.items]
        return {"trailing": priorities[-1], "leading": priorities[0], "batch": max(priorities)}[self.kind]


class History:
    """One history, whose keys and inputs are its own among others in the same world."""

    def __init__(self, world: World, kind: str, number: int) -> None:
        self._world = world
        self._kind = kind
        self._name = f"{kind}{number}"
        self._truth = Truth(kind)
        self._asked: list[Submission] = []

    async def live(self, history: list[Any]) -> None:
        """Do it all, and look at the runs in the end."""
        for what, *more in history:
            match what:
                case "submit":
                    await self._submit(*more)
                case "pass":
                    await self._pass(more[0])
                case "again" if self._asked:
                    await self._again(more[0] % len(self._asked))
                case "cancel":
                    await self._cancel(more[0])
        await self._pass(10)
        await self._look_over()

    async def _submit(self, key: str, priorities: list[int]) -> None:
        first = len(self._asked)
        for number, priority in enumerate(priorities, first):
            said = json.dumps({"k": f"{self._name} {key}", "n": number})
            more: dict[str, Any] = {"idempotency_key": f"{self._name} {number}", "idempotency_ttl": 1e6}
            self._asked.append(Submission(self._kind, said, priority=priority, **more))
        outcomes = await self._world.engine.submit_many(self._asked[first:])
        for outcome, priority in zip(outcomes, priorities, strict=True):
            group, fresh = self._truth.submit(key, priority)
            assert isinstance(outcome, Accepted)
            group.run = group.run or outcome.run.id
            assert (outcome.created, outcome.run.id) == (fresh, group.run)

    async def _again(self, number: int) -> None:
        again = await self._world.engine.submit(self._asked[number])
        assert (again.created, again.run.id) == (False, self._truth.of[number].run)

    async def _pass(self, steps: int) -> None:
        self._truth.now += STEP * steps
        await passes(self._world, STEP * steps)

    async def _cancel(self, key: str) -> None:
        groups = self._truth.groups[key]
        if groups and self._truth.waits(groups[-1]):
            await self._world.engine.cancel_run(groups[-1].run)
            groups[-1].cancelled = True

    async def _look_over(self) -> None:
        truth = self._truth
        groups = [group for some in truth.groups.values() for group in some]
        for group in groups:
            run = await self._world.ended(group.run)
            assert run.state == (RunState.CANCELLED if group.cancelled else RunState.COMPLETED)
            found = json.loads(run.input)
            numbers = [item["n"] for item in found] if truth.kind == "batch" else found["n"]
            assert (numbers, run.priority) == (truth.input(group), truth.priority(group))
        [(count,)] = await self._world.rows(f"SELECT count(*) FROM run WHERE input LIKE '%\"{self._name} %'")
        assert count == len(groups)


def live_all(url: str, kind: str, most: int) -> None:
    """Live histories of a kind, one after the other in one world."""

    async def open_world() -> World:
        world = World(url)
        await world.engine.start()
        await world.worker("w", *({"name": name} | policy for name, policy in POLICIES.items()))
        return world

    with asyncio.Runner() as runner:
        world, lived = runner.run(open_world()), 0

        @settings(max_examples=most)
        @given(history=HISTORIES)
        def one(history: list[Any]) -> None:
            nonlocal lived
            lived += 1
            runner.run(History(world, kind, lived).live(history))

        try:
            one()
            runner.run(world.agrees_with_its_rows())
        finally:
            runner.run(world.engine.stop(0))


@pytest.mark.parametrize("kind", POLICIES)
def test_every_history_gathers_as_lists_say_on_sqlite(tmp_path_factory: pytest.TempPathFactory, kind: str) -> None:
    live_all(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('gathered') / 'hurlbat.db'}", kind, 20)


@pytest.mark.parametrize("kind", POLICIES)
def test_every_history_gathers_as_lists_say_on_postgresql(postgres_cluster: Cluster, migrated: str, kind: str) -> None:
    postgres_cluster.query(CLEAR, migrated)
    live_all(postgres_cluster.url(migrated), kind, 5)

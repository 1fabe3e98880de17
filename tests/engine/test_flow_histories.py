"""Random histories of runs with rules and limits: every strategy meets every other, and every feature each of them."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from contextlib import suppress
from itertools import combinations
from typing import Any

import httpx
import pytest

from hurlbat_dispatcher import Conflict, Problem, Run, Submission
from hurlbat_dispatcher.domain.workers import NOWHERE
from tests.engine.conftest import CLEAR
from tests.engine.far_side import Call, FakeWorker, lines, marked
from tests.engine.flow_model import (
    KINDS,
    RAISED,
    SLOTS,
    SNAPSHOT,
    STATIC,
    STATIC_MS,
    STRATEGIES,
    Judge,
)
from tests.engine.world import World
from tests.support.postgres import Cluster

RUNS = 240
FEATURES = ("rate", "priority", "retry", "pause", "cancel", "idempotency")


class Moody:
    """Answers each delivery in one of several ways."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    async def answer(self, calls: list[Call]) -> httpx.Response:
        """Work for a while, and then complete, fail or push back."""
        await asyncio.sleep(self._chance.choice([0, 0, 0.002, 0.01]))
        mood = self._chance.random()
        if mood < 0.03:
            return marked(429, retry_after="0.005")
        if mood < 0.06:
            named = [call.failed(retry_after=0.02, rate_limit_key="k") for call in calls]
            return lines(*(call.started() for call in calls), *named)
        ends = [
            call.failed() if self._chance.random() < 0.2 else call.completed(json.dumps(call.input)) for call in calls
        ]
        return lines(*(call.started() for call in calls), *ends)


class History:
    """One history in one world."""

    def __init__(self, world: World, judge: Judge, seed: int) -> None:
        self.world = world
        self.judge = judge
        self.chance = random.Random(seed)
        self.seed = seed
        self.ids: dict[str, None] = {}
        self.keys: dict[str, str] = {}
        self.marks: dict[str, set[str]] = defaultdict(set)

    async def live(self) -> None:
        """Do it all, with an eye on the rows."""
        await self.world.engine.limits.put("k", STATIC, STATIC_MS)
        for name, slots in SLOTS.items():
            fake = FakeWorker(name, [kind.policy for kind in KINDS.values()], max_batch=3)
            fake.answer = Moody(self.seed + slots).answer
            self.world.network.workers[name] = fake
            await self.world.register(fake, slots=slots)
        watching = asyncio.ensure_future(self._watch())
        try:
            while len(self.ids) < RUNS:
                await self._step()
            await self._calm_down()
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        self.judge.conclude([await self.world.engine.get_run(run_id) for run_id in self.ids], self.marks)

    async def _watch(self) -> None:
        while True:
            self.judge.see(await self.world.rows(SNAPSHOT))
            await asyncio.sleep(0.01)

    async def _step(self) -> None:
        chance, engine = self.chance, self.world.engine
        paused = chance.choice([None, None, chance.choice(list(KINDS)), "k"])
        if paused == "k":
            await engine.limits.pause("k")
        elif paused is not None:
            await engine.limits.pause_task(paused)
        outcomes = await engine.submit_many([self._ask(paused) for _ in range(chance.randint(4, 24))])
        fresh = [outcome.run for outcome in outcomes if not isinstance(outcome, Problem)]
        for run in fresh:
            self.ids[str(run.id)] = None
            if run.idempotency_key is not None:
                assert self.keys.setdefault(run.idempotency_key, str(run.id)) == str(run.id)
                self.marks[str(run.id)].add("idempotency")
        if paused is not None:
            await self._mark_paused(fresh, paused)
        for _ in range(chance.randint(1, 4)):
            await self._cancel_or_replay(chance.choice(list(self.ids)))
        if chance.random() < 0.1 and self.judge.raised_at == 1 << 62:
            self.judge.raised_at = self.world.parts.desk.last_now
            await engine.limits.put("k", RAISED, STATIC_MS)
        if paused == "k":
            await engine.limits.resume("k")
        elif paused is not None:
            await engine.limits.resume_task(paused)
        await asyncio.sleep(chance.choice([0, 0.005, 0.02]))

    def _ask(self, paused: str | None) -> Submission:
        chance = self.chance
        if self.keys and chance.random() < 0.1:
            return self._submission(chance.choice(list(self.keys)))
        task = paused if paused in KINDS and chance.random() < 0.4 else chance.choice(list(KINDS))
        key: str | None = f"{task} {chance.randrange(1 << 30)}" if chance.random() < 0.4 else None
        return self._submission(key, task)

    def _submission(self, key: str | None, task: str | None = None) -> Submission:
        """Return a submission; those of one key are the same."""
        chance = self.chance if key is None else random.Random(key)
        return Submission(
            task or (key or "").split()[0],
            json.dumps({"a": chance.choice("xy"), "b": chance.choice("xyz"), "units": chance.randint(1, 3)}),
            priority=chance.choice([None, None, 1, 3]),
            delay=chance.choice([None, None, None, 0.01]),
            idempotency_key=key,
            idempotency_ttl=None if key is None else 3600.0,
        )

    async def _mark_paused(self, fresh: list[Run], paused: str) -> None:
        """Note whose task or key is paused while it waits."""
        for run in fresh:
            if (run.task == paused or (paused == "k" and KINDS[run.task].rate == "static")) and run.state == "queued":
                self.marks[str(run.id)].add("pause")

    async def _cancel_or_replay(self, run_id: str) -> None:
        engine = self.world.engine
        with suppress(Conflict):
            if self.chance.random() < 0.8:
                run = await engine.cancel_run(run_id, reason="by hand")
                if run.reason == "by hand":
                    self.marks[run_id].add("cancel")
            else:
                await engine.replay_run(run_id)

    async def _calm_down(self) -> None:
        """Wait for every end; nothing is lent a hand."""
        runs = await self.world.all_ended(list(self.ids))
        assert len(runs) == len(self.ids)
        await self.world.until(lambda: not self.world.parts.desk.picture.running)
        picture = self.world.parts.desk.picture
        assert {name: slots.used for name, slots in picture.slots.items()} == dict.fromkeys((*SLOTS, NOWHERE), 0)
        assert [group.used for group in picture.groups.values() if group.used] == []
        assert [group.name for group in picture.groups.values() if group.members] == []
        rows = await self.world.rows("SELECT count(*) FROM idempotency")
        assert rows == [(len(self.keys),)]


def all_pairs() -> set[frozenset[str]]:
    """Return every pair of features that is to meet in one run; a strategy may meet itself."""
    pairs = {frozenset(pair) for pair in combinations((*STRATEGIES, *FEATURES), 2)}
    return pairs | {frozenset({strategy}) for strategy in STRATEGIES}


async def unmet(url: str, fewest: int, missing: int, clear: Any) -> list[list[str]]:
    """Live some histories, and a few more while more pairs than that have not met; return those pairs."""
    pairs: Counter[frozenset[str]] = Counter()
    for seed in range(4 * fewest):
        async with World(clear() or url) as world:
            judge = Judge()
            await History(world, judge, seed).live()
            pairs += judge.pairs
        left = [sorted(pair) for pair in all_pairs() if not pairs[pair]]
        if seed + 1 >= fewest and len(left) <= missing:
            break
    return left


def test_every_feature_holds_beside_every_other_on_sqlite(tmp_path_factory: pytest.TempPathFactory) -> None:
    def fresh() -> str:
        return f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('flow') / 'hurlbat.db'}"

    assert asyncio.run(unmet("", 3, 0, fresh)) == []


def test_every_feature_holds_beside_every_other_on_postgresql(postgres_cluster: Cluster, migrated: str) -> None:
    def fresh() -> None:
        postgres_cluster.query(CLEAR, migrated)

    assert len(asyncio.run(unmet(postgres_cluster.url(migrated), 2, 6, fresh))) <= 6

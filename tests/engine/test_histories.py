"""Random histories of many runs against workers that do whatever they like, and what must be so at the end of each."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

import httpx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import Conflict, Problem, Run, RunState, Submission
from hurlbat_dispatcher.domain.workers import NOWHERE
from tests.engine.conftest import CLEAR
from tests.engine.far_side import Call, FakeWorker, accepted, broken, lines, marked, said, streaming
from tests.engine.world import SOON, World
from tests.support.postgres import Cluster

RUNS = 200
WAIT = {"strategy": "fixed", "initial": 0.002, "jitter": False}
TASKS = [
    {"name": name, "retries": retries, "backoff": WAIT} for name, retries in (("once", 0), ("twice", 1), ("often", 6))
]
NO_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)
"""A smaller seed is no simpler history."""
PUTS_BACK = {"retry", "not_sent", "pushed_back", "held", "not_started"}


class Moody:
    """Answers each delivery in one of many ways; `seed` says which."""

    def __init__(self, world: World, worker: FakeWorker, seed: int) -> None:
        self._world = world
        self._worker = worker
        self._chance = random.Random(seed)
        self.reports: set[asyncio.Task[None]] = set()
        self.starts: Counter[str] = Counter()
        self.seen: Counter[tuple[str, int]] = Counter()
        self.calm = False

    async def answer(self, calls: list[Call]) -> httpx.Response:
        for call in calls:
            self.seen[call.key] += 1
        mood = 0 if self.calm else self._chance.randrange(14)
        await asyncio.sleep(0)
        match mood:
            case 1:
                raise httpx.ConnectError("refused")
            case 2:
                raise httpx.ReadError("reset")
            case 3:
                return marked(self._chance.choice([429, 503]), retry_after="0.001")
            case 4:
                return httpx.Response(self._chance.choice([500, 502, 504, 404]))
            case 5:
                return lines(*(call.failed(retryable=self._chance.random() < 0.8) for call in calls))
            case 6:
                return streaming(broken(said(*(call.started() for call in calls[::2]))))
            case 7:
                return streaming(broken(b"{what\n"))
            case 8:
                for call in calls:
                    self._report(call)
                return accepted()
            case 9:
                return lines(*(call.completed(json.dumps(call.input)) for call in calls[::2]))
            case _:
                spoken = [line for call in calls for line in (call.started(), call.completed(json.dumps(call.input)))]
                return lines(*spoken)

    def _report(self, call: Call) -> None:
        async def report() -> None:
            engine, key = self._world.engine, (call.run_id, call.attempt, call.lease_token)
            try:
                if self._chance.random() < 0.5:
                    await engine.report_heartbeat(*key)
                if self._chance.random() < 0.3:
                    await engine.report_fail(*key, FailedLine("", 0, "E", "boom"), b"f")
                else:
                    await engine.report_complete(*key, json.dumps(call.input), b"c")
            except Conflict:
                return

        task = asyncio.ensure_future(report())
        self.reports.add(task)


async def history(url: str, seed: int) -> None:
    """Submit, cancel, replay, pause; then calm down, and look."""
    chance = random.Random(seed)
    async with World(url) as world:
        moody = []
        for name, slots in (("a", 7), ("b", 3)):
            worker = await world.worker(name, *TASKS, slots=slots, max_batch=4)
            mood = Moody(world, worker, seed + slots)
            worker.answer = mood.answer
            moody.append(mood)
        ids = await _live(world, chance)
        for mood in moody:
            mood.calm = True
        runs = await _settle(world, ids)
        await asyncio.gather(*(task for mood in moody for task in mood.reports))
        await world.turns()
        runs = [await world.engine.get_run(run.id) for run in runs]
        assert len(runs) == RUNS
        for run in runs:
            _look_over(run)
        sent = moody[0].seen + moody[1].seen
        assert set(sent.values()) <= {1}, "an attempt was sent twice"
        await world.until(lambda: not world.parts.desk.picture.running)
        used = {name: slots.used for name, slots in world.parts.desk.picture.slots.items()}
        assert used == {"a": 0, "b": 0, NOWHERE: 0}


async def _live(world: World, chance: random.Random) -> list[str]:
    ids: list[str] = []
    while len(ids) < RUNS:
        count = min(chance.randint(1, 20), RUNS - len(ids))
        asked = [
            Submission(
                chance.choice(["once", "twice", "often"]),
                str(len(ids) + n),
                priority=chance.choice([None, 1, 3]),
                delay=chance.choice([None, None, 0.0, 0.02]),
                ttl=chance.choice([None, None, None, 0.05]),
                idempotency_key=chance.choice([None, f"k{len(ids) + n}"]),
            )
            for n in range(count)
        ]
        outcomes = await world.engine.submit_many(asked)
        ids += [outcome.run.id for outcome in outcomes if not isinstance(outcome, Problem)]
        for _ in range(chance.randint(0, 4)):
            run_id, engine = chance.choice(ids), world.engine
            doings: list[Any] = [engine.cancel_run, engine.cancel_run, engine.replay_run, engine.get_run]
            try:
                await chance.choice(doings)(run_id)
            except Conflict:
                continue
        if chance.random() < 0.1:
            await world.engine.pause_worker("b")
        if chance.random() < 0.2:
            await world.engine.resume_worker("b")
        if chance.random() < 0.2:
            await world.tick(sweep=True)
    return ids


async def _settle(world: World, ids: list[str]) -> list[Run]:
    """Wake who was rejected or paused, let leases be over, and wait for every end."""
    for name in ("a", "b"):
        await world.engine.resume_worker(name)
    await world.change("UPDATE run SET lease_until = 1 WHERE lease_until IS NOT NULL")
    await world.tick(sweep=True)
    waits = asyncio.ensure_future(asyncio.gather(*(world.engine.wait(run_id, SOON) for run_id in ids)))
    while not waits.done():
        await asyncio.wait({waits}, timeout=0.2)
        await world.change("UPDATE run SET lease_until = 1 WHERE lease_until IS NOT NULL AND state = 'running'")
        await world.tick()
    runs: list[Run] = waits.result()
    return runs


def _look_over(run: Run) -> None:
    assert run.is_final, run
    assert 0 <= run.tries <= run.max_attempts
    assert run.tries <= run.attempt
    assert (run.output is not None) == (run.state is RunState.COMPLETED)
    if run.state is RunState.COMPLETED:
        assert run.output == run.input
    kinds = [(entry.kind, entry.attempt) for entry in run.timeline if entry.kind != "late"]
    assert kinds[0] == ("created", 0)
    assert kinds[-1][0] == run.state
    started = [attempt for kind, attempt in kinds if kind == "started"]
    assert started == list(range(1, run.attempt + 1))
    replays = sum(kind == "replayed" for kind, _ in kinds)
    ends = sum(kind in PUTS_BACK for kind, _ in kinds)
    assert ends <= len(started) <= ends + replays + 1
    times = [entry.at for entry in run.timeline if entry.kind != "late"]
    assert times == sorted(times)


@settings(max_examples=8, phases=NO_SHRINKING)
@given(seed=st.integers(0, 1 << 32))
def test_every_history_ends_well_on_sqlite(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    file = tmp_path_factory.mktemp("history") / "hurlbat.db"
    asyncio.run(history(f"sqlite+aiosqlite:///{file}", seed))


@settings(max_examples=3, phases=NO_SHRINKING)
@given(seed=st.integers(0, 1 << 32))
def test_every_history_ends_well_on_postgresql(postgres_cluster: Cluster, migrated: str, seed: int) -> None:
    postgres_cluster.query(CLEAR, migrated)
    asyncio.run(history(postgres_cluster.url(migrated), seed))

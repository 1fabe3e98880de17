"""Random workflows in a real engine against the slow telling of `tests/unit/graph_truth.py`, looked at after each step.

Time is counted in steps: nothing happens between two of them, as nodes answer when they are told to, and sleeps end
when they are told to. So what must be there after each step is known of every node of every workflow.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import pytest

from hurlbat.wire import CancelledLine
from hurlbat_dispatcher import EventSpec
from hurlbat_dispatcher.checkup import strict_checkup
from hurlbat_dispatcher.domain.graph import Clauses, Condition, Graph, Node
from hurlbat_dispatcher.turn.due import rebuild
from tests.engine.far_side import Call, Output
from tests.engine.world import LATER_MS, SOON, World
from tests.unit.graph_plans import FAILS
from tests.unit.graph_truth import NEVER, Life, Plan, Truth, done_again

pytestmark = pytest.mark.anyio

STEPS: Final = 45
KINDS: Final = ("one", "two", "three")
AT_ONCE: Final = {"one": 2, "two": 1, "three": 9}
"""How many runs of each workflow are under way at most."""
NOW, ALWAYS = "now", "always"
"""Events of the one key count from the moment in which they are waited for; those of the other since the beginning."""
ENDS: Final = (*["completed"] * 8, "failed", "cancelled")
WELL: Final = ("completed", "skipped")
BY: Final = {"parent": "node", "condition": "condition", "workflow": "parent", "task": "task", "request": "request"}
NODES = """
    SELECT parent, node, id, state, cancelled_by, started_at, task FROM run
    WHERE node IS NOT NULL ORDER BY id
"""


@dataclass
class Flow:
    """One run of a workflow, and what is known of it by steps."""

    graph: Graph
    kind: str
    run: str
    created_at: int
    begun_at: float = NEVER
    cancelled_at: float = NEVER
    kept: dict[str, Life] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    naps: dict[int, float] = field(default_factory=dict)
    begins: int = 0
    endings: int = 0

    def truth(self, events: Sequence[tuple[int, str]]) -> Truth:
        """Tell how it stands."""
        names = [*self.graph.nodes, *(node.name for node in self.graph.last)]
        return Truth(
            Plan(
                self.graph,
                {name: self.took.get(name, NEVER) for name in names},
                {name: self.ends.get(name, "completed") for name in names},
                events,
                created_at=self.created_at,
                cancelled_at=self.cancelled_at,
                stopped=self.stopped,
                naps=self.naps,
                kept=self.kept,
                begun_at=int(self.begun_at),
            )
        )


class History:
    """Workflows, and what happens to them."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.random = Random(seed)
        self.step = 0
        self.events: list[tuple[int, str]] = []
        self.graphs = {kind: any_graph(self.random, n) for n, kind in enumerate(KINDS)}
        self.flows: list[Flow] = []
        self.queues: dict[str, list[Flow]] = {kind: [] for kind in KINDS}
        self.answers: dict[str, asyncio.Future[str]] = {}
        self.arrived: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.unfit: list[str] = []
        self.seen: dict[tuple[str, str], str] = {}

    async def live(self) -> None:
        """Do it all."""
        policies = [
            {"name": kind, "graph": said(graph), "concurrency": group(kind)} for kind, graph in self.graphs.items()
        ]
        self.worker = await self.world.worker("w", "t", *policies, work=self._work, slots=1_000)
        actions = (
            (self.submit, 2),
            (self.answer, 8),
            (self.publish, 3),
            (self.wake, 4),
            (self.cancel_a_node, 1),
            (self.cancel_a_workflow, 1),
            (self.replay, 2),
            (self.read_anew, 1),
        )
        for n in range(STEPS):
            self.step += 1
            action = self.submit if n == 0 else self.random.choices(*zip(*actions, strict=True))[0]
            if await action():
                self.done[action.__name__] += 1
                await self.settle(action.__name__)
        while any(flow.cancelled_at == NEVER and not self._over(flow) for flow in self.flows):
            self.step += 1
            await self.finish_all()
            await self.settle("at the end")
        await self.conclude()

    # -- what happens ------------------------------------------------------------------------------------------------

    async def submit(self) -> bool:
        kind = self.random.choice(KINDS)
        run = await self.world.submit(kind, '{"n": 1}')
        flow = Flow(self.graphs[kind], kind, run.id, self.step)
        self.flows.append(flow)
        self.queues[kind].append(flow)
        return True

    async def answer(self, most: int = 4) -> bool:
        """Let some nodes end in any order, as near to each other as can be."""
        waiting = [run_id for run_id, future in self.answers.items() if not future.done()]
        where = {run_id: (flow, name) for (flow, name), run_id in self._runs().items()}
        chosen = self.random.sample(waiting, min(len(waiting), self.random.randint(1, most)))
        for run_id in chosen:
            flow, name = where[run_id]
            flow_ = next(one for one in self.flows if one.run == flow)
            started = self._truth(flow_).lives[name].started_at
            assert started is not None
            flow_.ends[name] = self.random.choice(ENDS)
            flow_.took[name] = self.step - started
            self.answers[run_id].set_result(flow_.ends[name])
        return bool(chosen)

    async def publish(self) -> bool:
        key = self.random.choice((NOW, ALWAYS))
        self.events.append((self.step, key))
        await self.world.engine.events.publish(EventSpec(key, "{}"))
        return True

    async def wake(self) -> bool:
        """Let one sleep be over."""
        rows = await self.world.rows(
            "SELECT wait.run, action, clause, place, due_at FROM wait WHERE due_at IS NOT NULL AND met_at IS NULL"
        )
        where = {run_id: place for place, run_id in self._runs().items()}
        rows = sorted((row for row in rows if str(row[0]) in where), key=str)
        if not rows:
            return False
        run_id, action, clause, place, _ = self.random.choice(rows)
        run, name = where[str(run_id)]
        flow = next(one for one in self.flows if one.run == run)
        clauses = dict(zip(("cancel", "skip", "start"), _lists(flow.graph.node(name)), strict=True))[action]
        sleep = clauses[clause][place].sleep
        assert sleep is not None
        flow.naps[sleep] = self.step
        await self.world.change(
            f"UPDATE wait SET due_at = due_at - {LATER_MS} WHERE run = '{run_id}' AND action = '{action}'"
            f" AND clause = {clause} AND place = {place}"
        )
        await self.world.tick()
        return True

    async def cancel_a_node(self) -> bool:
        found = [
            (flow, name, self._runs()[flow.run, name])
            for flow in self.flows
            for name, life in self._lives(flow).items()
            if life.ended_at == NEVER
        ]
        if not found:
            return False
        flow, name, run_id = self.random.choice(found)
        flow.stopped[name] = self.step
        await self.world.engine.cancel_run(run_id)
        return True

    async def cancel_a_workflow(self) -> bool:
        found = [flow for flow in self.flows if not self._over(flow)]
        if not found:
            return False
        flow = self.random.choice(found)
        flow.cancelled_at = self.step
        if flow in self.queues[flow.kind]:
            self.queues[flow.kind].remove(flow)
        await self.world.engine.cancel_run(flow.run)
        return True

    async def replay(self) -> bool:
        found = [flow for flow in self.flows if self._over(flow)]
        if not found:
            return False
        flow = self.random.choice(found)
        lives = self._lives(flow)
        how = self.random.choice(("failed", "failed", "start", "chosen"))
        chosen = set(flow.graph.nodes) if how == "start" else set()
        if how == "chosen":
            chosen = set(self.random.choices(sorted(flow.graph.nodes), k=2))
        again = done_again(flow.graph, lives, chosen)
        flow.kept = {name: life for name, life in lives.items() if name not in again}
        for known in (flow.ends, flow.took, flow.stopped):
            for name in again:
                known.pop(name, None)
        for name in again:
            for clauses in _lists(flow.graph.node(name)):
                for one in (one for clause in clauses for one in clause if one.sleep is not None):
                    flow.naps.pop(one.sleep or 0, None)
        flow.begun_at = flow.cancelled_at = NEVER
        self.queues[flow.kind].append(flow)
        await self.world.engine.replay_run(
            flow.run, nodes=sorted(chosen) if how == "chosen" else (), everything=how == "start"
        )
        return True

    async def read_anew(self) -> bool:
        """Have the picture of what waits and runs made anew from the rows, as after a turn that failed."""
        await self.world.parts.database.write(rebuild(self.world.parts.desk))
        return True

    async def finish_all(self) -> None:
        """Answer everything, and let everything that is waited for come."""
        await self.answer(1_000)
        self.step += 1
        await self.settle("answered")
        self.step += 1
        self.events += [(self.step, NOW), (self.step, ALWAYS)]
        await self.world.engine.events.publish_many([EventSpec(NOW, "{}"), EventSpec(ALWAYS, "{}")])
        await self.settle("published")
        self.step += 1
        while await self.wake():
            await self.settle("woken")
            self.step += 1

    async def _work(self, call: Call) -> Output:
        """Answer when it is told to, or when it is cancelled."""
        self.arrived[call.run_id] += 1
        trigger = call.body["trigger"]
        told = {name: one["state"] for name, one in trigger["parents"].items()}
        graph = next(flow for flow in self.flows if flow.run == trigger["run"]).graph
        if trigger["node"] in graph.nodes:
            if told.keys() != set(graph.nodes[trigger["node"]].parents) or not set(told.values()) <= set(WELL):
                self.unfit.append(f"{trigger}")
        elif told.keys() != graph.nodes.keys():
            self.unfit.append(f"{trigger}")
        answer = self.answers[call.run_id] = asyncio.get_running_loop().create_future()
        stop = asyncio.ensure_future(self.worker.open[call.key].wait())
        try:
            await asyncio.wait([stop, answer], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            answer.cancel()
        if answer.cancelled():
            return CancelledLine(*call.key)
        match answer.result():
            case "failed":
                return call.failed()
            case "cancelled":
                return CancelledLine(*call.key, "I would rather not")
        return json.dumps(trigger["node"])

    # -- what must be so ---------------------------------------------------------------------------------------------

    async def settle(self, what: str) -> None:
        """Wait until everything is as it must be, and see that it stays so."""
        self._admit()
        wanted = self._wanted()
        with suppress(TimeoutError):
            async with asyncio.timeout(SOON):
                while await self._found() != wanted:  # noqa: ASYNC110  # rows set no events
                    await asyncio.sleep(0.005)
        assert differences(await self._found(), wanted) == {}, f"step {self.step}: {what}"
        now = self.world.parts.desk.last_now
        await self.world.until(lambda: all(self._held(kind) == self._holding(kind) for kind in KINDS))
        while self.world.parts.desk.last_now <= now:
            await self.world.turns()  # what comes next comes later, by the clock of the database, too
        assert differences(await self._found(), wanted) == {}, f"step {self.step}: {what}, a moment later"
        assert self.unfit == []
        assert await self.world.parts.database.read(strict_checkup()) == []
        assert set(self.arrived.values()) <= {1}, "an attempt each"

    async def _found(self) -> dict[Any, Any]:
        rows = await self.world.rows(NODES)
        names = [(str(row[0]), row[1]) for row in rows]
        assert len(set(names)) == len(names), "one live run of each node"
        self.seen = {name: str(row[2]) for name, row in zip(names, rows, strict=True)}
        workflows = await self.world.rows("SELECT id, state FROM run WHERE kind = 'workflow'")
        nodes = {name: (row[3], row[4], row[5] is not None) for name, row in zip(names, rows, strict=True)}
        names_of = {run_id: name for name, run_id in self.seen.items()}
        at_work = {names_of.get(run_id, run_id) for run_id, answer in self.answers.items() if not answer.done()}
        return nodes | {str(run_id): state for run_id, state in workflows} | {"at work": at_work}

    def _wanted(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        running = set()
        for flow in self.flows:
            truth = None if flow.begun_at == NEVER else self._truth(flow)
            if truth is None:
                found[flow.run] = "queued" if flow.cancelled_at == NEVER else "cancelled"
            else:
                found[flow.run] = truth.verdict or "running"
            for name, life in self._lives(flow).items():
                state, by, began = life.state, None, life.started_at is not None
                if life.ended_at == NEVER:
                    state = "running" if began else "suspended"
                elif state == "cancelled":
                    by = BY[life.why]
                if state == "running":
                    running.add((flow.run, name))
                found[flow.run, name] = (state, by, began)
        return found | {"at work": running}

    # -- what is true ------------------------------------------------------------------------------------------------

    def _truth(self, flow: Flow) -> Truth:
        return flow.truth(self.events)

    def _lives(self, flow: Flow) -> dict[str, Life]:
        return flow.kept if flow.begun_at == NEVER else self._truth(flow).lives

    def _over(self, flow: Flow) -> bool:
        return flow.cancelled_at < NEVER or (flow.begun_at < NEVER and self._truth(flow).verdict is not None)

    def _admit(self) -> None:
        """Let workflows begin as there is room for them, the first first."""
        again = True
        while again:
            again = False
            for kind, queue in self.queues.items():
                under_way = sum(one.kind == kind and one.begun_at < NEVER and not self._over(one) for one in self.flows)
                if queue and under_way < AT_ONCE[kind]:
                    queue.pop(0).begun_at = self.step
                    again = True

    def _runs(self) -> dict[tuple[str, str], str]:
        """Return the runs of nodes that live, as they were found last."""
        return self.seen

    def _holding(self, kind: str) -> int:
        return sum(one.kind == kind and one.begun_at < NEVER and not self._over(one) for one in self.flows)

    def _held(self, kind: str) -> int:
        groups = self.world.parts.desk.picture.groups.values()
        return sum(one.used for one in groups if one.value == kind)

    async def conclude(self) -> None:
        """See that each workflow ended as often as it began, and that nothing is left."""
        for flow in self.flows:
            run = await self.world.engine.get_run(flow.run)
            ends = [entry.kind for entry in run.timeline if entry.kind in ("completed", "failed", "cancelled")]
            assert len(ends) == 1 + sum(entry.kind == "replayed" for entry in run.timeline)
        assert await self.world.rows("SELECT * FROM wait") == []
        assert await self.world.rows("SELECT * FROM news") == []
        await self.world.until(lambda: not self.world.parts.desk.picture.running)


def differences(found: dict[Any, Any], wanted: dict[Any, Any]) -> dict[Any, Any]:
    """Return what is not as it must be: what it is, and what it must be."""
    keys = [key for key in found | wanted if found.get(key) != wanted.get(key)]
    return {key: (found.get(key), wanted.get(key)) for key in keys}


# -- graphs ------------------------------------------------------------------------------------------------------------


def any_graph(random: Random, number: int) -> Graph:
    """Draw a graph; no two sleeps in it are alike, so that each is known by its length."""
    nodes: list[Node] = []
    size = random.randint(1, 14)
    for n in range(size):
        names = [node.name for node in nodes]
        parents = random.sample(names, min(len(names), random.choice((0, 1, 1, 2, 2, 3))))
        lists = [
            _clauses(random, n * 100 + 1_000 * place, parents, which)
            if random.random() < (0.3 if which == "cancel" else 0.15)
            else ()
            for place, which in enumerate(("start", "skip", "cancel"))
        ]
        wait_for, skip_if, cancel_if = lists
        nodes.append(Node(f"n{n}", "t", tuple(parents), wait_for, skip_if, cancel_if))
    random.shuffle(nodes)
    last = [Node(name, "t") if random.random() < 0.5 else None for name in ("sorry", "hurray")]
    return Graph({node.name: node for node in nodes}, *last)


def _clauses(random: Random, first: int, parents: list[str], which: str) -> Clauses:
    sizes = [random.randint(1, 3) for _ in range(random.randint(1, 2))]
    return tuple(
        tuple(_condition(random, LATER_MS // 2 + first + 10 * n + place, parents, which) for place in range(size))
        for n, size in enumerate(sizes)
    )


def _condition(random: Random, sleep: int, parents: list[str], which: str) -> Condition:
    kind = random.choice((0, 1, 1, 2) if which != "cancel" else (0, 0, 1, 1, 1, 2))
    if kind == 0:
        return Condition(sleep=sleep)
    if kind == 1 and which == "start":
        return random.choice(
            (Condition(event=NOW), Condition(event=NOW), Condition(event=ALWAYS, look_back=86_400_000))
        )
    if kind == 1:
        return Condition(event=ALWAYS, look_back=random.choice((0, 86_400_000)))
    told = ["true", "false", "true", "false", "true", "false", "true", "false", FAILS]
    told += [f"parents.{parent} {sign} null" for parent in parents for sign in ("==", "!=")]
    return Condition(expression=random.choice(told))


def _lists(node: Node) -> tuple[Clauses, Clauses, Clauses]:
    return node.cancel_if, node.skip_if, node.wait_for


def said(graph: Graph) -> dict[str, Any]:
    """Say a graph as a policy does."""
    found: dict[str, Any] = {"nodes": []}
    for node in graph.nodes.values():
        lists = {"wait_for": node.wait_for, "skip_if": node.skip_if, "cancel_if": node.cancel_if}
        conditions = {
            name: [{"any": list(map(_said, clause))} for clause in clauses] for name, clauses in lists.items()
        }
        found["nodes"].append({"name": node.name, "task": node.task, "parents": list(node.parents), **conditions})
    for which, last in (("on_failure", graph.on_failure), ("on_success", graph.on_success)):
        if last is not None:
            found[which] = {"name": last.name, "task": last.task}
    return found


def _said(condition: Condition) -> dict[str, Any]:
    if condition.sleep is not None:
        return {"sleep": condition.sleep / 1_000}
    if condition.event is not None:
        return {"event": condition.event, "look_back": condition.look_back / 1_000}
    return {"expression": condition.expression}


def group(kind: str) -> list[dict[str, Any]]:
    """Let so many runs of a workflow be under way."""
    return [{"key": f"'{kind}'", "max_runs": AT_ONCE[kind]}]


@pytest.mark.parametrize("seed", range(10))
async def test_nodes_run_end_and_wait_as_they_must_whatever_happens(world: World, seed: int) -> None:
    await History(world, seed).live()

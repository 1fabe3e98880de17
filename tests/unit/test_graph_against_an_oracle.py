"""The rules of workflows, driven step by step through time, against a slow and obvious telling of the same histories.

The driver does what a server does: it knows the states of nodes and what came true so far, and asks the rules for more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from hypothesis import event, given, settings
from hypothesis import strategies as st

from hurlbat_dispatcher.domain.graph import (
    WELL,
    Action,
    Condition,
    Fate,
    Node,
    Place,
    Step,
    decide,
    next_steps,
    outcome,
    to_do_again,
)
from hurlbat_dispatcher.domain.lifecycle import FINAL, RunState
from tests.unit.graph_plans import ENDS, any_plan
from tests.unit.graph_truth import NEVER, Life, Plan, Truth, conditions_of, done_again, is_of_parents, says


@dataclass
class Held:
    """What is known of a node that was reached: since when, what its conditions are, and whether it runs."""

    node: Node
    reached_at: float
    parents: dict[str, str]
    ends_at: float = NEVER


class Driver:
    """A workflow that lives by the rules. Each moment brings the ends of nodes, then conditions, then a cancel."""

    def __init__(self, plan: Plan, random: Random) -> None:
        self.plan, self.random, self.graph = plan, random, plan.graph
        self.states = {name: RunState(life.state) for name, life in plan.kept.items()}
        self.lives = dict(plan.kept)
        self.held: dict[str, Held] = {}
        self.now: float = plan.begun_at
        self.state: RunState | None = None

    def play(self) -> RunState | None:
        """Go through time until nothing more happens; return how the workflow ended."""
        self._go_on(None)
        self._look()
        while self.state is None and (coming := self._next()) < NEVER:
            self.now = coming
            done = [name for name, held in self.held.items() if held.ends_at == coming]
            self.random.shuffle(done)
            for name in done:
                self._end(name, RunState(self.plan.ends[name]))
            self._look()
        return self.state

    def _next(self) -> float:
        moments = [held.ends_at for held in self.held.values()]
        moments += [
            held.reached_at + (one.sleep or 0) for held in self.held.values() for one in conditions_of(held.node)
        ]
        moments += [at for at, _ in self.plan.events] + [self.plan.cancelled_at]
        return min((moment for moment in moments if moment > self.now), default=NEVER)

    def _go_on(self, after: Iterable[str] | None) -> None:
        if after is not None and self.random.random() < 0.3:
            after = None  # whoever does not know what has ended asks of all
        steps = next_steps(self.graph, self.states, after)
        assert len({step.node.name for step in steps}) == len(steps)
        for step in steps:
            assert step.node.name not in self.states, "a node has one run"
            self._take(step)
        over = [step.node.name for step in steps if self.states[step.node.name] in FINAL]
        if over:
            self._go_on(over)
        self.state = outcome(self.graph, self.states)

    def _take(self, step: Step) -> None:
        name, node = step.node.name, step.node
        if step.barred_by is not None:
            assert self.states[step.barred_by] in FINAL - WELL
            self._ended(name, self.now, RunState.CANCELLED, "parent")
            return
        parents = {parent: str(self.states[parent]) for parent in node.parents}
        assert set(parents.values()) <= WELL, "all its parents have ended well"
        held = Held(node, self.now, parents)
        if any(says(one.expression, parents) is None for one in conditions_of(node) if is_of_parents(one)):
            self._ended(name, self.now, RunState.FAILED, "expression")
            return
        self.held[name] = held
        self.states[name] = RunState.SUSPENDED
        self._decide(name)

    def _decide(self, name: str) -> None:
        held = self.held[name]
        fate = decide(held.node, self._known(held))
        if fate is Fate.CANCEL:
            self._ended(name, held.reached_at, RunState.CANCELLED, "condition")
        elif self.states[name] is RunState.RUNNING:
            return
        elif fate in (Fate.SKIP, Fate.NEVER):
            self._ended(name, held.reached_at, RunState.SKIPPED, "condition")
        elif fate is Fate.START:
            self.states[name] = RunState.RUNNING
            self.lives[name] = Life("running", held.reached_at, self.now)
            held.ends_at = self.now + self.plan.takes[name]

    def _known(self, held: Held) -> dict[Place, bool]:
        known = {}
        for action, clauses in held.node.clauses:
            for n, clause in enumerate(clauses):
                for place, one in enumerate(clause):
                    true = self._is_true(held, action, one)
                    if true or is_of_parents(one):
                        known[Place(action, n, place)] = true
        return known

    def _is_true(self, held: Held, action: Action, one: Condition) -> bool:
        if one.sleep is not None:
            return held.reached_at + one.sleep <= self.now
        if one.event is not None:
            since = (held.reached_at if action is Action.START else self.plan.created_at) - one.look_back
            return any(key == one.event and since <= at <= self.now for at, key in self.plan.events)
        return bool(says(one.expression, held.parents))

    def _look(self) -> None:
        """Let conditions come true at this moment, and what follows from them."""
        while True:
            before = dict(self.states)
            for name in self.random.sample(sorted(self.held), len(self.held)):
                if name in self.held:
                    self._decide(name)
                    if self.states[name] in FINAL:
                        self._go_on([name])
            if before == self.states:
                break
        if self.state is None and self.plan.cancelled_at <= self.now:
            self._cancel()

    def _end(self, name: str, state: RunState) -> None:
        started = self.lives[name].started_at
        self._ended(name, self.held[name].reached_at, state, "task", started)
        self._go_on([name])

    def _ended(self, name: str, reached: float, state: RunState, why: str, started: float | None = None) -> None:
        if name in self.lives and name not in self.plan.kept:
            started = self.lives[name].started_at
        self.held.pop(name, None)
        self.states[name] = state
        self.lives[name] = Life(str(state), reached, started, self.now, why)

    def _cancel(self) -> None:
        for name in list(self.held):
            self._ended(name, self.held[name].reached_at, RunState.CANCELLED, "workflow")
        self.state = RunState.CANCELLED


def told(driver: Driver) -> dict[str, Life]:
    """Return the lives that the driver saw, of nodes that still wait, too."""
    waiting = {name: Life("suspended", held.reached_at) for name, held in driver.held.items()}
    return driver.lives | waiting


# -- random histories --------------------------------------------------------------------------------------------------


def agree(plan: Plan, random: Random) -> Truth:
    """Tell a history both ways, and hold one against the other."""
    truth, driver = Truth(plan), Driver(plan, random)
    assert driver.play() == truth.verdict
    assert told(driver) == truth.lives
    if truth.verdict is not None:
        assert driver.now == truth.ended_at
        assert not driver.held
    return truth


@settings(max_examples=500)
@given(size=st.integers(1, 30), seed=st.integers(0, 1 << 40), replays=st.integers(0, 3))
def test_the_same_nodes_run_and_end_alike_and_so_does_their_workflow(size: int, seed: int, replays: int) -> None:
    random = Random(seed)
    plan = any_plan(random, size)
    truth = agree(plan, random)
    event(str(truth.verdict))
    for _ in range(replays):
        if truth.verdict is None:
            break
        names = sorted(set(plan.graph.nodes) & set(truth.lives))
        chosen = set(random.sample(names, min(len(names), random.choice((0, 0, 1, 2)))))
        again = done_again(plan.graph, truth.lives, chosen)
        states = {name: RunState(life.state) for name, life in truth.lives.items()}
        assert to_do_again(plan.graph, states, chosen) == again
        begun_at = int(truth.ended_at) + random.choice((0, 1, 30))
        plan = replace(
            plan,
            ends={name: random.choice(ENDS) for name in plan.ends},
            kept={name: life for name, life in truth.lives.items() if name not in again},
            begun_at=begun_at,
            cancelled_at=random.choice((NEVER, NEVER, NEVER, begun_at + 30)),
        )
        truth = agree(plan, random)
        event(f"replayed: {truth.verdict}")

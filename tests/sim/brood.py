"""A task that has children: it submits them while it runs, waits for some, and does it again when it is tried again.

Children with a key are asked for until they are there, by every attempt; what it was told of them is remembered.
"""

import asyncio
import json
import random
from collections.abc import Mapping
from typing import Final

from hurlbat_dispatcher import Problem, Submission
from tests.sim.composition_plan import STEPS
from tests.sim.executions import Execution
from tests.sim.flow_plan import input_of
from tests.sim.history import Asked, Rule
from tests.sim.surroundings import Surroundings
from tests.sim.wire import Lost

AGAIN: Final = 12
"""How often a child with a key is asked for while it is not known whether it is there."""
ADOPTED: Final = "c0"
"""The key of a child that others may submit in the parent's name, too."""
LONG: Final = 8.0
"""Seconds for which it waits for a child, at most."""


class Brood:
    """The children of one attempt. What they are is drawn from the parent's id: every attempt asks for the same."""

    def __init__(self, around: Surroundings, execution: Execution, chance: random.Random) -> None:
        self._around = around
        self._execution = execution
        self._history = around.history
        self._chance = chance
        self._parent: str = execution.run["run_id"]

    async def breed(self) -> None:
        """Have all children; wait for those that are to be waited for."""
        given = self._execution.run["input"]
        if not isinstance(given, Mapping) or given.get("depth") != 0:
            return
        drawn = random.Random(f"children {self._parent}")
        plan = self._around.plan
        tasks = (*STEPS, *STEPS, plan.usual[0].name, *plan.composition.graphs)
        for number in range(drawn.choice((1, 2, 3))):
            task, keyed = drawn.choice(tasks), drawn.random() < 0.7
            said = input_of(drawn, number) | {"of": self._parent, "number": number, "depth": 1}
            awaited = drawn.random() < plan.composition.awaits
            if not keyed:
                said["attempt"] = self._execution.run["attempt"]
            submission = Submission(
                task,
                json.dumps(said),
                metadata=f'{{"child": {number}}}',
                parent=self._parent,
                child_key=f"c{number}" if keyed else None,
                awaited=awaited,
            )
            child = await self._have(submission)
            if child is not None and awaited:
                await self._wait_for(child)

    async def _have(self, submission: Submission) -> str | None:
        for _ in range(AGAIN if submission.child_key else 1):
            if self._execution.cancelled.is_set():
                return None
            try:
                accepted = await self._around.ask_any(lambda engine: engine.submit(submission))
            except Problem as problem:
                if problem.code in ("parent_cancelled", "would_deadlock"):
                    self._refused(problem.code)
                    return None
                if problem.code == "idempotency_conflict" and submission.child_key == ADOPTED:
                    return None
                if problem.code in ("parent_unknown", "idempotency_conflict", "task_unknown"):
                    self._history.broke(Rule.CHILDREN, f"a child of {self._parent} was refused: {problem}")
                    return None
                await asyncio.sleep(self._chance.uniform(0.1, 1.0))
            except Lost:
                await asyncio.sleep(self._chance.uniform(0.1, 1.0))
            else:
                self._told(submission, accepted.run.id)
                return accepted.run.id
        return None

    def _refused(self, code: str) -> None:
        self._history.counts[code] += 1
        parent = self._around.rows[self._parent]
        if code == "parent_cancelled" and parent.state != "cancelled" and not self._history.replays[parent.id]:
            self._history.broke(Rule.CHILDREN, f"a child of {parent.id} was refused, and that is {parent.state}")

    def _told(self, submission: Submission, child: str) -> None:
        self._history.counts["children"] += 1
        self._history.note(f"acknowledged {child} as the child {submission.child_key} of {self._parent}")
        row = self._around.rows.get(child)
        if row is None:
            self._history.broke(Rule.STORED, f"the child {child} of {self._parent} was acknowledged and is not stored")
            return
        if (row.parent, row.child_key) != (self._parent, submission.child_key):
            self._history.broke(Rule.CHILDREN, f"{child} is the child {row.child_key} of {row.parent}")
        if submission.child_key is None:
            self._history.acknowledged[child] = Asked(submission.task, None, submission.input)
        elif submission.child_key != ADOPTED:
            first = self._history.children.setdefault((self._parent, submission.child_key), child)
            if first != child:
                says = f"{first} and {child} were acknowledged as the child {submission.child_key} of {self._parent}"
                self._history.broke(Rule.CHILDREN, says)

    async def _wait_for(self, child: str) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + LONG
        while loop.time() < until and not self._execution.cancelled.is_set():
            try:
                run = await self._around.ask_any(lambda engine: engine.wait(child, 2.0))
            except (Problem, Lost):
                await asyncio.sleep(0.5)
            else:
                if run.is_final:
                    return

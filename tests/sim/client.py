"""The client: submits, cancels and replays through whichever server answers, and remembers what it was told.

A submit with an idempotency key whose outcome it does not learn is repeated with the same key until it is known. Every
promise that an answer makes is held against the rows in the moment of the answer.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, Protocol, TypeVar

from hurlbat_dispatcher import Accepted, Engine, Problem, Submission
from hurlbat_dispatcher.errors import Conflict
from tests.sim.flow_plan import KEYS, input_of
from tests.sim.history import Asked, History, Rule
from tests.sim.plan import Plan, chosen
from tests.sim.rows import Row
from tests.sim.wire import Lost

T = TypeVar("T")

AGAIN: Final = 40
"""How often a submit with a key is repeated while its outcome is unknown."""


class Surroundings(Protocol):
    """What the client needs of the world."""

    plan: Plan
    history: History

    @property
    def rows(self) -> Mapping[str, Row]:
        """What is committed now."""

    async def ask_any(self, work: Callable[[Engine], Awaitable[T]]) -> T:
        """Ask some server. Raises `Lost`, or the `Problem` that it answered."""


class Client:
    """Everybody who uses the API."""

    def __init__(self, around: Surroundings, spawn: Callable[[Coroutine[Any, Any, None]], object]) -> None:
        self._around = around
        self._spawn = spawn
        self._plan = around.plan
        self._history = around.history
        self._chance = random.Random(f"client {around.plan.seed}")
        self._inputs = random.Random(f"inputs {around.plan.seed}")
        self._asked = 0
        self._keys = 0
        self.busy = 0
        """Submits on their way whose outcome is not known."""

    async def live(self, until: float) -> None:
        """Use the API until then (seconds of the loop's time)."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            doing = chosen(self._chance, self._plan.doings)
            match doing:
                case "submit" | "submit_keyed" | "submit_later" | "submit_many" if self._asked >= self._plan.runs:
                    pass
                case "submit_many":
                    count = self._chance.randint(2, 8)
                    self._begin(self._submit_many([self._submission() for _ in range(count)]))
                case "submit_keyed":
                    self._begin(self._submit_keyed())
                case "submit_later":
                    self._begin(self._submit(self._submission(delay=self._chance.uniform(0.1, 15.0))))
                case "submit":
                    self._begin(self._submit(self._submission()))
                case "cancel":
                    self._begin(self._cancel())
                case "replay":
                    self._begin(self._replay())
                case _:
                    self._begin(self._look())
            await asyncio.sleep(self._chance.expovariate(1 / self._plan.pause))

    async def probe(self, task: str) -> str:
        """Submit a run without anything special, however often it takes; return its id."""
        while True:
            try:
                self._asked += 1
                return await self._accepted(Submission(task, self._input("probe")))
            except (Problem, Lost):
                await asyncio.sleep(0.5)

    async def crowd(self, task: str, each: int) -> dict[str, str]:
        """Submit so many runs for each key in one call, key after key; return the key of each run."""
        inputs = {}
        for key in KEYS:
            for _ in range(each):
                self._asked += 1
                inputs[json.dumps({"crowd": self._asked, "k": key, "g": key, "u": 1, "l": 6})] = key
        many = [Submission(task, said) for said in inputs]
        while True:
            try:
                outcomes = await self._around.ask_any(lambda engine: engine.submit_many(many))
            except (Problem, Lost):
                await asyncio.sleep(0.5)
                continue
            runs = [outcome.run.id for outcome in outcomes if isinstance(outcome, Accepted)]
            return dict(zip(runs, inputs.values(), strict=True))

    def _input(self, member: str = "n") -> str:
        if not self._plan.flow.on:
            return json.dumps({member: self._asked})
        return json.dumps(input_of(self._inputs, self._asked) | {member: self._asked})

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        async def counted() -> None:
            self.busy += 1
            try:
                await work
            finally:
                self.busy -= 1

        self._spawn(counted())

    def _submission(self, **more: Any) -> Submission:
        self._asked += 1
        task = self._chance.choice(self._plan.usual)
        return Submission(
            task.name,
            self._input(),
            priority=self._chance.choice((None, None, 1, 5)),
            ttl=self._chance.choice((None, None, None, None, 20.0)),
            **more,
        )

    # -- what it does -------------------------------------------------------------------------------------------------

    async def _submit(self, submission: Submission) -> None:
        try:
            await self._accepted(submission)
        except (Problem, Lost):
            self._history.counts["submits refused or lost"] += 1

    async def _submit_keyed(self) -> None:
        """Some keys are used again and again, so that they meet themselves."""
        self._keys += 1
        ttl = self._chance.choice((None, None, 60.0))
        if self._chance.random() < 0.5:
            number = self._chance.randint(0, 5)
            task = self._plan.usual[number % len(self._plan.usual)].name
            said = json.dumps(input_of(random.Random(number), number)) if self._plan.flow.on else f"{number}"
            submission = Submission(task, said, idempotency_key=f"k{number}", idempotency_ttl=ttl)
        else:
            submission = self._submission(idempotency_key=f"own{self._keys}", idempotency_ttl=ttl)
        twins = 2 if self._chance.random() < 0.3 else 1
        await asyncio.gather(*(self._insist(submission) for _ in range(twins)))

    async def _insist(self, submission: Submission) -> None:
        for _ in range(AGAIN):
            try:
                await self._accepted(submission)
            except Conflict:
                return
            except (Problem, Lost):
                await asyncio.sleep(self._chance.uniform(0.2, 2.0))
            else:
                return

    async def _accepted(self, submission: Submission) -> str:
        accepted = await self._around.ask_any(lambda engine: engine.submit(submission))
        self._acknowledged(submission, accepted)
        return accepted.run.id

    async def _submit_many(self, submissions: list[Submission]) -> None:
        try:
            outcomes = await self._around.ask_any(lambda engine: engine.submit_many(submissions))
        except (Problem, Lost):
            return
        for submission, outcome in zip(submissions, outcomes, strict=True):
            if isinstance(outcome, Accepted):
                self._acknowledged(submission, outcome)

    def _acknowledged(self, submission: Submission, accepted: Accepted) -> None:
        run_id = accepted.run.id
        self._history.counts["acknowledged"] += 1
        self._history.note(f"acknowledged {run_id} {submission.task} {submission.idempotency_key}")
        self._history.acknowledged[run_id] = Asked(submission.task, submission.idempotency_key, submission.input)
        row = self._around.rows.get(run_id)
        if row is None:
            self._history.broke(Rule.STORED, f"run {run_id} was acknowledged and is not stored")
        elif (row.task, row.idempotency_key) != (submission.task, submission.idempotency_key):
            self._history.broke(Rule.STORED, f"run {run_id} was acknowledged as another than it is")

    async def _cancel(self) -> None:
        run_id = self._some_run()
        if run_id is None:
            return
        self._history.cancels.add(run_id)
        replays = self._history.replays[run_id]
        try:
            await self._around.ask_any(lambda engine: engine.cancel_run(run_id))
        except (Problem, Lost):
            return
        self._history.counts["cancelled"] += 1
        row = self._around.rows.get(run_id)
        if self._history.replays[run_id] == replays == 0 and (row is None or row.state != "cancelled"):
            state = "gone" if row is None else row.state
            self._history.broke(Rule.STORED, f"the cancellation of {run_id} was acknowledged, and it is {state}")

    async def _replay(self) -> None:
        run_id = self._some_run()
        row = None if run_id is None else self._around.rows.get(run_id)
        if run_id is None or row is None or not row.final:
            return
        self._history.replays[run_id] += 1
        self._history.redone[run_id].append("failed")
        replayed = self._history.replayed[run_id]
        try:
            await self._around.ask_any(lambda engine: engine.replay_run(run_id))
        except (Problem, Lost):
            return
        self._history.counts["replayed"] += 1
        if self._history.replayed[run_id] == replayed:
            self._history.broke(Rule.STORED, f"the replay of {run_id} was acknowledged and is not stored")

    async def _look(self) -> None:
        run_id = self._some_run()
        if run_id is None:
            return
        try:
            await self._around.ask_any(lambda engine: engine.wait(run_id, 2.0))
        except Lost:
            return
        except Problem as problem:
            if problem.code == "run_unknown":
                self._history.broke(Rule.KEPT, f"the acknowledged run {run_id} is not found")

    def _some_run(self) -> str | None:
        known = list(self._history.acknowledged)[-12:]
        return self._chance.choice(known) if known else None

"""One call from outside to a server: it takes time, and the question or the answer may be lost.

The server does it in its own process: when that is killed, or stands still, whoever asked waits and learns nothing.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Final, TypeVar

from hurlbat_dispatcher import Engine, Problem
from hurlbat_dispatcher.simulation.process import Process
from tests.sim.history import History, Rule

T = TypeVar("T")

PATIENCE: Final = 12.0
"""Seconds that one who asks waits for an answer."""
LOSS: Final = 0.03
"""How likely a question is lost, and an answer."""


class Lost(Exception):
    """There was no answer. `asked` tells whether the question may have arrived."""

    def __init__(self, *, asked: bool) -> None:
        super().__init__("nobody knows" if asked else "nobody was asked")
        self.asked = asked


class Wire:
    """The lines between those outside and the servers. `calm`: nothing is lost any more."""

    def __init__(self, seed: int, history: History) -> None:
        self._chance = random.Random(f"wire {seed}")
        self._history = history
        self.calm = False
        self._stood_still: dict[Process, float] = {}

    def watch(self, process: Process) -> None:
        """Know when a process stood still, as nobody can blame it for what it did not answer then."""
        resume = process.resume

        def resumed() -> None:
            self._stood_still[process] = asyncio.get_running_loop().time()
            resume()

        process.resume = resumed  # type: ignore[method-assign]  # there is no other way to hear of it

    async def call(
        self, process: Process, engine: Engine, work: Callable[[Engine], Awaitable[T]], *, at_once: bool = True
    ) -> T:
        """Ask a server. Raises `Lost`, or the `Problem` that it answered.

        `at_once`: the answer waits for nobody but the server and its database.
        """
        await asyncio.sleep(self._chance.uniform(0.001, 0.02))
        loses_question, loses_answer = (not self.calm and self._chance.random() < LOSS for _ in range(2))
        delay = self._chance.uniform(0.001, 0.02)
        if not process.alive:
            raise Lost(asked=False)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        here = copy_context()

        def settle(result: T | None, error: BaseException | None) -> None:
            if not answer.done():
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(result)  # type: ignore[arg-type]  # None only beside an error, or as a result

        async def serve() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = await work(engine)
            except Problem as problem:
                error = problem
            except Exception as mistake:
                self._history.broke(Rule.MISTAKE, f"{process.name} answered a call with {mistake!r}")
                error = Lost(asked=True)
            if not loses_answer:
                loop.call_later(delay, settle, result, error, context=here)

        if not loses_question:
            process.spawn(serve())
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            if at_once and not (loses_question or loses_answer) and self._was_there(process):
                self._history.broke(Rule.ANSWERED, f"{process.name} did not answer within {PATIENCE:g} s")
            raise Lost(asked=True) from None

    def _was_there(self, process: Process) -> bool:
        """Whether a server was alive and at work all the time that somebody waited for it."""
        now = asyncio.get_running_loop().time()
        return process.alive and not process.paused and now - self._stood_still.get(process, -PATIENCE) > PATIENCE

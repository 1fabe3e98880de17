"""What servers tell each other fits into messages, whatever it is."""

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from hurlbat_dispatcher.domain.holding import BudgetView, Holding, Kind
from hurlbat_dispatcher.neighbours import MAX_CHARS, Neighbours

pytestmark = pytest.mark.anyio


class Wire:
    """A server that starts the runs, and what it says; a message too many ends the test."""

    def __init__(self, holding: Holding) -> None:
        self.said: list[str] = []
        self.tasks: list[asyncio.Future[None]] = []
        desk: Any = SimpleNamespace(me="me", owns=True)
        nobody: Any = None
        self.neighbours = Neighbours(
            desk, nobody, put=nobody, notify=self.notify, spawn=self.spawn, look=lambda _: self.found(holding)
        )

    async def found(self, holding: Holding) -> Holding:
        return holding

    async def notify(self, message: str) -> None:
        assert len(self.said) < 20, "it never ends"
        self.said.append(message)
        await asyncio.sleep(0)

    def spawn(self, work: Awaitable[None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    async def asked(self, *numbers: int) -> None:
        for number in numbers:
            self.spawn(self.neighbours._answer(number, "other", 1))
        while self.tasks:
            await self.tasks.pop(0)


def quoted(count: int, letter: str) -> Holding:
    """Return how a lane stands that has many budgets, whose names grow where they are quoted."""
    key = letter * (256 // len(letter.encode()))
    views = [
        BudgetView(Kind.CONCURRENCY, letter * 400, room=False, holds=n == count - 1, key=key, limit=1, used=1)
        for n in range(count)
    ]
    return Holding(tuple(views))


@pytest.mark.parametrize("letter", ['"', "\\", "\u20ac", "\U0001f600", "a"])
@pytest.mark.parametrize("count", [1, 3, 8, 40])
async def test_any_answer_fits_a_message_and_names_what_holds_the_run(letter: str, count: int) -> None:
    wire = Wire(quoted(count, letter))
    await wire.asked(1)
    assert len(wire.said) == 1
    assert len(wire.said[0].encode()) <= MAX_CHARS
    heard = Wire(Holding())
    answer = heard.neighbours._answers[1] = asyncio.get_running_loop().create_future()
    heard.neighbours._listener = SimpleNamespace(finished=len, let_go=len)
    heard.neighbours._desk.me = "other"
    heard.neighbours.heard(wire.said[0])
    assert '"holds": true' in answer.result()


async def test_what_fits_no_message_is_left_out_and_holds_up_nothing() -> None:
    wire = Wire(Holding())
    wire.neighbours._add("finished", "x" * (MAX_CHARS + 1))
    wire.neighbours._add("finished", "after")
    wire.neighbours._add("signals", "x" * (MAX_CHARS + 1))
    await wire.asked(1)
    assert any('"after"' in said for said in wire.said)
    assert any('"answered"' in said for said in wire.said)

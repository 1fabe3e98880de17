"""Faults that the simulator found in the product, planted again: what it found once it must find for ever."""

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from typing import Any

from hurlbat_dispatcher import writer as writing
from hurlbat_dispatcher.clock import AgreedClock
from hurlbat_dispatcher.domain import verdict
from hurlbat_dispatcher.store import runs
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.ledger import Ledger
from hurlbat_dispatcher.turn.operations import Operation, Tick
from hurlbat_dispatcher.writer import Writer
from tests.sim.bugs import bug, swap

Script = Generator[Any, Any, Any]


@bug("a lease is renewed though the attempt ends in the same turn", hint=5)
def lease_after_the_end(stack: ExitStack) -> None:
    swap(stack, runs, "LEASE", lambda _: runs._update(("lease_until", "deadline_at"), runs._THIS_ATTEMPT))


@bug("an owner whose own lease is over starts what it may not send", hint=100, flow_control=True)
def starts_without_its_lease(stack: ExitStack) -> None:
    def make(turn: Any) -> Any:
        def careless(desk: Desk, operations: Sequence[Operation]) -> Script:
            desk.may_start = lambda: True
            return (yield from turn(desk, operations))

        return careless

    swap(stack, writing, "turn", make)
    swap(stack, verdict, "AT_ONCE", lambda _: 1 << 30)  # a later guard, which puts an end to any such loop


@bug("the database's clock is compared with the host's after the answer has come", hint=74)
def clock_read_after_the_answer(stack: ExitStack) -> None:
    def make_turn(turn: Any) -> Any:
        def unaware(desk: Desk, operations: Sequence[Operation]) -> Script:
            moment = desk.moment
            if not any(isinstance(operation, Tick) for operation in operations):
                desk.moment = None
            ledger = yield from turn(desk, operations)
            if desk.moment is None:
                desk.moment = moment
            return ledger

        return unaware

    def make_writer(turn: Any) -> Any:
        async def late(writer: Writer, operations: Sequence[Operation]) -> Ledger:
            ledger: Ledger = await turn(writer, operations)
            writer._offset = ledger.now - writer._clock.monotonic() * 1000
            return ledger

        return late

    swap(stack, writing, "turn", make_turn)
    swap(stack, Writer, "_turn", make_writer)


@bug("requests are signed with the time of the server's host", hint=6)
def signed_by_the_hosts_clock(stack: ExitStack) -> None:
    swap(stack, AgreedClock, "agree", lambda _: lambda clock, now_ms, asked: 0)

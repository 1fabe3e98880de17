"""One play: a client submits while somebody makes trouble; then the trouble stops, and everything has to end."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos import client as clients
from tests.chaos import journal, rows
from tests.chaos.client import Client, Order, Told
from tests.chaos.faults import Struck, explained
from tests.chaos.history import Change, Ending, History, Judgement, changes, judge
from tests.chaos.stage import SLOTS, WORKERS, Stage

LOOK: Final = 4.0
"""Seconds between two looks at how runs have ended."""
POLL: Final = 0.25
CLIENT_SECONDS: Final = 60.0
"""How long the last submits may take, when all is well again."""


@dataclass(frozen=True, slots=True)
class Played:
    """What happened.

    `settled` is how many seconds after the last fault everything had ended, None if it had not; `wrong` tells what the
    judgement does not: servers that left by themselves, and what the doctor says.
    """

    history: History
    judgement: Judgement
    told: Told
    struck: Sequence[Struck]
    began: float
    over: float
    settled: float | None
    looks: int
    complaints: dict[str, int]
    wrong: Sequence[str]


MakeTrouble = Callable[[], Awaitable[Sequence[Struck]]]


async def play(
    stage: Stage,
    make_trouble: MakeTrouble,
    *,
    seed: int,
    rate: float,
    bound: float,
    orders: Callable[[int, int], Order] = clients.order,
) -> Played:
    """Submit `rate` runs a second while there is trouble; then everything must end within `bound` seconds."""
    client = Client([server.url for server in stage.servers], stage.client_log, seed, rate, orders)
    looker = Looker(stage.rows)
    began = time.time()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(stage.watch())
        looking = group.create_task(looker.watch())
        submitting = group.create_task(client.run())
        struck = await make_trouble()
        for place in range(len(stage.servers)):
            await stage.ready(place)
        healed = time.monotonic()
        client.stop()
        await asyncio.wait([submitting], timeout=CLIENT_SECONDS)
        submitting.cancel()
        over = time.time()
        ended = await _all_ended(stage, healed + bound)
        settled = round(time.monotonic() - healed, 1) if ended else None
        looking.cancel()
        watching.cancel()
    await looker.look()
    told = clients.read(journal.lines(stage.client_log), lambda number: orders(seed, number))
    history = History(
        submissions=told.submissions,
        executions=stage.executions(),
        runs=await rows.runs(stage.rows),
        changes=looker.changes,
        slots=dict.fromkeys(WORKERS, SLOTS),
        troubles=explained(struck, sorted(told.acknowledged_at)),
    )
    wrong = [*stage.deserters, *await stage.diagnoses()]
    return Played(history, judge(history), told, struck, began, over, settled, looker.looks, stage.complaints(), wrong)


class Looker:
    """Looks again and again at how runs have ended, and remembers where that was different the next time."""

    def __init__(self, database: rows.Rows) -> None:
        self.looks = 0
        self.changes: list[Change] = []
        self._rows = database
        self._known: dict[str, Ending] = {}

    async def watch(self) -> None:
        """Look every now and then, for as long as it is not cancelled."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                await self.look()
            except rows.Away:
                continue

    async def look(self) -> None:
        """Look once. Raises `Away`."""
        now = await rows.endings(self._rows)
        self.changes += changes(self._known, now)
        self._known = now
        self.looks += 1


async def _all_ended(stage: Stage, deadline: float) -> bool:
    """Wait until no run is left, and no worker is at work on one that was given up long ago."""
    while await rows.unfinished(stage.rows) or any(one.ended is None for one in stage.executions()):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL)
    return True

"""The stage: connections to one real PostgreSQL, a clock that only moves when it is read, and the playing of scenes."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import asyncpg
from sqlalchemy.engine import make_url

from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.store.statement import Fetch, Rows, Script
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.due import read_waiting, rebuild
from tests.interleavings.checks import LOOK, Commit, Seen, seen, violations
from tests.interleavings.scenes import MOMENT, POSTGRESQL, SERVERS, Deed, Scene, desk_of
from tests.interleavings.schedules import AllSchedules, Schedules
from tests.interleavings.stepper import Fault, Side, play

CLOCK = f"""
CREATE SCHEMA IF NOT EXISTS stage;
CREATE SEQUENCE IF NOT EXISTS stage.moment INCREMENT {MOMENT};
CREATE OR REPLACE FUNCTION stage.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE sql
    AS $$ SELECT to_timestamp(nextval('stage.moment') / 1000.0) $$"""
"""A clock that goes on by a moment whenever it is read, so that the same schedule sees the same times."""
_SETTINGS = {
    "search_path": "stage, pg_catalog, public",  # ours before PostgreSQL's own clock
    "deadlock_timeout": "1h",  # the stage finds them itself, and at once
    "synchronous_commit": "off",  # no power is cut here
    "jit": "off",
}

MOST = 1_000
"""Schedules that one scene may have: a second of a quiet machine plays a hundred."""


@dataclass(slots=True)
class Outcome:
    """What the schedules of one scene have shown. `broken` has each sentence once, with the schedule that showed it."""

    schedules: int = 0
    repeats: int = 0
    """Schedules that were left when it showed that they are others in a different order."""
    clashes: int = 0
    waits: int = 0
    """Statements that had to wait for a lock."""
    endings: set[tuple[str, ...]] = field(default_factory=set)
    """How the runs stood at the end, by id: states, each with its attempt."""
    inputs: set[tuple[str, ...]] = field(default_factory=set)
    """The inputs of the runs at the end, by id."""
    owners: set[str | None] = field(default_factory=set)
    """Who owned the lanes at the end."""
    senders: set[str | None] = field(default_factory=set)
    """Who was to send a run, of all that ran at an end."""
    broken: dict[str, tuple[str, ...]] = field(default_factory=dict)


class Stage:
    """Two or more servers on one database. Use it as a context."""

    def __init__(self, url: str) -> None:
        self._dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._sides: dict[str, Side] = {}
        self._pictures: dict[str, list[Rows]] = {}  # by the SQL that makes the rows
        self._watcher: asyncpg.Connection

    async def __aenter__(self) -> Self:
        self._watcher = await asyncpg.connect(self._dsn)
        await self._watcher.execute(CLOCK)
        for name in SERVERS:
            connection = await asyncpg.connect(self._dsn, server_settings=_SETTINGS)
            await connection.set_type_codec("uuid", schema="pg_catalog", encoder=str, decoder=str, format="text")
            self._sides[name] = Side(name, connection, POSTGRESQL)
        return self

    async def __aexit__(self, *_: object) -> None:
        for side in self._sides.values():
            await side.connection.close()
        await self._watcher.close()

    async def show(
        self,
        scene: Scene,
        *deeds: Deed,
        schedules: Schedules | None = None,
        faults: Sequence[Fault] = (),
        until_broken: str | None = None,
    ) -> Outcome:
        """Play the deeds, each by a server of its own, in all schedules or in these, and check every commit.

        `until_broken`: a sentence with these words among those that tell what is broken is enough.
        """
        schedules = AllSchedules() if schedules is None else schedules
        outcome = Outcome()
        while True:
            await self._play_once(scene, deeds, schedules, faults, outcome)
            if until_broken is not None and any(until_broken in sentence for sentence in outcome.broken):
                return outcome
            if not schedules.another():
                return outcome
            assert outcome.schedules + outcome.repeats < MOST, "too many schedules; make the scene smaller"

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _play_once(
        self, scene: Scene, deeds: Sequence[Deed], schedules: Schedules, faults: Sequence[Fault], outcome: Outcome
    ) -> None:
        await self._watcher.execute(scene.sql)
        sides = [self._sides[deed.by] for deed in deeds]
        for side, deed in zip(sides, deeds, strict=True):
            side.faults = faults
            side.begin(deed.program(await self._desk(scene, deed)))
        history: list[Commit] = []
        taken: list[str] = []
        last = await self._look()

        async def committed(side: Side, epoch: int | None) -> None:
            nonlocal last
            before, last = last, await self._look()
            history.append(Commit(side.name, epoch, before, last))

        def choose(ready: Any) -> str | None:
            chosen = schedules.choose(ready)
            if chosen is not None:
                taken.append(f"{chosen}: {ready[chosen].what}")
            return chosen

        try:
            complete = await play(sides, self._watcher, choose, committed)
        finally:
            for side in sides:
                await side.abandon(self._watcher)
        if not complete:
            outcome.repeats += 1
            return
        outcome.schedules += 1
        outcome.clashes += sum(side.clashes for side in sides)
        outcome.waits += sum(side.waits for side in sides)
        outcome.owners.add(last.owner)
        outcome.senders.update(run.sender for run in last.runs.values() if run.state == RunState.RUNNING)
        outcome.endings.add(tuple(f"{run.state} {run.attempt}" for run in last.runs.values()))
        outcome.inputs.add(tuple(run.input for run in last.runs.values()))
        broken = violations(history, scene.slots)
        broken += [f"{side.name} is left with {side.broken!r}" for side in sides if side.broken is not None]
        for sentence in broken:
            outcome.broken.setdefault(sentence, tuple(taken))

    async def _desk(self, scene: Scene, deed: Deed) -> Desk:
        """Return the server's desk, with the picture that it had read from the rows as they are arranged."""
        desk = desk_of(deed.by, scene)
        known = self._pictures.get(scene.sql)
        if known is None:
            known = self._pictures[scene.sql] = []
            await self._watcher.execute(scene.sql)
            desk.epoch = None  # whoever owns the lanes now: it was read before
            await self._read(_as_owner(desk), deed.by, known)
            await self._watcher.execute(scene.sql)
            desk = desk_of(deed.by, scene)
        epoch, desk.epoch = desk.epoch, None
        _feed(rebuild(desk) if epoch is None else _as_owner(desk), known)
        desk.epoch = epoch
        for lane in scene.lanes:
            desk.know_lane(lane)
        return desk

    async def _read(self, script: Script[None], by: str, answers: list[Rows]) -> None:
        rows: Rows | None = None
        with suppress(StopIteration):
            while True:
                ask = script.send(rows)  # type: ignore[arg-type]  # None begins a generator
                assert isinstance(ask, Fetch)
                prepared = ask.statement.prepared(POSTGRESQL)
                rows = await self._sides[by].connection.fetch(prepared.sql, *prepared.arrange(ask.values))
                answers.append(rows)

    async def _look(self) -> Seen:
        return seen(json.loads(await self._watcher.fetchval(LOOK)))


def _as_owner(desk: Desk) -> Script[None]:
    """Read the picture with what waits, though it is not asked who owns the lanes now."""
    yield from rebuild(desk)
    yield from read_waiting(desk)


def _feed(script: Script[None], answers: Sequence[Rows]) -> None:
    """Run a script on answers that are known."""
    with suppress(StopIteration):
        next(script)
        for rows in answers:
            script.send(rows)

"""The stepper and PostgreSQL: what waits for a lock is seen to wait, and a deadlock ends."""

import asyncio

import pytest

from hurlbat_dispatcher.store.database import Clash
from hurlbat_dispatcher.store.postgres import PostgresDatabase
from hurlbat_dispatcher.store.statement import Script
from tests.interleavings.scenes import FLYING, ORPHAN, OWNER, PEER, SILENT, cancel, does, result, scene, tick, together
from tests.interleavings.stage import Stage
from tests.store.rows import ask

pytestmark = pytest.mark.anyio


async def test_who_waits_for_a_row_goes_on_when_it_is_free_and_finds_it_as_it_is_then(stage: Stage) -> None:
    outcome = await stage.show(scene(FLYING), does(OWNER, result(FLYING)), does(PEER, cancel(FLYING)))
    assert outcome.broken == {}
    assert outcome.endings == {("completed 1",), ("cancelled 1",)}
    assert outcome.waits > 0


async def test_whoever_gives_way_in_a_deadlock_does_its_turn_again(stage: Stage) -> None:
    """A turn with a tick locks rows in two statements, and may want the second of another that wants its first."""
    owner = does(OWNER, together(result(ORPHAN), tick))
    peer = does(PEER, together(cancel(SILENT), cancel(ORPHAN)))
    outcome = await stage.show(scene(SILENT, ORPHAN), owner, peer)
    assert outcome.broken == {}
    assert outcome.clashes > 0
    assert {ending[1] for ending in outcome.endings} == {"completed 1", "cancelled 1"}


async def test_a_deadlock_that_postgresql_finds_is_a_clash_for_one_and_nothing_for_the_other(migrated_url: str) -> None:
    has_one = {1: asyncio.Event(), 2: asyncio.Event()}

    def locks(first: int, second: int) -> Script[None]:
        yield from ask(f"SELECT pg_advisory_xact_lock({first})")
        has_one[first].set()
        while not has_one[second].is_set():
            yield from ask("SELECT pg_sleep(0.001)")
        yield from ask(f"SELECT pg_advisory_xact_lock({second})")

    databases = [PostgresDatabase(migrated_url) for _ in range(2)]
    for database in databases:
        await database.open()
    done = await asyncio.gather(
        databases[0].write(locks(1, 2)), databases[1].write(locks(2, 1)), return_exceptions=True
    )
    for database in databases:
        await database.close()
    assert sorted(type(one).__name__ for one in done) == [Clash.__name__, "NoneType"]

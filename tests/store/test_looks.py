"""Pages of lists of which few are meant: each is found in short looks, and together they show everything once."""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from hurlbat_dispatcher import pages
from hurlbat_dispatcher.domain.events import Event
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import Run
from hurlbat_dispatcher.pages import page_by_looks
from hurlbat_dispatcher.store import events, listing
from hurlbat_dispatcher.store.database import Database
from hurlbat_dispatcher.store.listing import Wanted, look_at_runs
from hurlbat_dispatcher.store.looks import Look
from hurlbat_dispatcher.store.runs import NewRun
from hurlbat_dispatcher.store.schema import event
from hurlbat_dispatcher.store.statement import Ask, Rows, Script, Statement, bind
from hurlbat_dispatcher.store.views import LAST_ID, id_at
from tests.store.rows import insert, new_run

pytestmark = pytest.mark.anyio

T = TypeVar("T")
MADE = 1_750_000_000_000
FAR = 1 << 50
RUNS = 120


@dataclass
class Reading:
    """A database, and how many reads and statements it was asked for."""

    store: Database
    statements: list[int] = field(default_factory=list)

    async def read(self, script: Script[T]) -> T:
        self.statements.append(0)
        return await self.store.read(self._counted(script))

    def _counted(self, script: Script[T]) -> Script[T]:
        rows: Rows | None = None
        while True:
            try:
                ask: Ask = script.send(rows)  # type: ignore[arg-type]  # None begins a generator
            except StopIteration as done:
                result: T = done.value
                return result
            self.statements[-1] += 1
            rows = yield ask

    async def runs(self, wanted: Wanted, before: str, limit: int) -> tuple[list[Run], str | None]:
        async def look(before: str, most: int, rows: int) -> Look[Run, str]:
            return await self.read(look_at_runs(1, wanted, before=before, most=most, rows=rows))

        return await page_by_looks(look, before, limit, lambda run: run.id, Run.weight)

    async def events(
        self, key: str | None, scope: str | None, before: events.EventPlace, limit: int
    ) -> tuple[list[Event], events.EventPlace | None]:
        async def look(before: events.EventPlace, most: int, rows: int) -> Look[Event, events.EventPlace]:
            script = events.look_at_events(1, key=key, scope=scope, before=before, most=most, rows=rows)
            return await self.read(script)

        return await page_by_looks(look, before, limit, events.place_of, Event.weight)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks be so short that a few rows take many."""
    for name, rows in {"FIRST_LOOK": 2, "NEXT_LOOK": 3, "MOST_LOOKS": 2}.items():
        monkeypatch.setattr(pages, name, rows)


async def _all(page: Callable[[Any], Awaitable[tuple[list[T], Any]]], start: Any, limit: int) -> list[list[T]]:
    """Return the items of all pages."""
    found, place = [], start
    for _ in range(10 * RUNS):
        items, place = await page(place)
        assert len(items) <= limit
        found.append(items)
        if place is None:
            return found
    raise AssertionError("the pages do not end")


def _mixed(chance: random.Random) -> list[NewRun]:
    """Return runs of all kinds, in the order of their ids."""
    states = [RunState.QUEUED, RunState.RUNNING, RunState.COMPLETED, RunState.FAILED, RunState.SUSPENDED]
    runs: list[NewRun] = []
    for n in range(RUNS):
        state = chance.choice(states)
        later = state is RunState.QUEUED and chance.random() < 0.5
        family = runs[chance.randrange(len(runs))].id if runs and chance.random() < 0.5 else None
        runs.append(
            new_run(
                f"{id_at(MADE + n * 1_000)[:13]}-7000-8000-{n:012x}",
                state=state,
                task=chance.choice(["echo", "echo", "other"]),
                kind=chance.choice(["task", "task", "workflow"]),
                ready=0 if later or state is not RunState.QUEUED else 1,
                due_at=FAR if later and chance.random() < 0.8 else 1,
                created_at=MADE + n * 1_000 + chance.randrange(-20, 20),
                worker="w" if state is RunState.RUNNING else None,
                parent=family,
                root=None if family is None else runs[0].id,
            )
        )
    return runs


def _is_meant(run: NewRun, wanted: Wanted) -> bool:
    return (
        wanted.task in (None, run.task)
        and wanted.state in (None, run.state)
        and (not wanted.delayed or (run.state == RunState.QUEUED and run.ready == 0 and run.due_at == FAR))
        and wanted.kind in (None, run.kind)
        and wanted.parent in (None, run.parent)
        and wanted.root in (None, run.root)
        and (wanted.since is None or run.created_at >= wanted.since)
        and (wanted.until is None or run.created_at < wanted.until)
    )


def _some_wanted(chance: random.Random, rows: Sequence[NewRun]) -> list[Wanted]:
    since, until = MADE + 20_000, MADE + 90_000
    parent = max((row.parent for row in rows if row.parent), key=[row.parent for row in rows].count)
    every = [
        Wanted(task, None if state == "delayed" else state, state == "delayed", since, until, parent, root, kind)
        for task, state, since, until, parent, root, kind in product(
            (None, "echo", "nobody"),
            (None, "delayed", *RunState),
            (None, since),
            (None, until),
            (None, parent),
            (None, rows[0].id),
            (None, "task", "workflow"),
        )
    ]
    single = [wanted for wanted in every if sum(value not in (None, False) for value in wanted) < 3]
    return [*chance.sample(single, 60), *chance.sample(every, 40)]


@pytest.mark.parametrize("many", [0, listing.MANY])
async def test_short_looks_show_every_run_that_is_meant_once_the_newest_first(
    store: Database, short: None, many: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MANY", many)  # none, so that those that run are looked for among all
    chance = random.Random(11)
    rows = _mixed(chance)
    await store.write(insert(*rows))
    reading = Reading(store)
    for wanted in _some_wanted(chance, rows):
        limit = chance.choice([1, 2, 5, 40])

        async def page(before: str, wanted: Wanted = wanted, limit: int = limit) -> tuple[list[Run], str | None]:
            reading.statements.clear()
            found = await reading.runs(wanted, before, limit)
            assert len(reading.statements) <= pages.MOST_LOOKS
            return found

        shown = await _all(page, LAST_ID, limit)
        assert [run.id for items in shown for run in items] == [
            row.id for row in reversed(rows) if _is_meant(row, wanted)
        ], wanted


async def test_a_page_of_which_few_are_meant_ends_before_all_runs_were_looked_at(store: Database, short: None) -> None:
    ids = [f"{id_at(MADE + n * 1_000)[:13]}-7000-8000-{n:012x}" for n in range(RUNS)]
    oldest = new_run(ids[0], state="completed", ready=0)
    await store.write(insert(oldest, *(new_run(id_) for id_ in ids[1:])))
    reading = Reading(store)

    first, until = await reading.runs(Wanted(state="completed"), LAST_ID, 1)
    assert (first, until) == ([], ids[RUNS - 2 - 3])

    shown = await _all(lambda before: reading.runs(Wanted(state="completed"), before, 1), LAST_ID, 1)
    assert [run.id for items in shown for run in items] == [ids[0]]
    assert len(shown) == RUNS / (2 + 3) + 1  # that nothing comes before the oldest is not known before it is looked for


async def test_a_page_of_which_all_are_meant_takes_one_statement(store: Database) -> None:
    rows = [new_run(f"{id_at(MADE + n * 1_000)[:13]}-7000-8000-{n:012x}") for n in range(60)]
    await store.write(insert(*rows))
    for wanted in (Wanted(), Wanted("echo"), Wanted(state="queued"), Wanted("echo", "queued", kind="task", since=1)):
        reading = Reading(store)
        items, until = await reading.runs(wanted, LAST_ID, 50)
        assert ([run.id for run in items], until) == ([row.id for row in rows[:9:-1]], rows[10].id)
        assert reading.statements == [1], wanted


# -- events ------------------------------------------------------------------------------------------------------------

_NAMES = ("tenant", "id", "key", "scope", "payload", "metadata", "digest", "created_at")
_ADD = Statement(sa.insert(event).values({name: bind(name, event.c[name].type) for name in _NAMES}), _NAMES)


def _add(rows: Sequence[tuple[Any, ...]]) -> Script[None]:
    yield _ADD.write(rows)


async def test_short_looks_show_every_event_of_a_key_and_a_scope_once(store: Database, short: None) -> None:
    chance = random.Random(12)
    rows = [
        (1, f"e{n}", chance.choice(["a", "a", "a", "b"]), chance.choice([None, "x", "x", "y"]), "{}", "{}", "d", n // 3)
        for n in range(RUNS)
    ]
    await store.write(_add(rows))
    reading = Reading(store)
    for key, scope, limit in product((None, "a", "b", "c"), (None, "x", "y", "z"), (1, 7)):

        async def page(
            before: events.EventPlace, key: str | None = key, scope: str | None = scope, limit: int = limit
        ) -> tuple[list[Event], events.EventPlace | None]:
            reading.statements.clear()
            found = await reading.events(key, scope, before, limit)
            assert len(reading.statements) <= pages.MOST_LOOKS
            return found

        shown = await _all(page, events.LAST, limit)
        meant = [(row[7], row[1]) for row in rows if key in (None, row[2]) and scope in (None, row[3])]
        assert [events.place_of(one) for items in shown for one in items] == sorted(meant, reverse=True)


async def test_the_rarer_of_a_key_and_a_scope_leads_to_events(store: Database, short: None) -> None:
    rows = [(1, f"e{n:03}", "usual", "usual", "{}", "{}", "d", n) for n in range(RUNS)]
    rows += [(1, "by key", "rare", "usual", "{}", "{}", "d", -1), (1, "by scope", "usual", "rare", "{}", "{}", "d", -1)]
    await store.write(_add(rows))
    reading = Reading(store)

    for key, scope, expected in (("rare", "usual", "by key"), ("usual", "rare", "by scope")):
        items, until = await reading.events(key, scope, events.LAST, 10)
        assert ([one.id for one in items], until) == ([expected], None)

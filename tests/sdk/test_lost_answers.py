"""A real server behind a proxy that loses answers: what is asked for happens once, and its caller hears of it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hurlbat import AsyncClient, Client, ConnectionFailed, Event, RunRef, ScheduleRef
from hurlbat.signing import new_secret
from tests.sdk.cutter import Cutter, Fate, cutter
from tests.sdk.fake_server import Caller
from tests.sdk.ways_worker import Order, echo, hurlbat, pack
from tests.support.processes import TOKEN, Processes, Server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server, and the worker of `ways_worker`."""
    folder: Path = tmp_path_factory.mktemp("lost")
    processes, secret = Processes(folder), new_secret()
    try:
        worker = processes.app("tests.sdk.ways_worker:app", HURLBAT_SIGNING_SECRET=secret, wait=False)
        server = processes.serve(f"sqlite+aiosqlite:///{folder / 'hurlbat.db'}")
        worker.answers(f"{worker.url}/", below=600)
        client = Client(server.url, TOKEN)
        registered = client.register_worker("ways", f"{worker.url}/hurlbat/", secret=secret)
        client.close()
        assert (registered["state"], registered["problem"]) == ("ready", None)
        yield server
    finally:
        processes.close()


@pytest.fixture
async def way(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cutter]:
    """The way to the server, and the worker's app calls by it."""
    async with cutter(server.port) as way:
        monkeypatch.setattr("hurlbat.sending.FIRST_PAUSE", 0.01)
        monkeypatch.setattr(hurlbat, "client", AsyncClient(way.url, TOKEN))
        monkeypatch.setattr(hurlbat, "sync_client", Client(way.url, TOKEN))
        yield way
        await hurlbat.client.aclose()
        hurlbat.sync_client.close()


async def runs() -> int:
    """Return how many runs there are."""
    return len((await hurlbat.client.list_runs(limit=1_000)).items)


async def schedules() -> int:
    """Return how many schedules there are."""
    return len((await hurlbat.client.list_schedules(limit=1_000)).items)


async def events() -> int:
    """Return how many events there are."""
    return len((await hurlbat.client.list_events(limit=1_000)).items)


WAYS: dict[str, tuple[Callable[[], Awaitable[int]], int, Callable[[Caller], Awaitable[Any]], Any]] = {
    "run": (runs, 1, lambda call: call(echo, "run", Order(id=1), timeout=30), 1),
    "run_no_wait": (runs, 1, lambda call: call(echo, "run_no_wait", Order(id=1)), RunRef),
    "with a key": (
        runs,
        1,
        lambda call: call(echo, "run_no_wait", Order(id=1), idempotency_key=f"k-{call.sync}", delay=60),
        RunRef,
    ),
    "run_many": (runs, 2, lambda call: call(echo, "run_many", [Order(id=1), Order(id=1)], timeout=30), [1, 1]),
    "schedule": (runs, 1, lambda call: call(echo, "schedule", Order(id=1), delay=60), RunRef),
    "cron": (schedules, 1, lambda call: call(echo, "cron", f"{call.sync:d} 3 * * *", input=Order(id=1)), ScheduleRef),
    "push": (events, 1, lambda call: call(hurlbat.events, "push", "order.placed", Order(id=7)), Event),
    "push, runs": (runs, 1, lambda call: call(hurlbat.events, "push", "order.placed", Order(id=7)), Event),
    "push_many": (events, 2, lambda call: call(hurlbat.events, "push_many", [{"key": "a"}, {"key": "a"}]), list),
}


SYNC = ("run", "run_many", "push")
"""Of the two manners, which are driven alike, the sync one is tried for these."""


@pytest.mark.parametrize(
    ("call", "name"), [("async", name) for name in WAYS] + [("sync", name) for name in SYNC], indirect=["call"]
)
async def test_what_is_repeated_after_lost_answers_happens_once(way: Cutter, call: Caller, name: str) -> None:
    count, expected, ask, outcome = WAYS[name]
    before = await count()
    way.fates = [Fate.LOST, Fate.BUSY, Fate.CUT, Fate.HURRIED]
    found = await ask(call)
    assert way.fates == []
    assert isinstance(found, outcome) if isinstance(outcome, type) else found == outcome
    assert await count() - before == expected


async def test_a_batch_has_each_input_once_whatever_is_lost(way: Cutter, call: Caller) -> None:
    way.fates = [Fate.LOST, Fate.CUT]
    refs = await call(pack, "run_many_no_wait", [Order(id=1), Order(id=2)])
    way.fates = [Fate.CUT, Fate.LOST]
    refs.append(await call(pack, "run_no_wait", Order(id=3)))
    assert {ref.id for ref in refs} == {refs[0].id}
    assert await call(refs[0], "result", timeout=30) == [1, 2, 3]


async def test_what_might_happen_twice_is_told_and_not_repeated(way: Cutter, call: Caller) -> None:
    ref = await echo.cron("0 4 * * *", input=Order(id=1))
    before = await runs()
    way.fates = [Fate.LOST]
    with pytest.raises(ConnectionFailed) as raised:
        await call(ref, "trigger")
    assert raised.value.sent
    assert await runs() - before == 1

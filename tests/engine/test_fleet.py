"""Workers as they are registered: who may change their state, what a proof changes, and what is kept of them."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from hurlbat import signing
from hurlbat_dispatcher import DatabaseTrouble, Invalid, NotFound, WorkerSpec, WorkerState
from hurlbat_dispatcher.domain.answers import Signal
from hurlbat_dispatcher.keyring import OVERLAP_SECONDS
from hurlbat_dispatcher.push.heard import Delivery
from tests.engine.far_side import SECRET, Call, FakeWorker, marked
from tests.engine.world import KEY, World, refused

OVERLAP_MS = OVERLAP_SECONDS * 1000

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nobody_rechecks")]


@dataclass
class Prover(FakeWorker):
    """A worker whose proofs wait until the test lets them go on."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    door: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self, request: httpx.Request) -> httpx.Response:
        if b'"describe"' in await request.aread():
            self.asked.set()
            await self.door.wait()
        return await super().receive(request)

    def close(self) -> None:
        """Hold the next proof."""
        self.asked.clear()
        self.door.clear()


class Moved(FakeWorker):
    """A worker that went to another host."""

    @property
    def url(self) -> str:
        """Where it is now."""
        return "https://v.example.com/hurlbat/"


async def prover(world: World, name: str = "w") -> Prover:
    """Register a worker, and hold the next proof of it."""
    worker = Prover(name, [{"name": "echo"}])
    worker.door.set()
    world.network.workers[name] = worker
    await world.register(worker)
    worker.close()
    return worker


async def state(world: World, name: str = "w") -> str:
    """Return a worker's state, alike in memory and in its row."""
    [(stored,)] = await world.rows(f"SELECT state FROM worker WHERE name = '{name}'")
    assert world.parts.registry.workers[name].state == stored
    return str(stored)


async def disable(world: World, name: str = "w") -> None:
    """Let a worker have answered 410."""
    world.parts.health.heard_of(name, Delivery(Signal.GONE))
    await settled(world)


async def settled(world: World) -> None:
    """Wait until what goes on in the background is done."""
    await asyncio.gather(*world.parts.health._tasks)


async def test_a_paused_worker_that_is_synced_takes_its_manifest_and_stays_paused(world: World) -> None:
    worker = await world.worker()
    await world.engine.pause_worker("w")
    worker.tasks.append({"name": "more"})
    synced = await world.engine.sync_worker("w")
    assert (synced.state, synced.tasks) == (WorkerState.PAUSED, ("echo", "more"))
    assert await state(world) == "paused"
    assert (await world.engine.resume_worker("w")).state is WorkerState.READY


async def test_a_paused_worker_whose_proof_fails_stays_paused_and_says_so(world: World) -> None:
    worker = await world.worker()
    await world.engine.pause_worker("w")
    worker.away = httpx.ConnectError("nobody is there")
    synced = await world.engine.sync_worker("w")
    assert synced.state is WorkerState.PAUSED
    assert synced.problem is not None
    assert synced.problem.startswith("paused; resume it to send runs again (its last proof failed: ")


@pytest.mark.parametrize("plain", [False, True])
async def test_a_paused_worker_that_moves_to_another_url_stays_paused(world: World, plain: bool) -> None:
    await world.worker("w", plain=plain)
    await world.engine.pause_worker("w")
    world.network.workers["v"] = Moved("w", [{"name": "echo"}], plain=plain)
    moved = await world.engine.update_worker("w", url="https://v.example.com/hurlbat/")
    assert (moved.state, moved.url) == (WorkerState.PAUSED, "https://v.example.com/hurlbat/")


async def test_a_paused_plain_worker_that_is_synced_stays_paused_until_it_is_resumed(world: World) -> None:
    await world.worker("w", plain=True)
    await world.engine.pause_worker("w")
    assert (await world.engine.sync_worker("w")).state is WorkerState.PAUSED
    assert (await world.engine.resume_worker("w")).state is WorkerState.UNVERIFIED


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("call", ["sync_worker", "resume_worker"])
async def test_a_worker_that_is_paused_during_its_proof_is_paused_after_it(
    world: World, call: str, fails: bool
) -> None:
    worker = await prover(world)
    if call == "resume_worker":
        await world.engine.pause_worker("w")
    proof = asyncio.ensure_future(getattr(world.engine, call)("w"))
    await worker.asked.wait()
    await world.engine.pause_worker("w")
    worker.away = httpx.ConnectError("nobody is there") if fails else None
    worker.door.set()
    assert (await proof).state is WorkerState.PAUSED
    assert await state(world) == "paused"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_worker_that_is_removed_during_its_proof_is_unknown(world: World, fails: bool) -> None:
    worker = await prover(world)
    proof = asyncio.ensure_future(refused(world.engine.sync_worker("w")))
    again = asyncio.ensure_future(refused(world.register(worker)))
    await worker.asked.wait()
    await world.turns()
    await world.engine.delete_worker("w")
    worker.away = httpx.ConnectError("nobody is there") if fails else None
    worker.door.set()
    assert [type(problem) for problem in await asyncio.gather(proof, again)] == [NotFound, NotFound]


async def test_a_proof_of_an_url_says_nothing_of_the_one_that_took_its_place(world: World) -> None:
    worker = await prover(world)
    proof = asyncio.ensure_future(world.engine.sync_worker("w"))
    await worker.asked.wait()
    world.network.workers["v"] = FakeWorker("v", [], away=httpx.ConnectError("nobody is there"))
    assert (await world.engine.update_worker("w", url="https://v.example.com/")).state is WorkerState.UNREACHABLE
    worker.door.set()
    assert (await proof).state is WorkerState.UNREACHABLE


async def test_a_disabled_worker_is_woken_by_a_person_and_by_nothing_else(world: World) -> None:
    worker = await prover(world)
    proof = asyncio.ensure_future(world.parts.fleet.look_again("w"))
    await worker.asked.wait()
    await disable(world)
    worker.door.set()
    assert (await proof).state is WorkerState.DISABLED
    assert (await world.parts.fleet.look_again("w")).state is WorkerState.DISABLED
    assert (await world.engine.sync_worker("w")).state is WorkerState.READY
    await disable(world)
    assert (await world.engine.resume_worker("w")).state is WorkerState.READY


async def test_a_public_key_is_no_secret_as_it_cannot_sign(local: World) -> None:
    private, public = signing.new_key_pair()
    spec = WorkerSpec("w", "https://w.example.com/", secret=public)
    problem = await refused(local.engine.register_worker(spec))
    assert isinstance(problem, Invalid)
    assert (problem.status, problem.code, problem.extra["field"]) == (422, "secret_invalid", "secret")
    assert await local.rows("SELECT name FROM worker") == []
    local.network.workers["w"] = FakeWorker("w", [], away=httpx.ConnectError("nobody is there"))
    await local.engine.register_worker(WorkerSpec("w", "https://w.example.com/", secret=private))


async def test_reading_the_registry_does_not_undo_a_move_that_is_not_stored_yet(world: World) -> None:
    await world.worker()
    async with world.parts.fleet.standing._storing:  # nothing can be stored
        world.parts.health.heard_of("w", Delivery(Signal.UNREACHABLE, sentence="no"))
        await world.change("UPDATE worker SET slots = 7")  # so that there is something to read
        await world.parts.fleet.load()
        assert world.parts.registry.workers["w"].state is WorkerState.UNREACHABLE
        assert world.parts.registry.workers["w"].slots == 7
    await settled(world)
    assert await state(world) == "unreachable"
    await world.parts.fleet.load()
    assert await state(world) == "unreachable"


async def test_a_move_that_a_database_in_trouble_did_not_take_is_stored_later(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await local.worker()
    worker.away = httpx.ConnectError("nobody is there")

    async def gone(script: Any) -> Any:
        script.close()
        raise DatabaseTrouble("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(local.parts.database, "write", gone)
        local.parts.health.heard_of("w", Delivery(Signal.UNREACHABLE, sentence="no"))
        await settled(local)
    assert local.parts.registry.workers["w"].state is WorkerState.UNREACHABLE
    await local.parts.fleet.standing.store()
    assert await state(local) == "unreachable"


async def test_a_registry_that_did_not_change_is_read_and_left_as_it_is(world: World) -> None:
    await world.worker()
    await world.parts.fleet.load()
    before = world.parts.registry.workers
    await world.parts.fleet.load()
    assert world.parts.registry.workers is before
    await world.change("UPDATE worker SET slots = 7")
    await world.parts.fleet.load()
    assert world.parts.registry.workers["w"].slots == 7


async def test_a_secret_that_was_replaced_signs_until_its_overlap_is_over(world: World) -> None:
    await world.worker()
    newer = signing.new_secret()
    await world.engine.update_worker("w", secret=newer)
    assert world.parts.registry.targets["w"].keys == (newer, SECRET)
    await world.parts.fleet.load()
    assert world.parts.registry.targets["w"].keys == (newer, SECRET)
    row = await world.parts.database.read(_row())
    keys = world.parts.fleet._secrets(row)
    assert [key["until"] is None for key in keys] == [True, False]
    over = [keys[0], keys[1] | {"until": keys[1]["until"] - OVERLAP_MS}]
    await world.change(f"UPDATE worker SET secrets = '{world.parts.fleet._vault.lock(over)}'")
    await world.parts.fleet.load()
    assert list(world.parts.registry.targets["w"].keys) == [newer]


async def test_an_overlap_that_ends_is_seen_though_no_row_has_changed(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await local.worker()
    newer = signing.new_secret()
    await local.engine.update_worker("w", secret=newer)
    assert local.parts.registry.targets["w"].keys == (newer, SECRET)
    moved = local.parts.clock.now_ms() + OVERLAP_MS + 1
    monkeypatch.setattr(local.parts.fleet.standing, "_database", _At(local.parts.database, moved))
    await local.parts.fleet.load()
    assert list(local.parts.registry.targets["w"].keys) == [newer]


async def test_rekeying_writes_only_what_an_older_key_encrypted(database_url: str) -> None:
    newest = SecretStr(Fernet.generate_key().decode())
    async with World(database_url) as world:
        await world.worker()
        [(old, updated)] = await world.rows("SELECT secrets, updated_at FROM worker")
    async with World(database_url, world.network, secret_key=(newest, KEY)) as world:
        [(new, _)] = await world.rows("SELECT secrets, updated_at FROM worker")
        assert new != old
        await world.parts.fleet.rekey()
        assert await world.rows("SELECT secrets, updated_at FROM worker") == [(new, updated)]
    async with World(database_url, world.network, secret_key=(newest,)) as world:
        assert world.parts.registry.targets["w"].keys == (SECRET,)


async def test_rekeying_keeps_what_another_server_stored_since_the_rows_were_read(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hurlbat_dispatcher.store import workers as store

    async with World(sqlite_url) as world:
        await world.worker()
        fleet = world.parts.fleet
        true = store.all_registered

        def before() -> Any:
            found = yield from true()
            [row] = found[0]
            yield from store.save_worker(row._replace(slots=7), new=False)  # as if it were committed elsewhere just now
            return found

        monkeypatch.setattr(store, "all_registered", before)
        monkeypatch.setattr(fleet._vault, "_newest", Fernet(Fernet.generate_key()))
        await fleet.rekey()
        assert await world.rows("SELECT slots FROM worker") == [(7,)]


async def test_an_answer_is_remembered_at_once_and_stored_once_a_minute(world: World) -> None:
    await world.worker()
    await world.change("UPDATE worker SET last_seen_at = NULL")
    await world.parts.fleet.load()
    assert (await world.engine.get_worker("w")).last_seen_at is None
    await world.ended(await world.submit())
    await world.until(lambda: world.parts.fleet.standing._seen != {})
    first = (await world.engine.get_worker("w")).last_seen_at
    assert first is not None
    await world.parts.fleet.standing.store()
    assert await world.rows("SELECT last_seen_at FROM worker") == [(first,)]

    world.parts.fleet.standing._seen["w"] = first + 59_999
    await world.parts.fleet.standing.store()
    assert await world.rows("SELECT last_seen_at FROM worker") == [(first,)]
    world.parts.fleet.standing._seen["w"] = first + 60_000
    await world.parts.fleet.standing.store()
    assert await world.rows("SELECT last_seen_at FROM worker") == [(first + 60_000,)]
    assert [one.last_seen_at for one in (await world.engine.list_workers()).items] == [first + 60_000]


async def test_a_worker_that_proves_itself_slowly_keeps_no_other_waiting(local: World) -> None:
    slow, quick = await prover(local, "slow"), await local.worker("quick")
    for name in ("slow", "quick"):
        local.parts.health.heard_of(name, Delivery(Signal.UNREACHABLE, sentence="no"))
    await local.parts.health.recheck()
    await slow.asked.wait()
    await local.until(lambda: local.parts.registry.workers["quick"].state is WorkerState.READY)
    await local.until(lambda: local.parts.health._proving == {"slow"})
    local.parts.health.heard_of("quick", Delivery(Signal.UNREACHABLE, sentence="again"))
    await local.parts.health.recheck()
    await local.until(lambda: local.parts.registry.workers["quick"].state is WorkerState.READY)
    await local.until(lambda: local.parts.health._proving == {"slow"})  # and it is not asked twice
    assert not quick.calls
    slow.door.set()
    await local.until(lambda: local.parts.registry.workers["slow"].state is WorkerState.READY)


async def test_no_more_proofs_go_on_at_once_than_there_is_room_for(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.health.MAX_PROOFS", 2)
    provers = [await prover(local, f"w{n}") for n in range(4)]
    for n in range(4):
        local.parts.health.heard_of(f"w{n}", Delivery(Signal.UNREACHABLE, sentence="no"))
    await local.parts.health.recheck()
    await local.parts.health.recheck()
    assert len(local.parts.health._proving) == 2
    for one in provers:
        one.door.set()
    await settled(local)
    await local.parts.health.recheck()
    await settled(local)
    await local.until(lambda: {one.state for one in local.parts.registry.workers.values()} == {WorkerState.READY})


async def test_a_worker_that_answers_410_is_disabled_until_somebody_wakes_it(world: World) -> None:
    worker = await world.worker()

    async def gone(_: list[Call]) -> httpx.Response:
        return marked(410)

    worker.answer = gone
    run = await world.submit("echo", "1")
    await world.put_back(run, "held")
    await settled(world)
    assert await state(world) == "disabled"
    worker.answer = None
    await world.parts.health.recheck()
    await settled(world)
    assert await state(world) == "disabled"
    await world.engine.sync_worker("w")
    assert (await world.ended(run)).output == "1"


class _At:
    """A database whose clock shows another time."""

    def __init__(self, database: Any, now: int) -> None:
        self._database = database
        self._now = now

    async def read(self, script: Any) -> Any:
        _, *registered = await self._database.read(script)
        return self._now, *registered


def _row() -> Any:
    from hurlbat_dispatcher.store.workers import one_worker

    row = yield from one_worker(1, "w")
    return row


async def test_a_server_is_no_worker_of_its_own(local: World) -> None:
    problem = await refused(local.engine.register_worker(WorkerSpec("w", "https://hurlbat.test:80/", secret=SECRET)))
    assert isinstance(problem, Invalid)
    assert problem.code == "destination_self"


async def test_a_worker_that_is_back_gets_its_other_runs_while_the_first_one_still_runs(local: World) -> None:
    worker = await local.worker()
    worker.away = httpx.ConnectError("no")
    first, second = await local.submit(input="1"), await local.submit(input="2")
    await local.until(lambda: local.parts.registry.workers["w"].state is WorkerState.UNREACHABLE)
    worker.work, worker.away = worker.held, None
    await local.until(lambda: len(worker.open) == 2)
    worker.gate.set()
    await local.all_ended([first, second])

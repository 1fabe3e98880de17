"""Rotations of signing keys: who signs while they overlap, what becomes of a worker at the end, what is kept."""

import asyncio
from typing import Any

import httpx
import pytest

from hurlbat import signing
from hurlbat.errors import SignatureError
from hurlbat_dispatcher import Conflict, Invalid, NotFound, Worker, WorkerSpec, WorkerState
from hurlbat_dispatcher.keyring import OVERLAP_SECONDS
from tests.engine.far_side import SECRET, FakeWorker, marked
from tests.engine.world import World, refused

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nobody_rechecks")]

OLD = signing.key_id(SECRET)
LATER_MS = 2 * 86_400_000


async def row(world: World, name: str = "w") -> list[dict[str, Any]]:
    """Return the keys of a worker as they are stored."""
    [(secrets,)] = await world.rows(f"SELECT secrets FROM worker WHERE name = '{name}'")
    found: list[dict[str, Any]] = world.parts.fleet._vault.unlock(secrets)
    return found


async def overlaps_end(world: World) -> None:
    """Let all overlaps be over, and the server see to it."""
    over = [one if one["until"] is None else one | {"until": one["until"] - LATER_MS} for one in await row(world)]
    await world.change(f"UPDATE worker SET secrets = '{world.parts.fleet._vault.lock(over)}'")
    await world.parts.fleet.load()
    await look(world)


async def look(world: World) -> None:
    """Let the server look after its workers."""
    await world.parts.health.recheck()
    while world.parts.health._tasks:
        await asyncio.gather(*world.parts.health._tasks)


def ids(world: World) -> tuple[str, ...]:
    """Return the ids of the keys that sign."""
    return world.parts.registry.targets["w"].key_ids


# -- while they overlap ------------------------------------------------------------------------------------------------


async def test_both_keys_sign_for_a_day_and_a_worker_that_knows_the_old_one_stays_ready(world: World) -> None:
    fake = await world.worker()
    rotated = await world.engine.rotate_secret("w")

    assert rotated.secret is not None
    new = signing.key_id(rotated.secret)
    first, second = rotated.worker.keys
    assert (first.id, first.algorithm, first.public_key, first.until) == (new, "v1", None, None)
    assert (second.id, second.until) == (OLD, (first.created_at or 0) + OVERLAP_SECONDS * 1000)
    assert rotated.worker.state is WorkerState.READY
    assert (await world.engine.sync_worker("w")).state is WorkerState.READY
    assert (await world.ended(await world.submit())).state == "completed"
    assert fake.headers[-1]["hurlbat-key-ids"] == f"{new} {OLD}"
    assert fake.headers[-1]["webhook-signature"].count("v1,") == 2
    fake.keys = [rotated.secret]
    assert (await world.ended(await world.submit())).state == "completed"
    assert all(rotated.secret not in str(stored) for (stored,) in await world.rows("SELECT secrets FROM worker"))


async def test_the_end_of_an_overlap_changes_nothing_for_a_worker_that_knows_the_new_key(world: World) -> None:
    fake = await world.worker()
    rotated = await world.engine.rotate_secret("w")
    fake.keys = [str(rotated.secret)]
    await overlaps_end(world)

    assert ids(world) == (signing.key_id(str(rotated.secret)),)
    worker = await world.engine.get_worker("w")
    assert (worker.state, worker.problem, len(worker.keys)) == (WorkerState.READY, None, 1)
    assert SECRET not in str(await row(world))


async def test_a_worker_that_does_not_know_the_new_key_at_the_end_is_rejected_and_its_runs_wait(world: World) -> None:
    fake = await world.worker()
    rotated = await world.engine.rotate_secret("w")
    await overlaps_end(world)

    worker = await world.engine.get_worker("w")
    assert worker.state is WorkerState.REJECTED
    assert worker.problem is not None
    assert f"signed with key {signing.key_id(str(rotated.secret))} (v1 since 20" in worker.problem
    assert f"key {OLD} was replaced, and signs no more since 20" in worker.problem
    assert SECRET not in str(await row(world))
    run = await world.submit()
    await world.turns()
    assert not fake.calls
    fake.keys = [str(rotated.secret)]
    await world.engine.sync_worker("w")
    ended = await world.ended(run)
    assert (ended.state, ended.tries) == ("completed", 1)


async def test_a_worker_that_is_away_at_the_end_is_judged_when_it_is_back(local: World) -> None:
    fake = await local.worker()
    await local.engine.rotate_secret("w")
    fake.away = httpx.ConnectError("nobody is there")
    await overlaps_end(local)
    assert (await local.engine.get_worker("w")).state is WorkerState.UNREACHABLE
    fake.away = None
    local.parts.health._checks.clear()
    await look(local)
    worker = await local.engine.get_worker("w")
    assert worker.state is WorkerState.REJECTED
    assert f"key {OLD} was replaced" in str(worker.problem)


async def test_a_paused_worker_stays_paused_at_the_end_and_says_what_is_wrong(local: World) -> None:
    await local.worker()
    await local.engine.rotate_secret("w")
    await local.engine.pause_worker("w")
    await overlaps_end(local)
    worker = await local.engine.get_worker("w")
    assert worker.state is WorkerState.PAUSED
    assert f"key {OLD} was replaced" in str(worker.problem)


async def test_an_end_is_settled_once_and_a_database_in_trouble_puts_it_off(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hurlbat_dispatcher import DatabaseTrouble

    await local.worker()
    await local.engine.rotate_secret("w")

    async def gone(script: Any) -> Any:
        script.close()
        raise DatabaseTrouble("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(local.parts.rotating._database, "write", gone)
        over = [one | {"until": one["until"] and 1} for one in await row(local)]
        patched.undo()
        await local.change(f"UPDATE worker SET secrets = '{local.parts.fleet._vault.lock(over)}'")
        await local.parts.fleet.load()
        patched.setattr(local.parts.rotating._database, "write", gone)
        await look(local)
    assert local.parts.rotating.over()
    await look(local)
    assert not local.parts.rotating.over()
    assert (await local.engine.get_worker("w")).state is WorkerState.REJECTED


async def test_a_401_while_two_keys_sign_names_them_and_their_times_in_the_run(world: World) -> None:
    fake = await world.worker()
    rotated = await world.engine.rotate_secret("w", overlap=3600)

    async def refuse(_: object) -> httpx.Response:
        return marked(401, b"no")

    fake.answer = refuse
    run = await world.put_back(await world.submit(), "held")
    [note] = [str(entry.detail.get("note", entry.detail)) for entry in run.timeline if entry.kind == "held"]
    new = signing.key_id(str(rotated.secret))
    assert f"signed with key {new} (v1 since 20" in note
    assert f"and key {OLD} (v1 since 20" in note
    assert " until 20" in note
    await world.until(lambda: world.parts.registry.workers["w"].state is WorkerState.REJECTED)
    problem = str((await world.engine.get_worker("w")).problem)
    assert new in problem
    assert OLD in problem
    assert (run.tries, str(rotated.secret) in note, SECRET in note) == (0, False, False)


# -- without an overlap ------------------------------------------------------------------------------------------------


async def test_without_an_overlap_the_old_key_ends_at_once_and_a_worker_that_knows_the_new_one_is_ready(
    world: World,
) -> None:
    fake = await world.worker()
    new = signing.new_secret()
    fake.keys = [new, SECRET]
    rotated = await world.engine.rotate_secret("w", secret=new, overlap=0)
    assert (rotated.secret, rotated.worker.state) == (None, WorkerState.READY)
    assert ids(world) == (signing.key_id(new),)
    assert SECRET not in str(await row(world))


@pytest.mark.parametrize("overlap", [0, 0.0004])
async def test_without_an_overlap_a_worker_that_does_not_know_the_new_key_is_rejected(
    local: World, overlap: float
) -> None:
    await local.worker()
    rotated = await local.engine.rotate_secret("w", secret=signing.new_secret(), overlap=overlap)
    assert rotated.worker.state is WorkerState.REJECTED
    assert f"key {OLD} was replaced, and signs no more" in str(rotated.worker.problem)


async def test_without_an_overlap_a_worker_waits_to_be_told_a_key_that_was_made_here(local: World) -> None:
    fake = await local.worker()
    rotated = await local.engine.rotate_secret("w", overlap=0)
    new = signing.key_id(str(rotated.secret))
    assert rotated.worker.state is WorkerState.PENDING
    assert rotated.worker.problem == f"its secret was replaced; give it the new one (key {new}), then sync it"
    fake.keys = [str(rotated.secret)]
    assert (await local.engine.sync_worker("w")).state is WorkerState.READY


class Slow(FakeWorker):
    """A worker whose first answer is on the way until the test lets it come."""

    def __init__(self, key: str) -> None:
        super().__init__("w", [{"name": "echo"}], keys=[key])
        self.begun = asyncio.Event()

    async def receive(self, request: httpx.Request) -> httpx.Response:
        first = not self.begun.is_set()
        self.begun.set()
        answer = await super().receive(request)
        if first:
            await self.gate.wait()
        return answer


async def slowly_proven(world: World, key: str) -> tuple[Slow, asyncio.Task[Worker]]:
    """Have the worker, which knows this key alone from now on, proven by the key from before the rotation."""
    await world.worker()
    slow = world.network.workers["w"] = Slow(key)
    proof = asyncio.create_task(world.engine.sync_worker("w"))
    await slow.begun.wait()
    return slow, proof


async def test_a_proof_by_a_key_that_ended_meanwhile_does_not_reject_a_worker_that_knows_the_new_one(
    local: World,
) -> None:
    new = signing.new_secret()
    slow, proof = await slowly_proven(local, new)
    assert (await local.engine.rotate_secret("w", secret=new, overlap=0)).worker.state is WorkerState.READY
    slow.gate.set()
    assert (await proof).state is WorkerState.READY


async def test_a_proof_by_a_key_that_ended_meanwhile_is_none_of_the_new_one(local: World) -> None:
    slow, proof = await slowly_proven(local, SECRET)
    rotated = await local.engine.rotate_secret("w", overlap=0)
    assert rotated.worker.state is WorkerState.PENDING
    slow.gate.set()
    assert (await proof).state is WorkerState.PENDING
    assert (await row(local))[0]["made"]


async def test_a_worker_that_was_never_told_a_key_waits_for_one_at_the_end_as_before(local: World) -> None:
    fake = local.network.workers["w"] = FakeWorker("w", [{"name": "echo"}])
    await local.engine.register_worker(WorkerSpec("w", fake.url))
    await local.engine.rotate_secret("w")
    await overlaps_end(local)
    worker = await local.engine.get_worker("w")
    assert (worker.state, len(worker.keys)) == (WorkerState.PENDING, 1)


# -- again and back ----------------------------------------------------------------------------------------------------


async def test_two_replaced_keys_sign_beside_the_newest_and_no_third(world: World) -> None:
    await world.worker()
    made = [str((await world.engine.rotate_secret("w")).secret) for _ in range(2)]
    named = [signing.key_id(one) for one in (*reversed(made), SECRET)]
    assert list(ids(world)) == named
    problem = await refused(world.engine.rotate_secret("w"))
    assert isinstance(problem, Conflict)
    assert problem.code == "rotation_under_way"
    assert f"wait for the end of key {OLD} at 20" in problem.detail
    assert list(ids(world)) == named
    last = await world.engine.rotate_secret("w", overlap=0)
    assert ids(world) == (signing.key_id(str(last.secret)),)


async def test_a_shorter_overlap_ends_the_older_keys_sooner_and_a_longer_one_no_later(local: World) -> None:
    await local.worker()
    await local.engine.rotate_secret("w", overlap=7200)
    [_, first] = (await local.engine.get_worker("w")).keys
    await local.engine.rotate_secret("w", overlap=9000)
    assert (await local.engine.get_worker("w")).keys[2] == first
    await local.engine.rotate_secret("w", overlap=0)
    await local.engine.rotate_secret("w", overlap=7200)
    newest = await local.engine.rotate_secret("w", overlap=60)
    ends = [key.until for key in newest.worker.keys[1:]]
    assert ends == [(newest.worker.keys[0].created_at or 0) + 60_000] * 2


async def test_rotating_to_the_newest_key_again_may_only_shorten_the_overlap(local: World) -> None:
    fake = await local.worker()
    new = signing.new_secret()
    first = await local.engine.rotate_secret("w", secret=new, overlap=3600)
    again = await local.engine.rotate_secret("w", secret=new, overlap=7200)
    assert again.worker.keys == first.worker.keys
    shorter = await local.engine.rotate_secret("w", secret=new, overlap=60)
    assert shorter.worker.keys[0] == first.worker.keys[0]
    assert (shorter.worker.keys[1].until or 0) < (first.worker.keys[1].until or 0)
    fake.keys = [new]
    ended = await local.engine.rotate_secret("w", secret=new, overlap=0)
    assert ended.worker.keys == first.worker.keys[:1]
    assert ended.worker.state is WorkerState.READY


async def test_a_rotation_is_taken_back_by_rotating_to_the_old_key(local: World) -> None:
    await local.worker()
    new = (await local.engine.rotate_secret("w")).secret
    back = await local.engine.rotate_secret("w", secret=SECRET, overlap=60)
    assert [key.id for key in back.worker.keys] == [OLD, signing.key_id(str(new))]
    assert back.worker.keys[0].until is None


async def test_registering_with_a_key_that_still_signs_changes_none(world: World) -> None:
    fake = await world.worker()
    await world.engine.rotate_secret("w")
    before = (await world.engine.get_worker("w")).keys
    await world.register(fake)  # an instance that was started with the old secret
    assert (await world.engine.get_worker("w")).keys == before


async def test_registering_does_not_bring_back_a_key_that_has_ended(world: World) -> None:
    fake = await world.worker()
    rotated = await world.engine.rotate_secret("w")
    await overlaps_end(world)
    problem = await refused(world.register(fake))
    assert isinstance(problem, Conflict)
    assert problem.code == "secret_replaced"
    assert f"give the worker the secret of key {signing.key_id(str(rotated.secret))}" in problem.detail
    assert ids(world) == (signing.key_id(str(rotated.secret)),)
    back = await world.engine.rotate_secret("w", secret=SECRET)
    assert back.worker.keys[0].id == OLD
    assert back.worker.state is WorkerState.READY


async def test_a_new_secret_by_registering_keeps_the_last_two_for_a_day(local: World) -> None:
    fake = await local.worker()
    made = [signing.new_secret() for _ in range(3)]
    fake.keys += made
    for one in made:
        await local.engine.update_worker("w", secret=one)
    assert list(ids(local)) == [signing.key_id(one) for one in reversed(made)]


# -- Ed25519 -----------------------------------------------------------------------------------------------------------


async def test_of_an_ed25519_pair_only_the_public_key_is_told(world: World) -> None:
    fake = await world.worker()
    rotated = await world.engine.rotate_secret("w", algorithm="v1a")
    key = rotated.worker.keys[0]
    assert rotated.secret is None
    assert (key.algorithm, key.public_key is not None) == ("v1a", True)
    fake.keys = [str(key.public_key)]
    assert key.id == signing.key_id(fake.keys[0])
    assert (await world.engine.sync_worker("w")).state is WorkerState.READY
    await overlaps_end(world)
    assert (await world.engine.get_worker("w")).state is WorkerState.READY
    assert (await world.ended(await world.submit())).state == "completed"
    assert fake.headers[-1]["webhook-signature"].startswith("v1a,")
    private = (await row(world))[0]["secret"]
    assert private.startswith("whsk_")
    assert private not in repr(world.parts.registry.targets["w"]) + repr(await world.engine.get_worker("w"))


async def test_a_worker_that_takes_any_ed25519_signature_is_rejected(local: World) -> None:
    class Careless(FakeWorker):
        async def receive(self, request: httpx.Request) -> httpx.Response:
            body = await request.aread()
            try:
                signing.verify([SECRET], dict(request.headers), body, 0.0, tolerance=1e12)
            except SignatureError:
                if "v1a," not in request.headers.get("webhook-signature", ""):
                    return marked(401)
            return await super().receive(request) if b'"describe"' in body else marked(200)

    private, public = signing.new_key_pair()
    fake = local.network.workers["w"] = Careless("w", [{"name": "echo"}], keys=[public])
    registered = await local.engine.register_worker(WorkerSpec("w", fake.url, secret=private))
    assert registered.worker.state is WorkerState.REJECTED
    assert "wrongly signed" in str(registered.worker.problem)


# -- what is refused, and what was there before ------------------------------------------------------------------------


async def test_a_rotation_that_cannot_be_is_refused_by_its_member(local: World) -> None:
    await local.worker()
    before = await row(local)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"secret": "hunter2"}, "secret"),
        ({"secret": signing.new_key_pair()[1]}, "secret"),
        ({"secret": signing.new_secret(), "algorithm": "v1a"}, "algorithm"),
        ({"overlap": -1}, "overlap"),
        ({"overlap": 2_592_001}, "overlap"),
        ({"overlap": float("nan")}, "overlap"),
    ]
    for asked, field in cases:
        problem = await refused(local.engine.rotate_secret("w", **asked))
        assert isinstance(problem, Invalid), asked
        assert problem.extra["field"] == field
        assert "hunter2" not in problem.detail
    assert await row(local) == before


async def test_nobody_s_secret_is_rotated(local: World) -> None:
    assert isinstance(await refused(local.engine.rotate_secret("nobody")), NotFound)


async def test_keys_that_an_older_version_stored_are_told_and_rotated(local: World) -> None:
    await local.worker()
    older = [{"secret": SECRET, "made": False, "until": None}]
    await local.change(f"UPDATE worker SET secrets = '{local.parts.fleet._vault.lock(older)}'")
    await local.parts.fleet.load()
    [key] = (await local.engine.get_worker("w")).keys
    assert (key.id, key.created_at) == (OLD, None)
    rotated = await local.engine.rotate_secret("w")
    assert rotated.worker.keys[1].id == OLD
    await overlaps_end(local)
    assert f"key {OLD} was replaced" in str((await local.engine.get_worker("w")).problem)


# -- two servers -------------------------------------------------------------------------------------------------------


async def test_another_server_signs_by_both_keys_as_soon_as_it_hears_of_a_rotation(owner: World, other: World) -> None:
    await owner.worker()
    await other.until(lambda: "w" in other.parts.registry.targets)
    rotated = await other.engine.rotate_secret("w")
    await owner.until(lambda: ids(owner) == (signing.key_id(str(rotated.secret)), OLD))
    assert ids(other) == ids(owner)
    await overlaps_end(owner)
    await other.until(lambda: len(ids(other)) == 1)
    await other.until(lambda: other.parts.registry.workers["w"].state is WorkerState.REJECTED)
    await look(other)
    assert (await other.engine.get_worker("w")).state is WorkerState.REJECTED

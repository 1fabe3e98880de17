"""Children: what they inherit, the keys that make them once, and parents that take none."""

import asyncio
import json
from collections.abc import Awaitable, Sequence
from typing import Any

import asyncpg
import pytest

from hurlbat_dispatcher import MAX_METADATA_BYTES, Accepted, Conflict, Invalid, Problem, Run, RunState, Submission
from hurlbat_dispatcher.checkup import strict_checkup
from hurlbat_dispatcher.loops.retention import Retention
from hurlbat_dispatcher.store import kin
from hurlbat_dispatcher.turn.operations import Submit
from tests.engine.world import SOON, World, refused

pytestmark = pytest.mark.anyio

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
NOBODY = "0199a3c0-0000-7000-8000-000000000000"


async def parent_in(world: World, **more: Any) -> Run:
    """Return a run that goes on until the worker's gate is opened; other tasks than `parent` are done at once."""
    worker = await world.worker("w", "parent", "echo", "other")

    async def work(call: Any) -> Any:
        return await worker.held(call) if call.task == "parent" else json.dumps(call.input)

    worker.work = work
    return await world.until_run(await world.submit("parent", **more), lambda run: run.state is RunState.RUNNING)


async def submit(world: World, parent: Run | str, input: str = "null", **more: Any) -> Accepted:
    """Submit a child."""
    parent_id = parent if isinstance(parent, str) else parent.id
    return await world.engine.submit(Submission("echo", input, **{"parent": parent_id} | more))


async def count(world: World) -> int:
    """Return how many runs there are."""
    return int((await world.rows("SELECT count(*) FROM run"))[0][0])


# -- what they inherit -------------------------------------------------------------------------------------------------


async def test_a_child_names_its_parent_and_the_root_of_its_tree(world: World) -> None:
    top = await parent_in(world)
    child = (await submit(world, top)).run
    grandchild = (await submit(world, child)).run
    assert (top.root, child.parent, child.root) == (None, top.id, top.id)
    assert (grandchild.parent, grandchild.root) == (child.id, top.id)
    assert {run.kind for run in (top, child, grandchild)} == {"task"}


@pytest.mark.parametrize(
    ("parents", "own", "shown"),
    [
        ('{"a": 1.0, "b": [2 ]}', "{}", '{"a": 1.0, "b": [2 ]}'),
        ("{}", '{"a" :1}', '{"a" :1}'),
        ('{"a": 1.0, "b": [2 ]}', '{"c": 1e3, "a": "own"}', '{"a":"own","b":[2 ],"c":1e3}'),
        ('{"n": 123456789012345678901234567890}', '{ "x":\n{} }', '{"n":123456789012345678901234567890,"x":{}}'),
        ('{"a": 1, "a": 2}', '{"b": 1, "b": 3}', '{"a":2,"b":3}'),
    ],
)
async def test_a_child_has_its_parent_s_metadata_in_which_its_own_members_win(
    local: World, parents: str, own: str, shown: str
) -> None:
    parent = await parent_in(local, metadata=parents)
    child = (await submit(local, parent, metadata=own)).run
    assert child.metadata == shown
    assert (await local.engine.get_run(child.id)).metadata == shown


async def test_what_is_inherited_counts_as_metadata_and_the_refusal_says_so(local: World) -> None:
    half = "x" * (MAX_METADATA_BYTES // 2)
    parent = await parent_in(local, metadata=json.dumps({"a": half}))
    before = await count(local)
    problem = await refused(submit(local, parent, metadata=json.dumps({"b": half})))
    assert isinstance(problem, Invalid)
    assert (problem.code, problem.extra) == ("member_too_large", {"field": "metadata", "limit": MAX_METADATA_BYTES})
    assert problem.detail == "metadata, with what it inherits from its parent, is larger than 65536 bytes"
    assert await count(local) == before
    assert (await submit(local, parent, metadata=json.dumps({"a": half + "x"}))).created


async def test_an_inherited_member_is_seen_by_the_keys_of_the_child_s_task(local: World) -> None:
    parent = await parent_in(local, metadata='{"customer": "ada"}')
    rule = {"name": "keyed", "concurrency": [{"key": "metadata.customer", "max_runs": 1}]}
    await local.worker("v", rule)
    await local.engine.pause_worker("v")
    await submit(local, parent)
    child = (await local.engine.submit(Submission("keyed", parent=parent.id))).run
    [(draws,)] = await local.rows(
        f"SELECT lane.draws FROM lane JOIN run ON run.lane = lane.id WHERE run.id = '{child.id}'"
    )
    assert json.loads(draws)["groups"] == [["task:keyed:metadata.customer", "ada"]]


async def test_a_repeat_of_an_idempotency_key_is_told_by_what_was_asked_not_by_what_was_inherited(local: World) -> None:
    one = await parent_in(local, metadata='{"of": 1}')
    two = await local.submit("parent", metadata='{"of": 2}')
    first = await submit(local, one, idempotency_key="k", idempotency_ttl=3600.0)
    again = await submit(local, two, idempotency_key="k", idempotency_ttl=3600.0)
    assert (again.created, again.run.id, again.run.metadata) == (False, first.run.id, '{"of": 1}')


async def test_the_parents_of_a_thousand_are_read_once(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, other = await parent_in(local), await local.submit("parent")
    asked: list[Sequence[str]] = []
    reads = kin.parents

    def counted(tenant: int, ids: Sequence[str]) -> Any:
        asked.append(ids)
        return reads(tenant, ids)

    monkeypatch.setattr("hurlbat_dispatcher.submitting.kin.parents", counted)
    parents = [parent.id, other.id] * 500
    outcomes = await local.engine.submit_many([Submission("echo", parent=one) for one in parents])
    assert [one.run.parent for one in outcomes if isinstance(one, Accepted)] == parents
    assert [sorted(ids) for ids in asked] == [sorted([parent.id, other.id])]
    await local.engine.submit_many([Submission("echo")] * 3)
    assert len(asked) == 1


# -- parents that take none --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parent", [NOBODY, "x", "", "\0", "0" * 36])
async def test_a_parent_that_nobody_knows_is_refused(world: World, parent: str) -> None:
    await world.worker()
    problem = await refused(submit(world, parent))
    assert isinstance(problem, Invalid)
    assert (problem.code, problem.extra, problem.detail) == (
        "parent_unknown",
        {"field": "parent"},
        f"there is no run {parent}",
    )
    assert await count(world) == 0
    world.engine.ready()


async def test_a_parent_that_goes_as_its_child_comes_is_refused(world: World) -> None:
    parent = await parent_in(world)
    [entry] = await world.parts.submitting._entries([Submission("echo", parent=parent.id)])
    assert not isinstance(entry, Problem)
    await world.engine.cancel_run(parent.id)
    await world.change(f"DELETE FROM run WHERE id = '{parent.id}'")
    [problem] = await world.do(Submit([entry]))
    assert isinstance(problem, Invalid)
    assert problem.code == "parent_unknown"
    assert await count(world) == 0


async def test_a_parent_that_was_cancelled_starts_no_children(world: World) -> None:
    parent = await parent_in(world)
    kept = await submit(world, parent, child_key="kept")
    await world.ended(kept.run)
    await world.engine.cancel_run(parent.id, reason="enough")
    before = await count(world)
    problem = await refused(submit(world, parent))
    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra) == ("parent_cancelled", {"run_id": parent.id})
    assert problem.detail == f"run {parent.id} was cancelled; it starts no children"
    outcomes = await world.engine.submit_many([Submission("echo", parent=parent.id), Submission("echo")])
    assert [isinstance(one, Accepted) for one in outcomes] == [False, True]
    assert await count(world) == before + 1
    assert await world.rows("SELECT count(*) FROM idempotency") == [(1,)]


async def test_a_cancelled_parent_that_is_replayed_starts_children_again(world: World) -> None:
    await world.worker("w", "parent", "echo")
    parent = await world.submit("parent", delay=3600.0)
    await world.engine.cancel_run(parent.id)
    assert isinstance(await refused(submit(world, parent)), Conflict)
    await world.engine.replay_run(parent.id)
    assert (await submit(world, parent)).created


@pytest.mark.parametrize("state", ["completed", "failed"])
async def test_a_parent_that_has_ended_otherwise_may_have_children(world: World, state: str) -> None:
    worker = await world.worker()

    async def work(call: Any) -> Any:
        return call.failed() if state == "failed" and call.input == "parent" else "null"

    worker.work = work
    parent = await world.ended(await world.submit("echo", '"parent"'))
    assert parent.state == state
    child = (await submit(world, parent)).run
    assert (await world.ended(child)).state is RunState.COMPLETED


# -- once --------------------------------------------------------------------------------------------------------------


async def test_a_key_has_one_child_also_after_it_has_ended(world: World) -> None:
    parent = await parent_in(world)
    first = await submit(world, parent, "1", child_key="k")
    assert (first.created, first.run.child_key, first.run.idempotency_key) == (True, "k", None)
    ended = await world.ended(first.run)
    again = await submit(world, parent, "1", child_key="k")
    assert (again.created, again.run.id, again.run.output, again.run.child_key) == (False, ended.id, "1", "k")
    assert (await submit(world, parent, "1", child_key="l")).created
    assert (await submit(world, parent, "1")).created


async def test_a_key_stands_whatever_became_of_its_child(world: World) -> None:
    parent = await parent_in(world)
    first = await submit(world, parent, delay=3600.0, child_key="k")
    await world.engine.cancel_run(first.run.id)
    again = await submit(world, parent, delay=3600.0, child_key="k")
    assert (again.created, again.run.id, again.run.state) == (False, first.run.id, RunState.CANCELLED)


async def test_a_key_belongs_to_its_parent(world: World) -> None:
    parent = await parent_in(world)
    other = await world.submit("parent")
    first, second = await submit(world, parent, child_key="k"), await submit(world, other, child_key="k")
    assert (first.created, second.created) == (True, True)
    third = await world.engine.submit(Submission("echo", idempotency_key=f"{parent.id}:k"))
    assert third.created


@pytest.mark.parametrize(
    "changed",
    [{"task": "other"}, {"input": "2"}, {"metadata": '{"a": 1}'}, {"priority": 3}],
    ids=["task", "input", "metadata", "priority"],
)
async def test_a_key_with_another_request_is_a_conflict_that_names_the_child(
    world: World, changed: dict[str, Any]
) -> None:
    parent = await parent_in(world)
    first = await submit(world, parent, "1", child_key="k")
    asked = Submission("echo", "1", parent=parent.id, child_key="k")._replace(**changed)
    problem = await refused(world.engine.submit(asked))
    assert isinstance(problem, Conflict)
    assert (problem.code, problem.extra) == ("idempotency_conflict", {"run_id": first.run.id})
    assert problem.detail == (
        f"the child 'k' of run {parent.id} is run {first.run.id}, which has another task, input, metadata or priority;"
        " use another child_key"
    )


async def test_twenty_at_once_with_one_key_make_one_child(world: World) -> None:
    parent = await parent_in(world)
    outcomes = await asyncio.gather(*(submit(world, parent, child_key="k") for _ in range(20)))
    bulk = await world.engine.submit_many([Submission("echo", parent=parent.id, child_key=key) for key in "kkl"])
    assert sum(one.created for one in outcomes) == 1
    assert [one.created for one in bulk if isinstance(one, Accepted)] == [False, False, True]
    assert {one.run.id for one in (*outcomes, bulk[0]) if isinstance(one, Accepted)} == {outcomes[0].run.id}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"child_key": "k"}, "child_key names a child among those of its parent, so it needs a parent"),
        (
            {"child_key": "k", "idempotency_key": "i", "parent": NOBODY},
            "child_key and idempotency_key exclude each other",
        ),
    ],
)
async def test_a_key_that_names_nothing_or_is_one_of_two_is_refused(
    local: World, asked: dict[str, Any], said: str
) -> None:
    await local.worker()
    problem = await refused(local.engine.submit(Submission("echo", **asked)))
    assert isinstance(problem, Invalid)
    assert (problem.code, problem.extra, problem.detail) == ("member_invalid", {"field": "child_key"}, said)


async def test_a_key_goes_with_its_child_and_not_before(world: World) -> None:
    parent = await parent_in(world)
    first = await world.ended((await submit(world, parent, child_key="k")).run)
    await world.ended((await submit(world, parent, child_key="l")).run)
    retention = Retention(1, world.parts.database, world.parts.clock, seconds=3600)
    await retention.run_once()
    assert not (await submit(world, parent, child_key="k")).created
    await world.change(f"UPDATE run SET finished_at = 1, id = '{NOBODY}' WHERE id = '{first.id}'")
    await world.change(f"UPDATE idempotency SET run = '{NOBODY}' WHERE run = '{first.id}'")
    await retention.run_once()
    assert [key.partition(":")[2] for (key,) in await world.rows("SELECT key FROM idempotency")] == ["l"]
    assert (await submit(world, parent, child_key="k")).created
    assert await world.parts.database.read(strict_checkup()) == []


async def test_a_child_goes_on_when_its_parent_is_removed_and_has_no_more_siblings(world: World) -> None:
    parent = await parent_in(world)
    child = (await submit(world, parent, delay=3600.0, child_key="k")).run
    world.network.workers["w"].gate.set()
    await world.ended(parent)
    await world.change(f"UPDATE run SET finished_at = 1, id = '{NOBODY}' WHERE id = '{parent.id}'")
    await world.change(f"UPDATE run SET parent = '{NOBODY}', root = '{NOBODY}' WHERE id = '{child.id}'")
    await Retention(1, world.parts.database, world.parts.clock, seconds=3600).run_once()
    assert isinstance(await refused(world.engine.get_run(NOBODY)), Problem)
    problem = await refused(submit(world, NOBODY))
    assert isinstance(problem, Invalid)
    assert problem.code == "parent_unknown"
    await world.time_comes(child, "due_at", "rank")
    ended = await world.ended(child)
    assert (ended.state, ended.parent) == (RunState.COMPLETED, NOBODY)


@pytest.mark.parametrize(
    "way",
    [{"debounce": {"period": 60}}, {"debounce": {"period": 60, "mode": "leading"}}, {"batch_size": 3}],
    ids=["trailing", "leading", "batch"],
)
async def test_a_key_is_kept_for_a_child_that_another_run_took_in(local: World, way: dict[str, Any]) -> None:
    parent = await parent_in(local)
    await local.worker("v", {"name": "gathers", **way})
    await local.engine.pause_worker("v")
    asked = [Submission("gathers", text, parent=parent.id, child_key=text) for text in ("1", "2")]
    first, second, again = [(await local.engine.submit(one)) for one in (*asked, asked[1])]
    assert (first.created, second.created, again.created) == (True, False, False)
    assert {second.run.id, again.run.id} == {first.run.id}
    assert sorted(await local.rows("SELECT key, run FROM idempotency")) == [
        (f"{parent.id}:1", first.run.id),
        (f"{parent.id}:2", first.run.id),
    ]
    assert (await local.engine.get_run(first.run.id)).idempotency_key is None
    if way.get("batch_size"):
        assert (await local.engine.get_run(first.run.id)).input == "[1,2]"


async def test_a_debounced_run_is_the_child_of_the_last_who_submitted_it(local: World) -> None:
    parent = await parent_in(local)
    other = await local.submit("parent")
    await local.worker("v", {"name": "gathers", "debounce": {"period": 60}})
    first = await local.engine.submit(Submission("gathers", "1", parent=parent.id, child_key="a"))
    await local.engine.submit(Submission("gathers", "2", parent=other.id, child_key="b"))
    found = await local.engine.get_run(first.run.id)
    assert (found.parent, found.root, found.child_key, found.input) == (other.id, other.id, "b", "2")


# -- beside a cancellation ---------------------------------------------------------------------------------------------


async def alive(world: World) -> list[str]:
    """Return the runs that have not ended."""
    rows = await world.rows("SELECT id FROM run WHERE state NOT IN ('completed', 'failed', 'cancelled', 'skipped')")
    return [str(row[0]) for row in rows]


async def test_cancelling_a_parent_cancels_all_that_came_of_it_in_whatever_state(world: World) -> None:
    fails = {"name": "fails", "retries": 3, "backoff": {"initial": 3600}}
    worker = await world.worker("w", "parent", "echo", fails, slots=2)

    async def work(call: Any) -> Any:
        return call.failed() if call.task == "fails" else await worker.held(call)

    worker.work = work
    top = await world.until_run(await world.submit("parent"), lambda run: run.state is RunState.RUNNING)
    backing_off = await world.put_back(await world.submit("fails", parent=top.id), "retry")
    running = await world.until_run(
        await world.submit("parent", parent=top.id), lambda run: run.state is RunState.RUNNING
    )
    queued = await world.submit("echo", parent=running.id)
    delayed = await world.submit("echo", parent=queued.id, delay=3600.0)
    stranger = await world.submit("echo")
    held = {(top.id, 1), (running.id, 1)}
    await world.until(lambda: worker.open.keys() == held)
    await world.engine.cancel_run(top.id, reason="enough")
    found = await world.all_ended([backing_off, running, queued, delayed])
    assert [(run.state, run.cancelled_by) for run in found] == [(RunState.CANCELLED, "parent")] * 4
    assert [run.reason for run in found[:2]] == ["parent cancelled: enough"] * 2
    assert all((run.reason or "").startswith("parent cancelled: ") for run in found)
    await world.until(lambda: {(run_id, attempt) for run_id, attempt, _ in worker.cancels} == held)
    worker.gate.set()
    assert (await world.ended(stranger)).state is RunState.COMPLETED


async def test_a_child_that_comes_in_the_turn_of_the_cancellation_is_refused_or_cancelled(world: World) -> None:
    parent = await parent_in(world)
    waits = [submit(world, parent, delay=3600.0) for _ in range(5)]
    outcomes = await asyncio.gather(*waits[:2], world.engine.cancel_run(parent.id), *waits[2:], return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Accepted):
            assert (await world.ended(outcome.run)).state is RunState.CANCELLED
        elif not isinstance(outcome, Run):
            assert isinstance(outcome, Conflict)
            assert outcome.code == "parent_cancelled"
    assert await alive(world) == []


async def one_after_the_other(world: World, parent: Run, *asked: Awaitable[Any]) -> list[Any]:
    """Let each of these come to the lock of a parent's row before the next, and give it up when all are there."""
    side = await asyncpg.connect(world.settings.database_url.replace("+asyncpg", ""))
    tasks: list[asyncio.Future[Any]] = []
    try:
        async with side.transaction():
            await side.execute(f"SELECT * FROM run WHERE id = '{parent.id}' FOR UPDATE")
            for one in asked:
                tasks.append(asyncio.ensure_future(one))
                async with asyncio.timeout(SOON):
                    while await side.fetchval(BLOCKED) < len(tasks):  # noqa: ASYNC110  # a lock sets no event
                        await asyncio.sleep(0.02)
        return list(await asyncio.gather(*tasks, return_exceptions=True))
    finally:
        await side.close()


@pytest.mark.parametrize("at_the_owner", [True, False], ids=["cancelled at the owner", "cancelled elsewhere"])
@pytest.mark.parametrize("first", ["child", "cancel"])
async def test_a_parent_that_is_cancelled_while_another_server_takes_its_children_leaves_none_alive(
    owner: World, other: World, first: str, at_the_owner: bool
) -> None:
    parent = await parent_in(owner)
    here, there = (owner, other) if at_the_owner else (other, owner)
    await owner.until(lambda: "echo" in other.parts.registry.tasks)
    sibling = await submit(owner, parent, delay=3600.0)

    async def cancelled() -> None:
        await here.engine.cancel_run(parent.id, reason="enough")

    children = [
        Submission("echo", parent=parent.id, delay=3600.0),
        Submission("parent", parent=parent.id),
        Submission("echo", parent=sibling.run.id, delay=3600.0),
    ]
    both: list[Awaitable[Any]] = [there.engine.submit_many(children), cancelled()]
    found = await one_after_the_other(owner, parent, *(both if first == "child" else both[::-1]))
    [outcomes] = [one for one in found if isinstance(one, list)]
    assert [isinstance(one, Accepted) for one in outcomes[:2]] == [first == "child"] * 2
    assert {one.code for one in outcomes if isinstance(one, Problem)} <= {"parent_cancelled"}
    below = [sibling, *(one for one in outcomes if isinstance(one, Accepted))]
    ended = await owner.all_ended([one.run for one in below])
    assert {(run.state, run.cancelled_by) for run in ended} == {(RunState.CANCELLED, "parent")}
    assert await alive(owner) == []


async def test_of_two_servers_that_are_given_one_key_at_once_one_makes_the_child(owner: World, other: World) -> None:
    parent = await parent_in(owner)
    await owner.until(lambda: "echo" in other.parts.registry.tasks)
    asked = [submit(world, parent, child_key="k") for world in (other, owner)]
    begun = await one_after_the_other(owner, parent, *asked)
    assert [one.created for one in begun] == [True, False]
    assert len({one.run.id for one in begun}) == 1
    conflict, same = await one_after_the_other(
        owner, parent, submit(owner, parent, "2", child_key="k"), submit(other, parent, child_key="k")
    )
    assert isinstance(conflict, Conflict)
    assert (conflict.code, same.created) == ("idempotency_conflict", False)

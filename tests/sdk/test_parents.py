"""A run that a task submits is linked to the task's own run, which says whether it waits for it."""

import asyncio
from typing import Any

import pytest

from hurlbat import ConfigError, Hurlbat, Task, WouldDeadlock
from tests.sdk.exchange import a_run, an_app, result_of
from tests.sdk.fake_server import FakeServer, answer, problem, run_json

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.on("POST /runs", answer(200, run_json(output=2)))
    server.on("POST /runs/bulk", answer(200, {"results": [run_json(output=2)]}))
    server.on("GET /runs/r1", answer(200, run_json(output=2)))
    return server


@pytest.fixture
def hurlbat(server: FakeServer) -> Hurlbat:
    hurlbat = an_app()
    server.attach(hurlbat)
    return hurlbat


@pytest.fixture
def double(hurlbat: Hurlbat) -> Task[int, int]:
    @hurlbat.task
    async def double(number: int) -> int:
        return number * 2

    return double


def parents(server: FakeServer) -> list[Any]:
    """Return the parents of the runs that were submitted, in order; `-` for a submit that says nothing of one."""
    bulk = [run for body in server.bodies("POST /runs/bulk") for run in body["runs"]]
    return [body.get("parent", "-") for body in server.bodies("POST /runs") + bulk]


def said(server: FakeServer, member: str) -> list[Any]:
    """Return what was said of a member with each submit, in order; `-` where nothing was."""
    bulk = [run for body in server.bodies("POST /runs/bulk") for run in body["runs"]]
    return [body.get(member, "-") for body in server.bodies("POST /runs") + bulk]


def waiters(server: FakeServer) -> list[str | None]:
    """Return who was said to wait, with each request that looks at a run."""
    return [request.url.params.get("awaited_by") for request in server.requests if request.method == "GET"]


async def test_what_an_async_task_submits_has_its_run_as_parent(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    @hurlbat.task
    async def caller() -> None:
        await double.run(1)
        await double.run_no_wait(1)
        await hurlbat.client.submit("double", 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(double.run(1))
        await double.run_many([1])
        await double.run_many_no_wait([1])
        await double.schedule(1, delay=5)
        await asyncio.to_thread(hurlbat.sync_client.submit, "double", 1)

    result = await result_of(hurlbat, a_run("caller"))
    assert result["state"] == "completed", result
    assert parents(server) == ["run-caller"] * 8


async def test_what_a_task_in_a_thread_submits_has_its_run_as_parent(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    @hurlbat.task
    def caller() -> None:
        double.run_sync(1)
        hurlbat.sync_client.submit("double", 1)
        double.run_many_sync([1])
        double.run_many_no_wait_sync([1])

    result = await result_of(hurlbat, a_run("caller"))
    assert result["state"] == "completed", result
    assert parents(server) == ["run-caller"] * 4


async def test_runs_side_by_side_keep_to_their_own(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    both = asyncio.Barrier(2)

    @hurlbat.task
    async def caller() -> None:
        await both.wait()
        await double.run_no_wait(1)

    await asyncio.gather(*(result_of(hurlbat, a_run("caller", run_id=run)) for run in ("run-a", "run-b")))
    assert sorted(parents(server)) == ["run-a", "run-b"]


async def test_a_parent_that_is_given_counts_and_none_is_none(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    @hurlbat.task
    async def caller() -> None:
        await double.run(1, parent="run-of-another")
        await double.run(1, parent=None)

    assert (await result_of(hurlbat, a_run("caller")))["state"] == "completed"
    await double.run(1, parent="run-of-another")
    await double.run(1)
    assert parents(server) == ["run-of-another", "-", "run-of-another", "-"]


async def test_a_run_of_one_server_is_no_parent_at_another(server: FakeServer, hurlbat: Hurlbat) -> None:
    other, elsewhere = an_app(), FakeServer()
    elsewhere.on("POST /runs", answer(200, run_json(output=2)))
    elsewhere.attach(other)

    @hurlbat.task
    async def caller() -> None:
        await other.client.submit("double", 1)

    assert (await result_of(hurlbat, a_run("caller")))["state"] == "completed"
    assert parents(elsewhere) == ["-"]


async def test_what_a_task_left_behind_has_no_parent(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    over = asyncio.Event()
    left: list[asyncio.Task[None]] = []

    async def later() -> None:
        await over.wait()
        await double.run(1)

    @hurlbat.task
    async def caller() -> None:
        left.append(asyncio.create_task(later()))

    await result_of(hurlbat, a_run("caller"))
    over.set()
    await left[0]
    assert parents(server) == ["-"]


# -- who waits ---------------------------------------------------------------------------------------------------------


async def test_a_task_says_which_of_its_children_it_waits_for(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    @hurlbat.task
    async def caller() -> None:
        await double.run(1)
        await double.run_no_wait(1)
        await hurlbat.client.submit("double", 1)
        await double.schedule(1, delay=5)
        await double.run(1, parent="run-of-another")
        await double.run(1, parent=None)
        await double.run_many([1])
        await double.run_many_no_wait([1])

    result = await result_of(hurlbat, a_run("caller"))
    assert result["state"] == "completed", result
    assert said(server, "awaited") == [True, "-", "-", "-", False, "-", True, "-"]


async def test_nobody_waits_where_no_task_does(server: FakeServer, double: Task[int, int]) -> None:
    await double.run(1)
    await double.run(1, parent="run-of-another")
    await double.run_many([1], parent="run-of-another")
    assert await double.ref("r1").result() == 2
    assert said(server, "awaited") == ["-", False, False]
    assert waiters(server) == [None]


async def test_who_waits_for_a_run_that_is_there_says_so(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    @hurlbat.task
    async def caller() -> None:
        await double.ref("r1").result()
        await hurlbat.client.wait_for("r1")
        await double.ref("r1").status()

    assert (await result_of(hurlbat, a_run("caller")))["state"] == "completed"
    assert waiters(server) == ["run-caller", "run-caller", None]


async def test_who_waits_in_a_thread_says_so(server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]) -> None:
    @hurlbat.task
    def caller() -> None:
        double.run_sync(1)
        double.ref("r1").result_sync()
        double.run_many_sync([1])

    assert (await result_of(hurlbat, a_run("caller")))["state"] == "completed"
    assert said(server, "awaited") == [True, True]
    assert waiters(server) == ["run-caller"]


async def test_who_goes_on_waiting_says_so_again(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int], noted_pauses: list[float]
) -> None:
    server.on("POST /runs", answer(202, run_json("running")))
    server.on("GET /runs/r1", answer(200, run_json("running")), answer(200, run_json(output=2)))

    @hurlbat.task
    async def caller() -> None:
        await double.run(1)

    assert (await result_of(hurlbat, a_run("caller")))["state"] == "completed"
    assert waiters(server) == ["run-caller", "run-caller"]


DEADLOCK = problem(409, "would_deadlock", "double could never start")


@pytest.mark.parametrize("manner", ["run", "run_many", "result"])
async def test_who_would_wait_for_ever_is_told_by_an_error_of_its_own(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int], manner: str
) -> None:
    server.on("POST /runs", DEADLOCK)
    server.on("POST /runs/bulk", answer(200, {"results": [DEADLOCK.json()]}))
    server.on("GET /runs/r1", DEADLOCK)

    @hurlbat.task(retries=5)
    async def caller(catch: bool) -> str:
        try:
            match manner:
                case "run":
                    await double.run(1)
                case "run_many":
                    await double.run_many([1])
                case _:
                    await double.ref("r1").result()
        except WouldDeadlock as error:
            if catch:
                return f"{error.status} {error.code} {error.detail}"
            raise
        return "no"

    caught = await result_of(hurlbat, a_run("caller", True))
    assert caught["output"] == "409 would_deadlock double could never start"
    failed = await result_of(hurlbat, a_run("caller", False, run_id="another"))
    assert (failed["state"], failed["retryable"], failed["error"]["type"]) == ("failed", False, "would_deadlock")
    assert failed["error"]["message"] == "double could never start (409 would_deadlock)"


# -- once --------------------------------------------------------------------------------------------------------------


async def test_a_child_key_goes_alone_and_each_of_many_has_its_own(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int]
) -> None:
    server.on("POST /runs/bulk", answer(200, {"results": [run_json(output=2)] * 2}))

    @hurlbat.task
    async def caller() -> None:
        await double.run(1, child_key="a")
        await double.run_no_wait(1, child_key="b")
        await hurlbat.client.submit("double", 1, child_key="c")
        await double.schedule(1, delay=5, child_key="d")
        await double.run_many([1, 2], child_key="e")

    result = await result_of(hurlbat, a_run("caller"))
    assert result["state"] == "completed", result
    assert said(server, "child_key") == ["a", "b", "c", "d", "e:0", "e:1"]
    assert parents(server) == ["run-caller"] * 6
    bodies = server.raw_bodies("POST /runs") + server.raw_bodies("POST /runs/bulk")[0]["runs"]
    assert [body for body in bodies if "idempotency_key" in body or "idempotency_ttl" in body] == []


async def test_a_submit_with_a_child_key_may_be_repeated_as_long_as_it_takes(
    server: FakeServer, hurlbat: Hurlbat, double: Task[int, int], monkeypatch: pytest.MonkeyPatch, noted_pauses: Any
) -> None:
    monkeypatch.setattr("hurlbat.calls.KEY_SECONDS", 0.0)
    away = problem(503, "starting")
    server.on("POST /runs", away, away, answer(201, run_json()))

    @hurlbat.task
    async def caller(child_key: str | None) -> None:
        if child_key is None:
            await double.run_no_wait(1)
        await double.run_no_wait(1, child_key=child_key or "")

    assert (await result_of(hurlbat, a_run("caller", "k")))["state"] == "completed"
    assert len(server.raw_bodies("POST /runs")) == 3
    server.on("POST /runs", away, answer(201, run_json()))
    assert (await result_of(hurlbat, a_run("caller", None, run_id="another")))["state"] == "failed"


async def test_a_child_key_without_a_parent_or_beside_another_key_is_refused_here(
    server: FakeServer, double: Task[int, int]
) -> None:
    with pytest.raises(ConfigError, match="submit it inside a task, or give the parent"):
        await double.run(1, child_key="k")
    with pytest.raises(ConfigError, match="exclude each other"):
        await double.run(1, child_key="k", idempotency_key="i", parent="run-of-another")
    assert server.requests == []
    await double.run(1, child_key="k", parent="run-of-another")
    assert said(server, "child_key") == ["k"]

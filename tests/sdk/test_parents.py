"""A run that a task submits is linked to the task's own run."""

import asyncio
from typing import Any

import pytest

from hurlbat import Hurlbat, Task
from tests.sdk.exchange import a_run, an_app, result_of
from tests.sdk.fake_server import FakeServer, answer, run_json

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    server.on("POST /runs", answer(200, run_json(output=2)))
    server.on("POST /runs/bulk", answer(200, {"results": [run_json(output=2)]}))
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

    result = await result_of(hurlbat, a_run("caller"))
    assert result["state"] == "completed", result
    assert parents(server) == ["run-caller"] * 6


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

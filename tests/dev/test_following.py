"""Following all runs of a server: each commit is heard of, and who is slow is told how much he has missed."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher import Engine, Mode, Outside, Settings, Submission, WorkerSpec
from hurlbat_dispatcher.following import MOST_RUNS, Following

pytestmark = pytest.mark.anyio


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[Engine]:
    """An engine with a plain worker that echoes."""
    network = httpx.MockTransport(lambda _: httpx.Response(200, json="done"))
    engine = Engine(Settings(database_url=sqlite_url, external_url="http://hurlbat.test"), Outside(network=network))
    await engine.start()
    spec = WorkerSpec("plain", "https://worker.example.com/run", mode=Mode.PLAIN, tasks=(TaskPolicy(name="echo"),))
    await engine.register_worker(spec)
    yield engine
    await engine.stop(0)


async def test_one_who_follows_hears_of_every_run_and_how_it_ends(engine: Engine) -> None:
    heard: dict[str, str | None] = {}
    with engine.follow() as following:
        ids = [(await engine.submit(Submission("echo"))).run.id for _ in range(3)]
        while list(heard.values()) != ["completed"] * 3:
            heard |= (await following.news()).runs

    assert list(heard) == ids


async def test_one_who_has_left_is_told_nothing(engine: Engine) -> None:
    with engine.follow() as stays:
        with engine.follow() as left:
            pass
        await engine.submit(Submission("echo"))
        assert (await stays.news()).runs
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await left.news()


async def test_who_is_slow_is_told_how_many_he_has_missed() -> None:
    following = Following(lambda _: None)
    following.heard([], [(str(number), "completed") for number in range(MOST_RUNS)])
    following.heard(["late"], [("a", "failed"), ("b", "failed"), ("c", "completed"), ("0", "completed")])

    news = await following.news()

    assert len(news.runs) == MOST_RUNS
    assert "late" not in news.runs
    assert news.left_out == {"failed": 2, "completed": 1}

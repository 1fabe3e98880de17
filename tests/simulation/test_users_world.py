"""`hurlbat.testing`: a user's app in a virtual world, by the real engine, handler and client."""

import asyncio
import builtins
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from hurlbat import (
    ApiError,
    Backoff,
    Concurrency,
    ConnectionFailed,
    Context,
    Hurlbat,
    NonRetryable,
    RateLimit,
    RunFailed,
    RunRef,
    RunTimedOut,
)
from hurlbat.testing import Faults, World, WrongLoop, simulated, world_fixture

DAY = 86_400
hurlbat = Hurlbat()
app = FastAPI(lifespan=hurlbat.lifespan)
app.mount("/hurlbat", hurlbat.asgi())
world = world_fixture(hurlbat, app)
stormy = world_fixture(hurlbat, app, seeds=range(4), faults=Faults.from_seed)
seen: list[tuple[str, int]] = []


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Forget what was seen; failures that are made on purpose need no log."""
    seen.clear()
    caplog.set_level(logging.CRITICAL, "hurlbat")


@hurlbat.task
async def add(input: list[int]) -> int:
    """Add numbers."""
    return sum(input)


@hurlbat.task(retries=3, backoff=Backoff(strategy="fixed", initial=600, jitter=False))
async def flaky(ctx: Context) -> int:
    """Succeed at the third attempt."""
    if ctx.attempt < 3:
        raise ValueError("not yet")
    return ctx.attempt


@hurlbat.task(retries=5)
async def remembered(input: str, ctx: Context) -> str:
    """Remember each attempt."""
    seen.append((input, ctx.attempt))
    await asyncio.sleep(1)
    return input


@hurlbat.task(execution_timeout=DAY)
async def slow(input: float) -> str:
    """Take so many seconds."""
    await asyncio.sleep(input)
    return "done"


@hurlbat.task(execution_timeout=30)
async def endless() -> None:
    """Never end."""
    await asyncio.Event().wait()


@hurlbat.task
async def refused() -> None:
    """Fail for good."""
    raise NonRetryable("never")


@hurlbat.task
def in_thread(input: int) -> str:
    """Tell which thread this is."""
    return f"{threading.current_thread().name.partition('_')[0]} {input}"


@hurlbat.task(execution_timeout=3_600)
def calling(input: int) -> str:
    """Call another task from a thread."""
    return in_thread.run_sync(input) + "!"


@hurlbat.task(retries=20)
def passing_on(input: int) -> str:
    """Leave it to another task, from a thread; the client tries again when it is refused."""
    return add.run_no_wait_sync([input], idempotency_key=f"n{input}").id


@hurlbat.task
def busy(input: float) -> None:
    """Take so many real seconds."""
    time.sleep(input)


@hurlbat.task
def waiting_for_a_flag(ctx: Context) -> str:
    """Wait in real time for what only the loop can do."""
    while not ctx.cancelled:
        time.sleep(0.01)
    return "cancelled"


@simulated
async def test_a_task_is_run_by_the_real_server_and_gives_its_output(world: World) -> None:
    assert await add.run([1, 2, 3]) == 6
    [run] = await world.runs()
    assert (run.task, run.state, run.worker) == ("add", "completed", "app")
    assert [entry["kind"] for entry in run.timeline] == ["created", "started", "completed"]


@simulated
async def test_days_pass_in_a_moment_and_what_is_due_happens_at_its_time(world: World) -> None:
    began, real = world.now(), time.monotonic()
    ref = await add.run_no_wait([1], delay=2 * DAY)
    await world.advance(days=1, hours=23, minutes=59)
    assert (await ref.status()).state == "queued"
    await world.advance(days=1)
    run = await ref.status()
    assert run.finished_at is not None
    late = datetime.fromisoformat(run.finished_at) - began - timedelta(days=2)
    assert timedelta(0) < late < timedelta(seconds=1)
    assert time.monotonic() - real < 60


@simulated
async def test_retries_wait_for_their_backoff_in_virtual_time(world: World) -> None:
    ref = await flaky.run_no_wait()
    await world.advance(minutes=9)
    assert (await ref.status()).attempt == 1
    await world.advance(minutes=2)
    assert (await ref.status()).attempt == 2
    assert await ref.result() == 3
    assert [entry["kind"] for entry in (await ref.status()).timeline].count("started") == 3


@simulated
async def test_a_run_that_is_not_sent_in_its_time_is_cancelled(world: World) -> None:
    world.unplug_worker()
    ref = await add.run_no_wait([1], ttl=600)
    await world.advance(minutes=9)
    assert (await ref.status()).state == "queued"
    await world.advance(minutes=2)
    assert (await ref.status()).state == "cancelled"


@simulated
async def test_a_deploy_costs_no_attempt(world: World) -> None:
    world.unplug_worker()
    ref = await refused_once_away()
    await world.advance(minutes=5)
    world.plug_worker()
    await world.drain()
    run = await ref.status()
    assert (run.state, run.tries) == ("completed", 1)


async def refused_once_away() -> RunRef[int]:
    return await add.run_no_wait([4])


@simulated
async def test_a_task_that_takes_too_long_is_stopped_by_virtual_time(world: World) -> None:
    with pytest.raises(RunFailed, match="30 s"):
        await endless.run()


@simulated
async def test_a_failure_for_good_is_not_repeated(world: World) -> None:
    with pytest.raises(RunFailed, match="never"):
        await refused.run()
    [run] = await world.runs(task="refused")
    assert (run.state, run.attempt) == ("failed", 1)


@simulated
async def test_a_task_that_works_for_hours_is_kept_alive_by_its_heartbeats(world: World) -> None:
    assert await slow.run(3_600) == "done"
    [run] = await world.runs()
    assert run.attempt == 1


@simulated
async def test_a_wait_ends_after_its_virtual_seconds(world: World) -> None:
    with pytest.raises(RunTimedOut):
        await slow.run(600, timeout=60)
    await world.drain()
    assert [run.state for run in await world.runs()] == ["completed"]


@simulated
async def test_a_sync_task_runs_in_a_thread_and_may_call_others(world: World) -> None:
    assert await in_thread.run(1) == "hurlbat 1"
    assert await calling.run(2) == "hurlbat 2!"


@simulated
async def test_a_sync_task_that_waits_for_the_world_is_let_go(world: World) -> None:
    ref = await waiting_for_a_flag.run_no_wait()
    await world.advance(seconds=1)
    assert (await ref.cancel()).state == "cancelled"
    await world.advance(seconds=5)
    assert (await add.run([1])) == 1


@simulated
async def test_time_passes_as_it_really_does_beside_a_thread_that_takes_long(world: World) -> None:
    before = world.now()
    await busy.run(0.9)
    assert timedelta(seconds=0.2) < world.now() - before < timedelta(seconds=20)


def test_sync_code_calls_tasks_in_virtual_time(world: World) -> None:
    assert add.run_sync([1, 2]) == 3
    assert flaky.run_sync() == 3
    assert world.now() > datetime(2027, 1, 15, 8, 20, tzinfo=UTC)
    ref = add.run_no_wait_sync([5], delay=DAY)
    world.run(world.advance(days=2))
    assert ref.result_sync() == 5


@simulated
async def test_what_the_server_acknowledged_survives_its_kill(world: World) -> None:
    refs = [await remembered.run_no_wait(str(n)) for n in range(5)]
    await world.advance(seconds=0.5)
    await world.restart_server()
    await world.drain()
    assert [await ref.result() for ref in refs] == [str(n) for n in range(5)]


@simulated
async def test_settle_leaves_alone_what_is_due_later(world: World) -> None:
    soon, later = await remembered.run_no_wait("a"), await remembered.run_no_wait("b", delay=DAY)
    await world.settle()
    assert ((await soon.status()).state, (await later.status()).state) == ("completed", "queued")
    await world.drain()
    assert (await later.status()).state == "completed"


@simulated
async def test_settle_tells_what_does_not_end(world: World) -> None:
    await slow.run_no_wait(4 * 3_600)
    with pytest.raises(TimeoutError, match="still under way: slow"):
        await world.settle()


@simulated
async def test_with_every_seed_of_faults_what_was_acknowledged_ends(stormy: World) -> None:
    refs = []
    for n in range(10):
        with suppress(ApiError, ConnectionFailed):  # as in production, the server may be away
            refs.append(await remembered.run_no_wait(str(n)))
        await stormy.advance(seconds=30)
    stormy.calm()
    await stormy.drain()
    assert refs
    assert {(await ref.status()).state for ref in refs} <= {"completed", "failed"}


def test_a_test_runs_once_for_each_seed(stormy: World, request: pytest.FixtureRequest) -> None:
    assert request.node.name.endswith(f"[seed-{stormy.seed}]")


def test_what_a_test_asks_is_not_lost_on_the_way_but_deliveries_are() -> None:
    with World(hurlbat, app, faults=Faults(refused=1)) as made:
        ref = add.run_no_wait_sync([1, 2])
        made.run(made.advance(seconds=30))
        assert ref.status_sync().state == "queued"
        made.calm()
        assert ref.result_sync() == 3


def history(seed: int) -> list[str]:
    async def main() -> None:
        await asyncio.gather(*(remembered.run_no_wait(str(n)) for n in range(5)))
        for n in range(8):
            await passing_on.run(n)
        await made.advance(hours=1)

    with World(hurlbat, app, seed=seed, faults=Faults(refused=0.3, slow=0.1, duplicated=0.2)) as made:
        made.run(main())
        return made.trace


def test_the_same_seed_gives_the_same_history() -> None:
    first = history(3)
    assert first == history(3)
    assert first != history(4)
    assert any("but duplicated" in line for line in first)


def test_each_world_begins_anew(world: World) -> None:
    assert [(run.id, run.state) for run in world.run(world.runs())] == []


def test_an_app_is_as_before_when_the_world_is_over() -> None:
    before = hurlbat.settings, hurlbat.client, hurlbat.sync_client, hurlbat.workbench
    with World(hurlbat, app):
        assert hurlbat.settings != before[0]
    assert (hurlbat.settings, hurlbat.client, hurlbat.sync_client, hurlbat.workbench) == before


def test_a_world_begins_when_it_is_told_to() -> None:
    with World(hurlbat, begin=datetime(2024, 2, 28, 23, 0, tzinfo=UTC)) as made:
        made.run(made.advance(days=1))
        assert made.now().date() == datetime(2024, 2, 29, tzinfo=UTC).date()
        run = made.run(made.client.get_run(add.run_no_wait_sync([1]).id))
        assert (run.created_at or "").startswith("2024-02-29T23:00:0")


def test_a_beginning_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        World(hurlbat, begin=datetime(2024, 1, 1))  # noqa: DTZ001  # that is what is refused


def test_the_server_takes_settings() -> None:
    with World(hurlbat, app, max_body_bytes=2_000) as made, pytest.raises(Exception, match=r"2,?000"):
        made.run(add.run([1] * 2_000))


def test_an_app_that_does_not_serve_at_the_path_is_told_so() -> None:
    with (
        pytest.raises(RuntimeError, match="the app at /elsewhere/ is no worker"),
        World(hurlbat, app, path="/elsewhere/"),
    ):
        pass
    assert hurlbat.settings.public_url is None


def test_an_app_whose_startup_fails_is_told_so() -> None:
    @asynccontextmanager
    async def broken(_: FastAPI) -> AsyncIterator[None]:
        if seen == []:
            raise KeyError("no database")
        yield

    with pytest.raises(RuntimeError, match="startup failed"), World(hurlbat, FastAPI(lifespan=broken)):
        pass


@pytest.mark.anyio
async def test_another_event_loop_is_refused_with_what_to_do() -> None:
    made = await asyncio.to_thread(World(hurlbat, app).__enter__)
    try:
        with pytest.raises(WrongLoop, match="simulated"):
            await made.advance(seconds=1)
        with pytest.raises(WrongLoop, match="simulated"):
            await add.run([1])
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)


def test_a_test_without_a_world_is_told_so() -> None:
    @simulated
    async def test_nothing() -> None:
        """Need no world."""

    with pytest.raises(TypeError, match="needs one fixture that is a World"):
        test_nothing()


def test_without_the_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("hurlbat", "hurlbat_app")]:
        if name.startswith(("hurlbat.testing", "hurlbat_app.api")):
            monkeypatch.delitem(sys.modules, name)
    real = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name.startswith("hurlbat_app"):
            raise ModuleNotFoundError("No module named 'starlette'", name="starlette")
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'hurlbat\[server\]'"):
        import hurlbat.testing  # noqa: F401  # its import is what is tested


@hurlbat.task(rate_limits=RateLimit("mails"), concurrency=Concurrency("input.to"))
async def mail(input: dict[str, str]) -> str:
    """Send a mail."""
    return input["to"]


@simulated
async def test_limits_and_groups_hold_in_virtual_time(world: World) -> None:
    with pytest.raises(ApiError, match="rate limit"):
        await mail.run_no_wait({"to": "nobody"})
    await world.client.put_rate_limit("mails", 10, 60)
    began = world.now()
    for number in range(25):
        await mail.run_no_wait({"to": f"{number % 3}"})
    await world.advance(seconds=1)
    waiting = (await world.runs(task="mail", state="queued"))[-1]
    assert "rate limit mails" in (await world.client.explain_run(waiting.id))["summary"]
    await world.drain()
    found = await world.runs(task="mail")
    starts = sorted(datetime.fromisoformat(run.started_at) for run in found if run.started_at is not None)
    assert len(starts) == 25
    assert all(later - earlier >= timedelta(seconds=60) for earlier, later in zip(starts, starts[10:], strict=False))
    assert starts[-1] - began < timedelta(seconds=130)

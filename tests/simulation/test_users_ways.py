"""`hurlbat.testing`: crons, events, later runs, debounce and batches in a virtual world, each at its time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hurlbat import ApiError, Context, Cron, Debounce, Filter, Hurlbat, RunFailed, Throttle
from hurlbat.testing import Faults, World, simulated, world_fixture

hurlbat = Hurlbat()
BEGIN = datetime(2027, 3, 26, 12, 0, tzinfo=UTC)
"""Two days before Berlin's clocks go ahead."""
world = world_fixture(hurlbat, path="/", begin=BEGIN)
stormy = world_fixture(hurlbat, path="/", begin=BEGIN, seeds=range(1), faults=Faults.from_seed)


@hurlbat.task(crons=[Cron("0 3 * * *", timezone="Europe/Berlin", input={"of": "yesterday"}, metadata={"by": "cron"})])
async def nightly(input: dict[str, str], ctx: Context) -> Any:
    return [input, ctx.trigger]


@hurlbat.task
async def echo(input: int) -> int:
    return input


@hurlbat.task(on_events="order.*")
async def ship(order: dict[str, int], ctx: Context) -> Any:
    return [order["id"], ctx.trigger and ctx.trigger["key"], ctx.filter_payload]


@hurlbat.task(
    on_events="order.placed",
    filters=[Filter("input.id > payload.least", payload={"least": 3}), Filter(scope="eu", payload="eu")],
)
def bill(order: dict[str, int], ctx: Context) -> Any:
    return ctx.filter_payload


@hurlbat.task(debounce=Debounce(60, key="input.document", max_wait=300))
async def save(draft: dict[str, Any]) -> str:
    return str(draft["text"])


@hurlbat.task(batch_size=3, batch_timeout=30)
async def index(words: list[str]) -> list[str]:
    return words


@hurlbat.task(throttle=Throttle(1, 600))
async def rare(input: int) -> int:
    return input


@hurlbat.task
async def report(failure: dict[str, Any], ctx: Context) -> Any:
    return [failure["run"]["input"], failure["run"]["error"]["type"], ctx.trigger and ctx.trigger["type"]]


@hurlbat.task(on_failure=report)
async def fragile(input: str) -> None:
    raise ValueError(input)


@simulated
async def test_three_days_have_three_nights_by_the_clock_of_berlin(world: World) -> None:
    await world.advance(days=3)
    runs = await world.runs(task="nightly")
    due = [run.trigger["due_at"] for run in runs if run.trigger]
    assert due == ["2027-03-27T02:00:00.000Z", "2027-03-28T01:00:00.000Z", "2027-03-29T01:00:00.000Z"]
    assert [str(run.created_at)[:-4] for run in runs] == [time[:-4] for time in due]
    assert [run.output for run in runs] == [[{"of": "yesterday"}, run.trigger] for run in runs]
    assert runs[0].metadata == {"by": "cron"}


@simulated
async def test_a_cron_is_made_triggered_paused_resumed_and_deleted(world: World) -> None:
    ref = await echo.cron("30 * * * *", input=7, timezone="Asia/Kolkata")
    assert await ref.next_times(2) == [BEGIN + timedelta(hours=1), BEGIN + timedelta(hours=2)]
    assert (await echo.cron("30 * * * *", input=7, timezone="Asia/Kolkata")).name == ref.name
    await world.advance(hours=2)
    assert [run.output for run in await world.runs(task="echo")] == [7, 7]
    await ref.pause()
    await world.advance(hours=2)
    await ref.resume()
    assert len(await world.runs(task="echo")) == 2
    assert await (await ref.trigger()).result() == 7
    await world.advance(hours=1)
    assert len(await world.runs(task="echo")) == 4
    await ref.delete()
    await world.advance(days=1)
    assert len(await world.runs(task="echo")) == 4


@simulated
async def test_a_server_that_is_away_at_the_time_makes_up_for_it_once(world: World) -> None:
    ref = await echo.cron("*/10 * * * *", input=1, missed="once")
    await world.advance(minutes=25)
    await world.restart_server()
    await world.advance(minutes=10)
    assert len(await world.runs(task="echo")) == 3
    await ref.delete()


@simulated
async def test_an_event_starts_a_run_for_each_task_and_each_filter_that_is_true(world: World) -> None:
    event = await hurlbat.events.push("order.placed", {"id": 7}, scope="eu")
    assert sorted((start.task, start.outcome) for start in event.starts) == [
        ("bill", "started"),
        ("bill", "started"),
        ("ship", "started"),
    ]
    await world.settle()
    assert (await world.runs(task="ship"))[0].output == [7, "order.placed", None]
    assert [run.output for run in await world.runs(task="bill")] == [{"least": 3}, "eu"]
    small = await hurlbat.events.push("order.placed", {"id": 1}, id="once")
    again = await hurlbat.events.push("order.placed", {"id": 1}, id="once")
    assert (small.runs, small.id) == (again.runs, again.id)
    assert len(small.runs) == 1
    assert [start.task for start in small.starts if start.outcome == "filtered"] == ["bill"]
    pushed = await hurlbat.events.push_many([{"key": "order.gone", "payload": {"id": n}} for n in range(5)])
    assert [len(event.runs) for event in pushed] == [1] * 5
    assert (await hurlbat.events.push("nobody.listens")).starts == ()


def test_sync_code_pushes_events_and_schedules(world: World) -> None:
    event = hurlbat.events.push_sync("order.placed", {"id": 1})
    assert ship.ref(event.runs[0]).result_sync() == [1, "order.placed", None]
    ref = echo.schedule_sync(5, at=BEGIN + timedelta(days=1))
    ref.move_sync(delay=60)
    assert ref.result_sync(timeout=120) == 5


@simulated
async def test_a_run_for_later_is_moved(world: World) -> None:
    ref = await echo.schedule(1, at=BEGIN + timedelta(days=1))
    await ref.move(BEGIN + timedelta(days=2), priority=3)
    await world.advance(days=1, hours=1)
    assert (await ref.status()).state == "queued"
    await world.advance(days=1)
    run = await ref.status()
    assert (run.state, run.due_at, run.priority) == ("completed", "2027-03-28T12:00:00.000Z", 3)
    assert str(run.started_at).startswith("2027-03-28T12:00:00.0")


@simulated
async def test_what_is_debounced_runs_once_when_it_is_quiet(world: World) -> None:
    first = await save.run_no_wait({"document": "a", "text": "h"})
    await world.advance(seconds=50)
    second = await save.run_no_wait({"document": "a", "text": "hello"})
    other = await save.run_no_wait({"document": "b", "text": "other"})
    assert (first.id == second.id, first.id == other.id) == (True, False)
    await world.advance(seconds=50)
    assert (await first.status()).state == "queued"
    assert (await first.result(), await other.result()) == ("hello", "other")


@simulated
async def test_a_batch_is_complete_or_its_time_is_over(world: World) -> None:
    assert await index.run_many(["a", "b", "c"], timeout=1) == [["a", "b", "c"]] * 3
    began = world.now()
    assert await index.run("d") == ["d"]
    assert timedelta(seconds=30) <= world.now() - began < timedelta(seconds=31)


@simulated
async def test_a_throttled_task_starts_once_in_a_while(world: World) -> None:
    began = world.now()
    assert await rare.run_many([1, 2, 3]) == [1, 2, 3]
    assert timedelta(minutes=20) <= world.now() - began < timedelta(minutes=21)


@simulated
async def test_a_failure_calls_its_task(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunFailed):
        await fragile.run("glass")
    await world.settle()
    assert [run.output for run in await world.runs(task="report")] == [["glass", "ValueError", "failure"]]


@simulated
async def test_whatever_goes_wrong_each_night_has_its_run(stormy: World) -> None:
    await stormy.advance(days=3)
    stormy.calm()
    await stormy.drain()
    due = [run.trigger["due_at"] for run in await stormy.runs(task="nightly") if run.trigger]
    assert due == ["2027-03-27T02:00:00.000Z", "2027-03-28T01:00:00.000Z", "2027-03-29T01:00:00.000Z"]


@simulated
async def test_the_client_looks_after_schedules(world: World) -> None:
    client = world.client
    once = await client.create_schedule("echo", run_at=BEGIN + timedelta(hours=2), input=5, name="once")
    assert (once.task, once.expression, once.next_at) == ("echo", None, "2027-03-26T14:00:00.000Z")
    hourly = await client.create_schedule("echo", "@hourly", input=6, name="hourly", priority=3, metadata={"a": 1})
    changed = await client.update_schedule("hourly", expression="30 * * * *", input=7, overlap="skip")
    assert (hourly.next_at, changed.next_at) == ("2027-03-26T13:00:00.000Z", "2027-03-26T12:30:00.000Z")
    assert (changed.priority, changed.metadata, changed.input) == (3, {"a": 1}, 7)
    await client.pause_schedule("nightly.0")
    names = [one.name for one in (await client.list_schedules()).items]
    assert sorted(names) == ["hourly", "nightly.0", "once"]
    assert [one.name for one in (await client.list_schedules(task="echo", paused=False)).items] == ["hourly", "once"]
    assert [one.source for one in (await client.list_schedules(paused=True)).items] == ["task"]
    assert await client.preview_schedule("0 12 * * *", "Europe/Berlin", 1) == [BEGIN + timedelta(hours=23)]
    await world.advance(hours=3)
    fires = (await client.list_fires("hourly", limit=1)).items
    assert [(fire["due_at"], fire["outcome"]) for fire in fires] == [("2027-03-26T14:30:00.000Z", "started")]
    assert sorted(run.output for run in await world.runs(task="echo")) == [5, 7, 7, 7]
    with pytest.raises(ApiError, match="schedule_of_task"):
        await client.delete_schedule("nightly.0")
    with pytest.raises(ApiError, match="schedule_exists"):
        await echo.cron("@daily", input=1, name="hourly")
    with pytest.raises(ApiError, match="expression"):
        await echo.cron("0 0 30 2 *", input=1)


@simulated
async def test_the_client_looks_after_events_and_filters(world: World) -> None:
    client = world.client
    added = await client.add_filter("bill", "input.id == 1", payload={"one": True})
    assert [one["source"] for one in await client.list_filters("bill")] == ["task", "task", "api"]
    first = await client.push_event("order.placed", {"id": 1}, metadata={"a": 1})
    await world.settle()
    assert [run.output for run in await world.runs(task="bill")] == [{"one": True}]
    await client.delete_filter("bill", added["id"])
    again = await client.replay_event(first.id)
    assert (again.replay_of, again.payload, again.metadata) == (first.id, {"id": 1}, {"a": 1})
    assert (await client.get_event(first.id)).runs == first.runs
    listed = (await client.list_events(key="order.placed")).items
    assert [event.id for event in listed] == [again.id, first.id]


@simulated
async def test_the_client_moves_cancels_and_replays_many_runs(world: World) -> None:
    client = world.client
    refs = [await echo.schedule(number, delay=60 * number) for number in (1, 2, 3)]
    assert [run.id for run in (await client.list_runs(delayed=True)).items] == [ref.id for ref in reversed(refs)]
    assert await client.cancel_runs(task="echo", state="queued", dry_run=True) == {"matched": 3}
    cancelled = await client.cancel_runs(ids=[ref.id for ref in refs[:2]], reason="enough")
    await world.advance(seconds=1)
    assert (await client.get_operation(cancelled["id"]))["done"] == 2
    assert [(await ref.status()).reason for ref in refs] == ["enough", "enough", None]
    replayed = await client.replay_runs(state=["cancelled", "failed"], created_after=BEGIN)
    assert [one["id"] for one in (await client.list_operations()).items] == [replayed["id"], cancelled["id"]]
    await world.drain()
    assert [(await ref.status()).output for ref in refs] == [1, 2, 3]

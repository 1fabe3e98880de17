"""Attempts as people look into them: what was sent, what came back, and what was made of it."""

import json

import httpx
import pytest

from hurlbat.wire import FailedLine
from hurlbat_dispatcher import Engine, NotFound, Outside, RunState
from hurlbat_dispatcher.attempts import AttemptView
from hurlbat_dispatcher.loops.retention import Retention
from hurlbat_dispatcher.turn.operations import Refresh
from tests.engine.far_side import Call, Output, accepted, marked
from tests.engine.world import World, refused, settings_for

pytestmark = pytest.mark.anyio

TWICE = {"name": "echo", "retries": 1, "backoff": {"strategy": "fixed", "initial": 0, "jitter": False}}


async def _once_bad(call: Call) -> Output:
    return call.failed("no such key", type="KeyError") if call.attempt == 1 else '{"b":1,  "a":2}'


async def _look(world: World, run_id: str, number: int) -> AttemptView:
    """Look at an attempt when its delivery is over, too, and all that it told is stored."""
    await world.until(lambda: not world.parts.outbox._tasks)
    for _ in range(2):  # what meets another change of its run in a turn comes in the next one
        await world.do(Refresh())
    return await world.engine.attempts.get(run_id, number)


async def test_an_attempt_shows_what_was_sent_and_what_came_and_hides_what_opens_doors(world: World) -> None:
    worker = await world.worker("w", "echo")
    run = await world.ended(await world.submit("echo", '{"n": 1.10, "big": 123456789012345678901234567890}'))

    view = await _look(world, run.id, 1)

    assert view.delivery is not None
    assert view.message is not None
    sent, came = view.delivery["request"], view.delivery["response"]
    received = worker.headers[0]
    assert sent["url"] == worker.url
    assert sent["runs"] == 1
    assert sent["bytes"] == int(received["content-length"])
    assert view.attempt.delivery == sent["headers"]["webhook-id"] == received["webhook-id"]
    assert sent["headers"]["webhook-timestamp"] == received["webhook-timestamp"]
    assert sent["headers"]["hurlbat-key-ids"] == received["hurlbat-key-ids"]
    assert sent["headers"]["webhook-signature"] == "…"
    assert received["webhook-signature"] not in json.dumps(view.delivery)
    assert '"input":{"n": 1.10, "big": 123456789012345678901234567890}' in view.message
    assert worker.calls[0].lease_token not in view.message + json.dumps(view.delivery)
    assert json.loads(view.message)["data"]["runs"][0]["report_url"] == worker.calls[0].report_url
    assert came["status"] == 200
    assert came["headers"]["hurlbat-worker"] == "manifest-1"
    assert '"type":"result"' in came["body"].replace(" ", "")
    assert (came["bytes"], came["cut"]) == (len(came["body"].encode()), False)
    assert view.delivery["timings"]["total"] >= 0
    assert view.delivery["trouble"] is None
    assert (view.attempt.state, view.attempt.charged) == ("completed", True)
    assert view.sentence == "It was completed by worker w; what it gave is the output of the run."


async def test_every_attempt_of_a_run_has_its_own_delivery_and_sentence(world: World) -> None:
    worker = await world.worker("w", TWICE)
    worker.work = _once_bad
    run = await world.ended(await world.submit())

    first, second = await _look(world, run.id, 1), await _look(world, run.id, 2)

    assert (first.attempt.state, first.attempt.charged, first.attempt.code) == ("failed", True, "task_error")
    assert first.sentence == ("It failed (task_error: no such key) as try 1 of 2; the run was due again.")
    assert first.attempt.delivery == worker.headers[0]["webhook-id"]
    assert (second.attempt.state, second.attempt.code) == ("completed", None)
    assert second.attempt.delivery == worker.headers[1]["webhook-id"]
    listed = await world.engine.attempts.list(run.id, limit=1)
    assert [one.attempt.attempt for one in listed.items] == [2]
    assert listed.next_cursor is not None
    rest = await world.engine.attempts.list(run.id, cursor=listed.next_cursor)
    assert [(one.attempt.attempt, one.delivery) for one in rest.items] == [(1, None)]
    assert rest.next_cursor is None


async def test_after_a_replay_an_attempt_shows_what_was_sent_to_it_then(world: World) -> None:
    worker = await world.worker("w", TWICE)
    run = await world.ended(await world.submit())
    await world.engine.replay_run(run.id)
    run = await world.ended(run.id)
    sent = [call.max_attempts for call in worker.calls]

    messages = [(await _look(world, run.id, number)).message for number in (1, 2)]

    assert sent == [2, 3]  # one try was used of two, and as many are allowed again
    assert [json.loads(one or "")["data"]["runs"][0]["max_attempts"] for one in messages] == sent
    timeline = (await world.engine.get_run(run.id)).timeline
    assert all("max_attempts" not in row.detail for row in timeline)  # that is the run's own affair


async def test_what_another_server_has_sent_is_shown_once_it_is_stored(owner: World, other: World) -> None:
    await owner.worker("w", "echo")
    run = await owner.ended(await owner.submit("echo", '"x"'))
    await owner.until(lambda: not owner.parts.outbox._tasks and not other.parts.outbox._tasks)
    for server in (owner, other):
        await server.parts.deliveries.flush()

    shown = [await server.engine.attempts.get(run.id, 1) for server in (owner, other)]

    assert shown[0] == shown[1]
    assert shown[0].delivery is not None


async def test_of_a_plain_worker_the_words_of_an_error_are_kept(world: World) -> None:
    worker = await world.worker("w", "echo", plain=True)

    async def answer(_: list[Call]) -> httpx.Response:
        return httpx.Response(500, text="<h1>Oops</h1>" + "x" * 9_000, headers={"set-cookie": "session=secret"})

    worker.answer = answer
    run = await world.ended(await world.submit())

    view = await _look(world, run.id, 1)

    assert view.delivery is not None
    came = view.delivery["response"]
    assert (came["status"], came["body"][:13], len(came["body"])) == (500, "<h1>Oops</h1>", 4_096)
    assert came["cut"] is True
    assert came["headers"]["set-cookie"] == "…"
    assert view.attempt.delivery == f"{run.id}.1"
    assert view.attempt.code == "http_error"
    assert view.sentence.startswith("It failed (http_error: the worker answered 500: <h1>Oops</h1>")
    assert view.sentence.endswith(", and the run with it.")


async def test_what_was_never_sent_says_so_and_has_no_answer(world: World) -> None:
    worker = await world.worker("w", "echo")
    worker.away = httpx.ConnectError("connection refused")
    run = await world.submit()
    await world.put_back(run, "not_sent")

    view = await _look(world, run.id, 1)

    assert (view.attempt.state, view.attempt.charged) == ("put_back", False)
    assert view.sentence.startswith("Nothing was sent (connect_refused: connection refused).")
    assert view.delivery is not None
    assert view.delivery["response"] is None
    assert view.delivery["trouble"] == "connection refused"


async def test_a_worker_without_room_and_one_that_refuses_are_told_apart(world: World) -> None:
    worker = await world.worker("w", "echo")
    worker.answer = lambda _: _answer(marked(503, b"busy", retry_after="3600"))
    run = await world.submit()
    await world.put_back(run, "pushed_back")
    assert (await _look(world, run.id, 1)).sentence.startswith("The worker had no room for it (")
    other = await world.worker("v", "other")
    other.answer = lambda _: _answer(marked(401, b"who is that?"))
    held = await world.submit("other")
    await world.put_back(held, "held")
    assert (await _look(world, held.id, 1)).sentence.startswith("The worker refused everything, and its runs are held")


async def _answer(response: httpx.Response) -> httpx.Response:
    return response


async def test_an_attempt_that_reported_later_and_one_that_was_cancelled_know_their_delivery(world: World) -> None:
    worker = await world.worker("w", "echo")
    worker.answer = lambda _: _answer(accepted())
    reported = await world.submit()
    await world.until_detached(reported)
    call = worker.calls[0]
    await world.engine.report_fail(call.run_id, 1, call.lease_token, FailedLine("", 0, "Late", "too late"), b"x")
    view = await _look(world, reported.id, 1)
    assert view.attempt.delivery == worker.headers[0]["webhook-id"]
    assert view.delivery is not None
    assert view.delivery["response"]["status"] == 202

    worker.answer, worker.work = None, worker.held
    cancelled = await world.submit()
    await world.until(lambda: len(worker.open) == 1)
    await world.engine.cancel_run(cancelled.id, reason="not wanted")
    await world.until_run(cancelled, lambda found: found.state is RunState.CANCELLED)
    view = await _look(world, cancelled.id, 1)
    assert view.sentence == "The run was cancelled while it ran: not wanted."
    assert view.attempt.delivery == worker.headers[1]["webhook-id"]


async def test_an_attempt_that_runs_has_not_the_delivery_of_the_one_before(world: World) -> None:
    worker = await world.worker("w", "echo")

    async def once_bad_then_slow(call: Call) -> Output:
        return call.failed() if call.attempt == 1 else await worker.held(call)

    worker.work = once_bad_then_slow
    run = await world.ended(await world.submit())
    await world.engine.replay_run(run.id)
    await world.until(lambda: len(worker.open) == 1)

    view = await world.engine.attempts.get(run.id, 2)

    assert (view.attempt.state, view.attempt.charged, view.attempt.delivery) == ("running", None, None)
    worker.gate.set()
    await world.until_run(run, lambda found: found.state is RunState.COMPLETED)


async def test_a_replay_keeps_what_the_life_before_was_sent(world: World) -> None:
    worker = await world.worker("w", "echo")
    worker.work = _once_bad
    run = await world.ended(await world.submit())
    first = await _look(world, run.id, 1)
    await world.engine.replay_run(run.id)
    await world.until_run(run, lambda found: found.state is RunState.COMPLETED)

    again = await _look(world, run.id, 1)

    assert (again.attempt, again.sentence, again.delivery) == (first.attempt, first.sentence, first.delivery)
    assert first.sentence == "It failed (task_error: no such key), and the run with it."
    assert (await _look(world, run.id, 2)).attempt.delivery != first.attempt.delivery


async def test_an_attempt_that_is_not_there_is_told(world: World) -> None:
    await world.worker("w", "echo")
    run = await world.ended(await world.submit())
    for number in (0, 2):
        problem = await refused(world.engine.attempts.get(run.id, number))
        assert isinstance(problem, NotFound)
        assert problem.code == "attempt_unknown"
        assert "has had 1 attempts" in problem.detail
    unknown = await refused(world.engine.attempts.get("0" * 36, 1))
    assert isinstance(unknown, NotFound)
    assert unknown.code == "run_unknown"


async def test_where_much_is_sent_what_went_wrong_is_kept_first(local: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.deliveries.MOST_CLEAN", 2)
    monkeypatch.setattr("hurlbat_dispatcher.deliveries.FLUSH_SECONDS", 3600.0)
    worker = await local.worker("w", "echo", max_batch=1)
    good = [await local.ended(await local.submit()) for _ in range(3)]
    worker.answer = lambda _: _answer(marked(500, b"boom"))
    bad = await local.ended(await local.submit())

    kept = [(await _look(local, run.id, 1)).delivery is not None for run in (*good, bad)]

    assert kept == [True, True, False, True]


async def test_deliveries_go_after_their_time_and_nothing_is_kept_where_that_is_none(world: World) -> None:
    await world.worker("w", "echo")
    run = await world.ended(await world.submit())
    assert (await _look(world, run.id, 1)).delivery is not None
    await world.parts.deliveries.flush()
    keep = Retention(1, world.parts.database, world.parts.clock, seconds=0, delivery_seconds=3600)
    await keep.run_once()
    assert (await _look(world, run.id, 1)).delivery is not None
    drop = Retention(1, world.parts.database, world.parts.clock, seconds=0, delivery_seconds=-3600)
    await drop.run_once()

    view = await _look(world, run.id, 1)

    assert (view.delivery, view.message) == (None, None)
    assert view.sentence.startswith("It was completed by worker w")


async def test_a_server_that_stops_stores_what_it_sent_last(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hurlbat_dispatcher.deliveries.FLUSH_SECONDS", 3600.0)
    async with World(sqlite_url) as world:
        await world.worker("w", "echo")
        run = await world.ended(await world.submit())
    engine = Engine(settings_for(sqlite_url), Outside(network=world.network.transport()))
    await engine.start()
    view = await engine.attempts.get(run.id, 1)
    await engine.stop(0)
    assert view.delivery is not None


async def test_nothing_is_kept_where_nobody_wants_it(sqlite_url: str) -> None:
    async with World(sqlite_url, delivery_retention=0) as world:
        await world.worker("w", "echo")
        run = await world.ended(await world.submit())
        view = await _look(world, run.id, 1)
    assert (view.attempt.delivery, view.delivery) == (None, None)

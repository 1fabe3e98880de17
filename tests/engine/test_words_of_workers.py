"""What a worker's answer says of rate limits, and what a run says of its parent, arrives where it counts."""

import httpx
import pytest

from hurlbat_dispatcher import Invalid, RunState
from tests.engine.far_side import Answer, Call, Output, lines, marked
from tests.engine.world import World

pytestmark = pytest.mark.anyio

LIMIT = {"dynamic_key": "input.host", "limit": 100, "duration": 1}
FETCH = {"name": "fetch", "rate_limits": [LIMIT], "retries": 3}
HOST = '{"host": "cdn"}'
NOBODY = "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10"


def marked_429(key: str) -> httpx.Response:
    return marked(429, retry_after="60", hurlbat_rate_limit_key=key)


def problem_503(key: str) -> httpx.Response:
    body = f'{{"title": "closed", "rate_limit_key": "{key}"}}'.encode()
    return marked(503, body, retry_after="60", content_type="application/problem+json")


def plain_429(key: str) -> httpx.Response:
    return httpx.Response(429, headers={"retry-after": "60", "hurlbat-rate-limit-key": key})


WAYS = {"marked": marked_429, "problem": problem_503, "plain": plain_429}


@pytest.mark.parametrize("way", WAYS)
async def test_a_key_that_an_answer_names_waits_at_every_worker_and_nothing_else_does(world: World, way: str) -> None:
    worker = await world.worker("a", FETCH, plain=way == "plain", answer=_once(WAYS[way]("cdn")))
    run = await world.submit("fetch", HOST)
    await world.put_back(run, "pushed_back")

    held = await world.submit("fetch", HOST)
    free = await world.submit("fetch", '{"host": "elsewhere"}')
    await world.ended(free)
    other = await world.worker("b", FETCH)
    await world.ended(await world.submit("fetch", '{"host": "elsewhere"}'))

    assert {"host": "cdn"} not in [call.input for call in other.calls]
    assert [call.run_id for call in worker.calls][:2] == [run.id, free.id]
    assert (await world.engine.get_run(held.id)).state is RunState.QUEUED


async def test_a_key_that_a_report_names_waits(world: World) -> None:
    worker = await world.worker("a", FETCH, answer=_once(marked(202)))
    run = await world.submit("fetch", HOST)
    await world.until_detached(run)
    [call] = worker.calls
    failure = call.failed(retry_after=60.0, rate_limit_key="cdn")
    await world.engine.report_fail(run.id, 1, call.lease_token, failure, b"1")

    held = await world.submit("fetch", HOST)
    free = await world.submit("fetch", '{"host": "elsewhere"}')

    await world.ended(free)
    assert (await world.engine.get_run(held.id)).state is RunState.QUEUED


async def test_a_key_that_the_run_does_not_draw_on_is_not_paused(world: World) -> None:
    async def work(call: Call) -> Output:
        return call.failed(retryable=False, retry_after=60.0, rate_limit_key="cdn") if call.task == "other" else "1"

    await world.worker("a", FETCH, "other", work=work)
    await world.ended(await world.submit("other"))
    assert (await world.ended(await world.submit("fetch", HOST))).state is RunState.COMPLETED


async def test_a_parent_must_be_there_and_nothing_is_stored_without_it(world: World) -> None:
    await world.worker()
    with pytest.raises(Invalid) as refused:
        await world.submit("echo", parent=NOBODY)
    assert (refused.value.code, refused.value.extra["field"]) == ("parent_unknown", "parent")
    assert await world.rows("SELECT count(*) FROM run") == [(0,)]


async def test_a_parent_is_kept_and_makes_no_other_run_of_a_repeat(world: World) -> None:
    await world.worker()
    parents = [await world.submit("echo") for _ in range(2)]
    child, again = [await world.submit("echo", parent=parent.id, idempotency_key="k", delay=60) for parent in parents]
    assert child.id == again.id
    [(kept,)] = await world.rows(f"SELECT parent FROM run WHERE id = '{child.id}'")
    assert str(kept) == parents[0].id


def _once(response: httpx.Response) -> Answer:
    """Answer the first delivery with this, and complete the others."""
    listed = [response]

    async def answer(calls: list[Call]) -> httpx.Response:
        return listed.pop() if listed else lines(*(call.completed() for call in calls))

    return answer

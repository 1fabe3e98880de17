"""What flow control must not get wrong, found by those who tried to break it."""

import json
from typing import Any

import pytest

from hurlbat_dispatcher.neighbours import Neighbours
from tests.engine.far_side import Call, marked
from tests.engine.world import World

pytestmark = pytest.mark.anyio


def ranked(strategy: str, **more: Any) -> dict[str, Any]:
    """Return a task of which one run of all lives at a time."""
    backoff = {"strategy": "fixed", "initial": 600, "jitter": False}
    rule = {"key": "'x'", "max_runs": 1, "strategy": strategy}
    return {"name": "echo", "retries": 3, "backoff": backoff, "concurrency": [rule], **more}


@pytest.mark.parametrize("heard", [True, False])
async def test_a_run_that_another_server_put_back_does_not_run(
    owner: World, other: World, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    if not heard:
        monkeypatch.setattr(Neighbours, "_do", _without("back"))
    worker = await owner.worker("w", ranked("CANCEL_NEWEST"), slots=8)
    worker.work = _fails
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    first = await other.submit(input="1")
    await other.put_back(first, "retry")
    await owner.until(lambda: not owner.parts.desk.picture.running)
    if heard:
        await owner.until(lambda: not owner.parts.desk.picture.members[first.id].running)

    kept = await owner.submit(input="2")

    assert (await owner.ended(kept)).state == "completed"


async def test_a_start_that_was_none_leaves_a_run_never_started_for_whoever_did_not_send_it(
    owner: World, other: World
) -> None:
    worker = await owner.worker("w", ranked("QUEUE_OLDEST_ONLY"), slots=8)

    async def refuses(_: list[Call]) -> Any:
        return marked(429, retry_after="600")

    worker.answer = refuses
    await other.until(lambda: "echo" in other.parts.registry.tasks)
    first = await other.submit(input="1")
    await other.put_back(first, "pushed_back")
    await owner.until(lambda: not owner.parts.desk.picture.members[first.id].running)

    refused = await owner.submit(input="2")

    assert (await owner.ended(refused)).reason == "concurrency"


async def test_a_retry_that_could_not_be_sent_has_started_also_after_a_restart(local: World) -> None:
    worker = await local.worker("w", ranked("QUEUE_NEWEST_ONLY"), slots=8)
    worker.work = _fails
    first = await local.submit(input="1")
    await local.put_back(first, "retry")

    async def refuses(_: list[Call]) -> Any:
        return marked(429, retry_after="600")

    answered, worker.answer = worker.answer, refuses
    await local.time_comes(first, "due_at")
    await local.put_back(first, "pushed_back")
    local.parts.writer._stale = True  # it is read anew, as after a restart
    worker.answer = answered

    await local.submit(input="2")
    await local.turns()

    assert (await local.engine.get_run(first.id)).state == "queued"
    await local.engine.cancel_run(first.id)


async def test_a_replayed_run_that_could_not_be_sent_never_started(local: World) -> None:
    worker = await local.worker("w", ranked("QUEUE_NEWEST_ONLY"), slots=8)
    first = await local.ended(await local.submit(input="2"))

    async def refuses(_: list[Call]) -> Any:
        return marked(429, retry_after="600")

    answered, worker.answer = worker.answer, refuses
    await local.engine.replay_run(first.id)
    await local.put_back(first.id, "pushed_back")
    local.parts.writer._stale = True
    worker.answer = answered

    await local.submit(input="2")

    assert (await local.ended(first.id)).reason == "concurrency"


async def _fails(call: Call) -> Any:
    return call.failed("no") if call.input == 1 else json.dumps(call.input)


def _without(word: str) -> Any:
    do = Neighbours._do
    return lambda neighbours, said: do(neighbours, {kind: news for kind, news in said.items() if kind != word})

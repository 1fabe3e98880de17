"""What tests of gathering have in common: policies, submits, and time that passes.

Time is never waited out: what is stored is moved into the past, by steps that meet no limit exactly.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

from hurlbat_dispatcher import Accepted, Submission
from hurlbat_dispatcher.loops.retention import Retention
from tests.engine.far_side import Call
from tests.engine.world import World

TRAILING: Final = {"debounce": {"period": 1000, "key": "input.k", "max_wait": 2500}}
LEADING: Final = {"debounce": {"period": 1000, "key": "input.k", "mode": "leading"}}
BATCH: Final = {"batch_size": 3, "batch_timeout": 1000, "batch_key": "input.k"}


def policy(**more: Any) -> dict[str, Any]:
    return {"name": "echo"} | more


def said(n: int, key: str | None = "a") -> str:
    """Return the n-th input of a key."""
    return json.dumps({"k": key, "n": n})


async def submit(world: World, n: int, key: str | None = "a", **more: Any) -> Accepted:
    return await world.engine.submit(Submission("echo", said(n, key), **more))


async def submit_all(world: World, numbers: Sequence[int], key: str = "a") -> list[Accepted]:
    outcomes = await world.engine.submit_many([Submission("echo", said(n, key)) for n in numbers])
    return [one for one in outcomes if isinstance(one, Accepted)]


async def passes(world: World, seconds: int) -> None:
    """Let so much time pass for what waits, and the engine see it."""
    ms = seconds * 1000
    await world.change(f"UPDATE gathering SET first_at = first_at - {ms}, until = until - {ms}")
    await world.change(f"UPDATE idempotency SET until = until - {ms}")
    await world.change(
        f"UPDATE run SET created_at = created_at - {ms}, due_at = due_at - {ms}, rank = rank - {ms}, "
        f"ttl_at = ttl_at - {ms}, expires_at = expires_at - {ms} WHERE state = 'queued' AND attempt = 0"
    )
    await world.tick()


async def retain(world: World) -> None:
    """Remove what is to be removed."""
    await Retention(1, world.parts.database, world.parts.clock, seconds=0.001).run_once()


async def count_runs(world: World) -> int:
    [[count]] = await world.rows("SELECT count(*) FROM run")
    return int(count)


def numbers(call: Call) -> list[int]:
    return [item["n"] for item in call.input]

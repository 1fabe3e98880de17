"""Events as the tests publish them, who listens to them, and what came of it."""

import json
from typing import Any

from hurlbat_dispatcher import (
    Event,
    EventSpec,
    Run,
)
from tests.engine.world import World


async def publish(world: World, key: str, payload: Any = None, **more: Any) -> Event:
    """Publish an event; its payload is made JSON."""
    text = "{}" if payload is None else json.dumps(payload)
    return (await world.engine.events.publish(EventSpec(key, text, **more))).event


def started(event: Event) -> list[str]:
    """Return the tasks that an event has started."""
    return [start.task for start in event.starts if start.outcome == "started"]


def outcomes(event: Event) -> list[tuple[str | None, str, str | None]]:
    """Return what came of each filter, and why."""
    return [(start.filter, start.outcome, start.reason) for start in event.starts]


async def runs_of(world: World, event: Event) -> list[Run]:
    """Wait for the ends of the runs that an event has started."""
    return await world.all_ended([start.run for start in event.starts if start.run is not None])


async def count(world: World, table: str = "run") -> int:
    [[number]] = await world.rows(f"SELECT count(*) FROM {table}")
    return int(number)


def listens(name: str, *keys: str, **more: Any) -> dict[str, Any]:
    """Return the policy of a task that listens to keys."""
    return {"name": name, "on_events": list(keys)} | more


def filters(*expressions: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Return filters as a policy has them."""
    return [{"expression": one} if isinstance(one, str) else one for one in expressions]

"""Durable background tasks, pushed over signed HTTP to the web app that you already have.

    hurlbat = Hurlbat()

    @hurlbat.task(retries=3)
    async def resize(input: Resize, ctx: Context) -> Thumbnail: ...

    app.mount("/hurlbat", hurlbat.asgi())
    thumbnail = await resize.run(Resize(url=...))

Names are imported when they are first used, so that `import hurlbat` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hurlbat.app import Hurlbat
    from hurlbat.client import AsyncClient
    from hurlbat.context import Context
    from hurlbat.depends import Depends
    from hurlbat.errors import (
        ApiError,
        BlockingCall,
        Cancelled,
        CancelRun,
        ConfigError,
        ConnectionFailed,
        HurlbatError,
        NonRetryable,
        PayloadError,
        RetryAfter,
        RunCancelled,
        RunError,
        RunFailed,
        RunTimedOut,
        WouldDeadlock,
    )
    from hurlbat.events import Event
    from hurlbat.graph import AnyOf, OnEvent, Sleep, When, any_of
    from hurlbat.policy import Backoff, Concurrency, RateLimit
    from hurlbat.refs import RunRef, ScheduleRef
    from hurlbat.runs import Run
    from hurlbat.schedules import Schedule
    from hurlbat.sync_client import Client
    from hurlbat.task import Task
    from hurlbat.triggers import Cron, Debounce, Filter, Throttle
    from hurlbat.workflow import Node, Workflow

    __version__: str

_HOMES = {
    "Hurlbat": "app",
    "AsyncClient": "client",
    "Client": "sync_client",
    "Context": "context",
    "Depends": "depends",
    "ApiError": "errors",
    "BlockingCall": "errors",
    "Cancelled": "errors",
    "CancelRun": "errors",
    "ConfigError": "errors",
    "ConnectionFailed": "errors",
    "HurlbatError": "errors",
    "NonRetryable": "errors",
    "PayloadError": "errors",
    "RetryAfter": "errors",
    "RunCancelled": "errors",
    "RunError": "errors",
    "RunFailed": "errors",
    "RunTimedOut": "errors",
    "WouldDeadlock": "errors",
    "Backoff": "policy",
    "Concurrency": "policy",
    "RateLimit": "policy",
    "Event": "events",
    "AnyOf": "graph",
    "OnEvent": "graph",
    "Sleep": "graph",
    "When": "graph",
    "any_of": "graph",
    "Run": "runs",
    "RunRef": "refs",
    "ScheduleRef": "refs",
    "Schedule": "schedules",
    "Task": "task",
    "Cron": "triggers",
    "Debounce": "triggers",
    "Filter": "triggers",
    "Throttle": "triggers",
    "Node": "workflow",
    "Workflow": "workflow",
}

__all__ = [
    "AnyOf",
    "ApiError",
    "AsyncClient",
    "Backoff",
    "BlockingCall",
    "CancelRun",
    "Cancelled",
    "Client",
    "Concurrency",
    "ConfigError",
    "ConnectionFailed",
    "Context",
    "Cron",
    "Debounce",
    "Depends",
    "Event",
    "Filter",
    "Hurlbat",
    "HurlbatError",
    "Node",
    "NonRetryable",
    "OnEvent",
    "PayloadError",
    "RateLimit",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunRef",
    "RunTimedOut",
    "Schedule",
    "ScheduleRef",
    "Sleep",
    "Task",
    "Throttle",
    "When",
    "Workflow",
    "WouldDeadlock",
    "any_of",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from hurlbat.version import version

        return version()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'hurlbat' has no attribute {name!r}")
    value = getattr(import_module(f"hurlbat.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

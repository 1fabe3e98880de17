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
    from hurlbat.app import Hurlbat as Hurlbat
    from hurlbat.client import AsyncClient as AsyncClient
    from hurlbat.client import Client as Client
    from hurlbat.context import Context as Context
    from hurlbat.errors import ApiError as ApiError
    from hurlbat.errors import BlockingCall as BlockingCall
    from hurlbat.errors import Cancelled as Cancelled
    from hurlbat.errors import ConfigError as ConfigError
    from hurlbat.errors import ConnectionFailed as ConnectionFailed
    from hurlbat.errors import HurlbatError as HurlbatError
    from hurlbat.errors import NonRetryable as NonRetryable
    from hurlbat.errors import PayloadError as PayloadError
    from hurlbat.errors import RetryAfter as RetryAfter
    from hurlbat.errors import RunCancelled as RunCancelled
    from hurlbat.errors import RunError as RunError
    from hurlbat.errors import RunFailed as RunFailed
    from hurlbat.errors import RunTimedOut as RunTimedOut
    from hurlbat.policy import Backoff as Backoff
    from hurlbat.runs import Run as Run
    from hurlbat.task import RunRef as RunRef
    from hurlbat.task import Task as Task

    __version__: str

_HOMES = {
    "Hurlbat": "app",
    "AsyncClient": "client",
    "Client": "client",
    "Context": "context",
    "ApiError": "errors",
    "BlockingCall": "errors",
    "Cancelled": "errors",
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
    "Backoff": "policy",
    "Run": "runs",
    "RunRef": "task",
    "Task": "task",
}

__all__ = [
    "ApiError",
    "AsyncClient",
    "Backoff",
    "BlockingCall",
    "Cancelled",
    "Client",
    "ConfigError",
    "ConnectionFailed",
    "Context",
    "Hurlbat",
    "HurlbatError",
    "NonRetryable",
    "PayloadError",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunError",
    "RunFailed",
    "RunRef",
    "RunTimedOut",
    "Task",
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

"""What both clients send with a request, and what they make of a connection that failed.

Here and there httpx is imported when it is first needed: it takes a quarter of the time in which a worker starts, and a
worker that only answers deliveries never calls anybody.
"""

from typing import TYPE_CHECKING, Any

from hurlbat.errors import ConnectionFailed
from hurlbat.sending import Request
from hurlbat.version import version

if TYPE_CHECKING:
    import httpx


def headers() -> dict[str, str]:
    """Return what every request carries."""
    return {"user-agent": f"hurlbat-python/{version()}"}


def arguments(url: str, token: str | None, request: Request) -> dict[str, Any]:
    """Return a request as httpx takes it."""
    import httpx

    own: dict[str, str] = {}
    if token is not None:
        own["authorization"] = f"Bearer {token}"
    if request.body is not None:
        own["content-type"] = "application/json"
    timeout = httpx.Timeout(request.timeout, connect=10.0)
    return {
        "method": request.method,
        "url": url.rstrip("/") + request.path,
        "content": request.body,
        "headers": own,
        "timeout": timeout,
    }


def connection_failed(error: "httpx.HTTPError", url: str) -> ConnectionFailed:
    """Return what to raise for an error of httpx: whether the request was sent decides what may follow."""
    import httpx

    unsent = httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol
    said = str(error) or type(error).__name__
    if isinstance(error, unsent):
        return ConnectionFailed(f"the server at {url} was not reached: {said}", sent=False)
    return ConnectionFailed(f"the connection to {url} broke: {said}", sent=True)

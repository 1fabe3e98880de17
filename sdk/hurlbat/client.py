"""Talk to the server's API: `AsyncClient` and `Client`, which carry out the same calls over httpx."""

import asyncio
import os
from collections.abc import Sequence
from typing import Any, TypeVar, Unpack
from weakref import WeakKeyDictionary

import httpx

from hurlbat import calls, outside
from hurlbat.calls import Call, Page, Pause, Reply, Request, Together
from hurlbat.errors import BlockingCall, ConnectionFailed, HurlbatError
from hurlbat.lineage import linked
from hurlbat.payloads import encode
from hurlbat.runs import Run, RunOptions
from hurlbat.settings import read_settings
from hurlbat.version import version

TOGETHER = 16
"""How many calls of one `Together` are under way at once."""

T = TypeVar("T")


class AsyncClient:
    """The server's API for async code. `url` and `token` are read from the environment if they are not given.

    Every method raises `ApiError` when the server refuses, and `ConnectionFailed`.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._settings = read_settings({"url": url, "token": token})
        self._transport = transport
        # an httpx client belongs to the event loop that it was first used in
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    async def drive(self, call: Call[T]) -> T:
        """Carry out a call and return its outcome."""
        answer: Any = None
        failure: Exception | None = None
        while True:
            try:
                wanted = call.send(answer) if failure is None else call.throw(failure)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            answer = failure = None
            match wanted:
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case Together(listed):
                    answer = await self._together(listed)
                case Request():
                    try:
                        answer = await self._send(wanted)
                    except ConnectionFailed as error:
                        failure = error

    async def submit(self, task: str, input: Any = None, **options: Unpack[RunOptions]) -> Run:
        """Submit a run of a task that this process need not know; returns after it is stored."""
        return await self.drive(calls.submit(task, encode(input, what="input"), linked(options, self)))

    async def get_run(self, run_id: str) -> Run:
        """Return a run with its timeline."""
        return await self.drive(calls.get_run(run_id))

    async def wait_for(self, run_id: str, timeout: float | None = None) -> Run:
        """Return a run once it ended. Raises `RunTimedOut` after `timeout` seconds."""
        return await self.drive(calls.wait_for(run_id, timeout))

    async def list_runs(
        self,
        *,
        task: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """Return a page of runs, without their timelines."""
        return await self.drive(calls.list_runs(task, state, cursor, limit))

    async def cancel_run(self, run_id: str, reason: str | None = None) -> Run:
        """Cancel a run; one that has ended stays as it is."""
        return await self.drive(calls.cancel_run(run_id, reason))

    async def replay_run(self, run_id: str) -> Run:
        """Queue a run that has ended once more."""
        return await self.drive(calls.replay_run(run_id))

    async def register_worker(self, name: str, url: str, **more: Any) -> dict[str, Any]:
        """Register a worker, or change the one with this name: `mode`, `slots`, `secret`, `tasks`, `labels`."""
        return await self.drive(calls.ask("POST", "workers", body={"name": name, "url": url, **more}))

    async def get_worker(self, name: str) -> dict[str, Any]:
        """Return a worker and what is wrong with it."""
        return await self.drive(calls.ask("GET", "workers", name))

    async def sync_worker(self, name: str) -> dict[str, Any]:
        """Prove a worker again and read its manifest."""
        return await self.drive(calls.ask("POST", "workers", name, "sync"))

    async def delete_worker(self, name: str) -> None:
        """Forget a worker."""
        await self.drive(calls.ask("DELETE", "workers", name))

    async def explain_run(self, run_id: str) -> dict[str, Any]:
        """Return why a run waits, with all that it draws on, or why it ended so."""
        return await self.drive(calls.ask("GET", "runs", run_id, "explain"))

    async def put_rate_limit(self, key: str, limit: int, duration: float) -> dict[str, Any]:
        """Let at most `limit` units of a static key start in any `duration` (seconds)."""
        return await self.drive(calls.ask("PUT", "rate-limits", key, body={"limit": limit, "duration": duration}))

    async def delete_rate_limit(self, key: str) -> None:
        """Forget a static rate limit that no run draws on."""
        await self.drive(calls.ask("DELETE", "rate-limits", key))

    async def pause_task(self, name: str) -> dict[str, Any]:
        """Hold the runs of a task; what runs goes on."""
        return await self.drive(calls.ask("POST", "tasks", name, "pause"))

    async def resume_task(self, name: str) -> dict[str, Any]:
        """Let the runs of a paused task start again."""
        return await self.drive(calls.ask("POST", "tasks", name, "resume"))

    def http(self) -> httpx.AsyncClient:
        """Return this event loop's httpx client; requests to the API's paths carry the token only through `drive`."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None or client.is_closed:
            client = self._clients[loop] = httpx.AsyncClient(
                headers=_headers(), transport=self._transport, limits=httpx.Limits(max_keepalive_connections=20)
            )
        return client

    async def aclose(self) -> None:
        """Close this event loop's connections; a later call opens new ones."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    async def _together(self, listed: Sequence[Call[Any]]) -> list[Any]:
        room = asyncio.Semaphore(TOGETHER)

        async def one(call: Call[Any]) -> Any:
            async with room:
                try:
                    return await self.drive(call)
                except HurlbatError as error:
                    return error

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(call)) for call in listed]
        return [task.result() for task in tasks]

    async def _send(self, request: Request) -> Reply:
        try:
            response = await self.http().request(**_arguments(self._settings.url, self._settings.token, request))
        except httpx.HTTPError as error:
            raise _connection_failed(error, self._settings.url) from error
        return Reply(response.status_code, response.headers, response.text)


class Client:
    """The server's API for sync code; the same methods as `AsyncClient`. One client may be shared by threads."""

    def __init__(
        self, url: str | None = None, token: str | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._settings = read_settings({"url": url, "token": token})
        self._transport = transport
        self._client: httpx.Client | None = None
        self._process = 0

    def drive(self, call: Call[T]) -> T:
        """Carry out a call and return its outcome. Raises `BlockingCall` inside a running event loop."""
        _refuse_in_event_loop()
        answer: Any = None
        failure: Exception | None = None
        while True:
            try:
                wanted = call.send(answer) if failure is None else call.throw(failure)
            except StopIteration as end:
                outcome: T = end.value
                return outcome
            answer = failure = None
            match wanted:
                case Pause(seconds):
                    outside.sleep(seconds)
                case Together(listed):
                    answer = [self._attempt(call) for call in listed]
                case Request():
                    try:
                        answer = self._send(wanted)
                    except ConnectionFailed as error:
                        failure = error

    def submit(self, task: str, input: Any = None, **options: Unpack[RunOptions]) -> Run:
        """Submit a run of a task that this process need not know; returns after it is stored."""
        return self.drive(calls.submit(task, encode(input, what="input"), linked(options, self)))

    def get_run(self, run_id: str) -> Run:
        """Return a run with its timeline."""
        return self.drive(calls.get_run(run_id))

    def wait_for(self, run_id: str, timeout: float | None = None) -> Run:
        """Return a run once it ended. Raises `RunTimedOut` after `timeout` seconds."""
        return self.drive(calls.wait_for(run_id, timeout))

    def list_runs(
        self,
        *,
        task: str | None = None,
        state: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """Return a page of runs, without their timelines."""
        return self.drive(calls.list_runs(task, state, cursor, limit))

    def cancel_run(self, run_id: str, reason: str | None = None) -> Run:
        """Cancel a run; one that has ended stays as it is."""
        return self.drive(calls.cancel_run(run_id, reason))

    def replay_run(self, run_id: str) -> Run:
        """Queue a run that has ended once more."""
        return self.drive(calls.replay_run(run_id))

    def register_worker(self, name: str, url: str, **more: Any) -> dict[str, Any]:
        """Register a worker, or change the one with this name: `mode`, `slots`, `secret`, `tasks`, `labels`."""
        return self.drive(calls.ask("POST", "workers", body={"name": name, "url": url, **more}))

    def get_worker(self, name: str) -> dict[str, Any]:
        """Return a worker and what is wrong with it."""
        return self.drive(calls.ask("GET", "workers", name))

    def sync_worker(self, name: str) -> dict[str, Any]:
        """Prove a worker again and read its manifest."""
        return self.drive(calls.ask("POST", "workers", name, "sync"))

    def delete_worker(self, name: str) -> None:
        """Forget a worker."""
        self.drive(calls.ask("DELETE", "workers", name))

    def explain_run(self, run_id: str) -> dict[str, Any]:
        """Return why a run waits, with all that it draws on, or why it ended so."""
        return self.drive(calls.ask("GET", "runs", run_id, "explain"))

    def put_rate_limit(self, key: str, limit: int, duration: float) -> dict[str, Any]:
        """Let at most `limit` units of a static key start in any `duration` (seconds)."""
        return self.drive(calls.ask("PUT", "rate-limits", key, body={"limit": limit, "duration": duration}))

    def delete_rate_limit(self, key: str) -> None:
        """Forget a static rate limit that no run draws on."""
        self.drive(calls.ask("DELETE", "rate-limits", key))

    def pause_task(self, name: str) -> dict[str, Any]:
        """Hold the runs of a task; what runs goes on."""
        return self.drive(calls.ask("POST", "tasks", name, "pause"))

    def resume_task(self, name: str) -> dict[str, Any]:
        """Let the runs of a paused task start again."""
        return self.drive(calls.ask("POST", "tasks", name, "resume"))

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _attempt(self, call: Call[Any]) -> Any:
        try:
            return self.drive(call)
        except HurlbatError as error:
            return error

    def _send(self, request: Request) -> Reply:
        if self._client is None or self._process != os.getpid():  # connections must not be shared with a forked process
            self._process = os.getpid()
            self._client = httpx.Client(headers=_headers(), transport=self._transport)
        try:
            response = self._client.request(**_arguments(self._settings.url, self._settings.token, request))
        except httpx.HTTPError as error:
            raise _connection_failed(error, self._settings.url) from error
        return Reply(response.status_code, response.headers, response.text)


def _headers() -> dict[str, str]:
    return {"user-agent": f"hurlbat-python/{version()}"}


def _arguments(url: str, token: str | None, request: Request) -> dict[str, Any]:
    headers: dict[str, str] = {}
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    if request.body is not None:
        headers["content-type"] = "application/json"
    timeout = httpx.Timeout(request.timeout, connect=10.0)
    return {
        "method": request.method,
        "url": url.rstrip("/") + request.path,
        "content": request.body,
        "headers": headers,
        "timeout": timeout,
    }


def _connection_failed(error: httpx.HTTPError, url: str) -> ConnectionFailed:
    unsent = httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol
    said = str(error) or type(error).__name__
    if isinstance(error, unsent):
        return ConnectionFailed(f"the server at {url} was not reached: {said}", sent=False)
    return ConnectionFailed(f"the connection to {url} broke: {said}", sent=True)


def _refuse_in_event_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise BlockingCall("this call would stop the running event loop; await the async form of it instead")

"""Talk to the server's API from async code: `AsyncClient` carries out calls over httpx."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from weakref import WeakKeyDictionary

from hurlbat import calls, events, schedules
from hurlbat.connecting import arguments, connection_failed, headers
from hurlbat.errors import ConnectionFailed, HurlbatError
from hurlbat.events import Event, EventOptions
from hurlbat.lineage import current_run, linked
from hurlbat.payloads import encode
from hurlbat.runs import ReplayFrom, Run, RunFilter, RunOptions, RunQuery
from hurlbat.schedules import Schedule, ScheduleChanges, ScheduleOptions
from hurlbat.sending import Call, Page, Pause, Reply, Request, Together, ask
from hurlbat.settings import read_settings

if TYPE_CHECKING:
    import httpx

TOGETHER = 16
"""How many calls of one `Together` are under way at once."""

T = TypeVar("T")


class AsyncClient:
    """The server's API for async code. `url` and `token` are read from the environment if they are not given.

    Every method raises `ApiError` when the server refuses, and `ConnectionFailed`.
    """

    def __init__(
        self, url: str | None = None, token: str | None = None, *, transport: "httpx.AsyncBaseTransport | None" = None
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
        return await self.drive(calls.wait_for(run_id, timeout, current_run(self)))

    async def list_runs(self, **query: Unpack[RunQuery]) -> Page[Run]:
        """Return a page of runs, the newest first, without their timelines."""
        return await self.drive(calls.list_runs(query))

    async def move_run(
        self, run_id: str, at: datetime | None = None, *, delay: float | None = None, priority: int | None = None
    ) -> Run:
        """Let a run that waits for its time start at another, or so many seconds from now, or with another priority."""
        return await self.drive(calls.move_run(run_id, at, delay, priority))

    async def cancel_run(self, run_id: str, reason: str | None = None) -> Run:
        """Cancel a run; one that has ended stays as it is."""
        return await self.drive(calls.cancel_run(run_id, reason))

    async def replay_run(self, run_id: str, from_: ReplayFrom | None = None) -> Run:
        """Queue a run that has ended once more.

        Of a workflow's run that is what did not end well and all after it, or with `from_` everything (`"start"`), or
        some nodes, by their names, and all after them; the others keep their outputs.
        """
        return await self.drive(calls.replay_run(run_id, from_))

    async def cancel_runs(
        self, *, dry_run: bool = False, reason: str | None = None, **which: Unpack[RunFilter]
    ) -> dict[str, Any]:
        """Cancel all runs that fit; return the operation that does so, or with `dry_run` how many are `matched`."""
        return await self.drive(calls.change_runs("cancel", which, dry_run, reason))

    async def replay_runs(
        self, *, dry_run: bool = False, reason: str | None = None, **which: Unpack[RunFilter]
    ) -> dict[str, Any]:
        """Queue all runs that fit and have ended once more; return as `cancel_runs`."""
        return await self.drive(calls.change_runs("replay", which, dry_run, reason))

    async def get_operation(self, operation_id: str) -> dict[str, Any]:
        """Return how far a cancellation or replay of many runs has come."""
        return await self.drive(ask("GET", "operations", operation_id))

    async def list_operations(self, *, cursor: str | None = None, limit: int | None = None) -> Page[dict[str, Any]]:
        """Return a page of cancellations and replays of many runs, newest first."""
        return await self.drive(calls.list_operations(cursor, limit))

    async def create_schedule(
        self,
        task: str,
        expression: str | None = None,
        *,
        run_at: datetime | None = None,
        input: Any = None,
        name: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> Schedule:
        """Have runs of a task made at the times of a crontab expression, or one at a time.

        Without a name it is named after what it says, so that the same one can be created again and is one.
        """
        text = encode(input, what="input")
        return await self.drive(schedules.create(task, expression, run_at, text, name, options))

    async def get_schedule(self, name: str) -> Schedule:
        """Return a schedule."""
        return await self.drive(schedules.get(name))

    async def list_schedules(
        self,
        *,
        task: str | None = None,
        paused: bool | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[Schedule]:
        """Return a page of schedules."""
        return await self.drive(schedules.list_all(task, paused, cursor, limit))

    async def update_schedule(self, name: str, **changes: Unpack[ScheduleChanges]) -> Schedule:
        """Change a schedule; what is not named stays."""
        return await self.drive(schedules.update(name, changes))

    async def pause_schedule(self, name: str) -> Schedule:
        """Let a schedule rest; times that pass meanwhile are not made up for."""
        return await self.drive(schedules.pause(name))

    async def resume_schedule(self, name: str) -> Schedule:
        """Let a paused schedule go on."""
        return await self.drive(schedules.resume(name))

    async def trigger_schedule(self, name: str) -> Run:
        """Make a run of a schedule now."""
        return await self.drive(schedules.trigger(name))

    async def delete_schedule(self, name: str) -> None:
        """Forget a schedule; the runs that it made stay."""
        await self.drive(schedules.delete(name))

    async def next_times(self, name: str, count: int = 10) -> list[datetime]:
        """Return the next times of a schedule."""
        return await self.drive(schedules.next_times(name, count))

    async def preview_schedule(self, expression: str, timezone: str = "UTC", count: int = 10) -> list[datetime]:
        """Return the next times of a crontab expression that nothing uses yet."""
        return await self.drive(schedules.preview(expression, timezone, count))

    async def list_fires(
        self, name: str, *, cursor: str | None = None, limit: int | None = None
    ) -> Page[dict[str, Any]]:
        """Return a page of what a schedule did at its times, newest first."""
        return await self.drive(schedules.list_fires(name, cursor, limit))

    async def push_event(self, key: str, payload: Any = events.NOTHING, **options: Unpack[EventOptions]) -> Event:
        """Store an event and start the runs of all tasks that listen; return what it started."""
        return await self.drive(events.push(key, payload, options))

    async def get_event(self, event_id: str) -> Event:
        """Return an event, with what it started."""
        return await self.drive(events.get(event_id))

    async def list_events(
        self,
        *,
        key: str | None = None,
        scope: str | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page[Event]:
        """Return a page of events, newest first, without what they started."""
        return await self.drive(events.list_all(key, scope, cursor, limit))

    async def replay_event(self, event_id: str) -> Event:
        """Let an event happen again, as a new one."""
        return await self.drive(events.replay(event_id))

    async def list_filters(self, task: str) -> list[dict[str, Any]]:
        """Return by which filters a task is started, those of its policy among them."""
        return await self.drive(events.list_filters(task))

    async def add_filter(
        self, task: str, expression: str | None = None, *, scope: str | None = None, payload: Any = None
    ) -> dict[str, Any]:
        """Start a task also by events for which this is true; return the filter with its id."""
        return await self.drive(events.add_filter(task, expression, scope, payload))

    async def delete_filter(self, task: str, filter_id: str) -> None:
        """Forget a filter that was added."""
        await self.drive(ask("DELETE", "tasks", task, "filters", filter_id))

    async def register_worker(self, name: str, url: str, **more: Any) -> dict[str, Any]:
        """Register a worker, or change the one with this name: `mode`, `slots`, `secret`, `tasks`, `labels`."""
        return await self.drive(ask("POST", "workers", body={"name": name, "url": url, **more}))

    async def get_worker(self, name: str) -> dict[str, Any]:
        """Return a worker and what is wrong with it."""
        return await self.drive(ask("GET", "workers", name))

    async def sync_worker(self, name: str) -> dict[str, Any]:
        """Prove a worker again and read its manifest."""
        return await self.drive(ask("POST", "workers", name, "sync"))

    async def delete_worker(self, name: str) -> None:
        """Forget a worker."""
        await self.drive(ask("DELETE", "workers", name))

    async def explain_run(self, run_id: str) -> dict[str, Any]:
        """Return why a run waits, with all that it draws on, or why it ended so."""
        return await self.drive(ask("GET", "runs", run_id, "explain"))

    async def put_rate_limit(self, key: str, limit: int, duration: float) -> dict[str, Any]:
        """Let at most `limit` units of a static key start in any `duration` (seconds)."""
        return await self.drive(ask("PUT", "rate-limits", key, body={"limit": limit, "duration": duration}))

    async def delete_rate_limit(self, key: str) -> None:
        """Forget a static rate limit that no run draws on."""
        await self.drive(ask("DELETE", "rate-limits", key))

    async def pause_task(self, name: str) -> dict[str, Any]:
        """Hold the runs of a task; what runs goes on."""
        return await self.drive(ask("POST", "tasks", name, "pause"))

    async def resume_task(self, name: str) -> dict[str, Any]:
        """Let the runs of a paused task start again."""
        return await self.drive(ask("POST", "tasks", name, "resume"))

    def http(self) -> "httpx.AsyncClient":
        """Return this event loop's httpx client; requests to the API's paths carry the token only through `drive`."""
        import httpx

        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None or client.is_closed:
            client = self._clients[loop] = httpx.AsyncClient(
                headers=headers(), transport=self._transport, limits=httpx.Limits(max_keepalive_connections=20)
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
        import httpx

        try:
            response = await self.http().request(**arguments(self._settings.url, self._settings.token, request))
        except httpx.HTTPError as error:
            raise connection_failed(error, self._settings.url) from error
        return Reply(response.status_code, response.headers, response.text)

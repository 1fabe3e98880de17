"""The engine: the one door of the dispatcher. Everything that can be done with runs and workers is a method here.

Payloads (input, output, metadata) are raw JSON text, times are ms since the epoch, durations are seconds. What is
refused is raised as a `Problem`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import structlog

from hurlbat.wire import CancelledLine, FailedLine
from hurlbat_dispatcher.assembly import Parts, assemble
from hurlbat_dispatcher.attempts import Attempts
from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.bulk import Bulk
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.outcome import Succeeded
from hurlbat_dispatcher.domain.runs import Run, RunKind, Submission, Task
from hurlbat_dispatcher.domain.workers import Worker
from hurlbat_dispatcher.errors import NotFound, Problem, Unauthorized, Unavailable
from hurlbat_dispatcher.events import Events
from hurlbat_dispatcher.explaining import Explanation
from hurlbat_dispatcher.fleet import Registered, WorkerSpec
from hurlbat_dispatcher.following import Following
from hurlbat_dispatcher.keyring import OVERLAP_SECONDS
from hurlbat_dispatcher.limits import Limits
from hurlbat_dispatcher.moments import check_moment
from hurlbat_dispatcher.outside import Outside
from hurlbat_dispatcher.pages import Page, page_by_looks, page_by_name
from hurlbat_dispatcher.push.transcript import end_of, failure_of
from hurlbat_dispatcher.run_ids import check_cursor, check_run_id, unknown_run
from hurlbat_dispatcher.schedules import Schedules
from hurlbat_dispatcher.secrecy import digest_of
from hurlbat_dispatcher.settings import Settings
from hurlbat_dispatcher.store import views
from hurlbat_dispatcher.store.database import DatabaseTrouble
from hurlbat_dispatcher.store.listing import Wanted, look_at_runs
from hurlbat_dispatcher.store.looks import Look
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.submitting import Accepted
from hurlbat_dispatcher.turn.operations import (
    AttemptEnd,
    Beat,
    Cancel,
    End,
    Move,
    Note,
    Operation,
    Replay,
)
from hurlbat_dispatcher.waiting import Watch
from hurlbat_dispatcher.webhooks import Webhooks
from hurlbat_dispatcher.workflows import Workflows

log = structlog.get_logger("hurlbat.engine")

TENANT: Final = 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """Whether the run was cancelled, and for how many seconds the lease was renewed."""

    cancelled: bool
    lease: float


class Engine:
    """The dispatcher. Build it, `start` it, use it, `stop` it."""

    def __init__(self, settings: Settings, outside: Outside | None = None) -> None:
        self.settings = settings
        self._outside = outside or Outside()
        self._parts: Parts | None = None
        self._stopping = False
        self._not_at_work = ("starting", "the server is starting")

    async def start(self) -> None:
        """Open the database, bring its schema up to date where it is ours alone, begin to work.

        Raises `CannotOpen`, and `DatabaseTrouble` when it may be worth another try.
        """
        try:
            self._parts = await assemble(self.settings, self._outside)
        except DatabaseTrouble as trouble:
            self._not_at_work = ("database_unavailable", str(trouble))
            raise

    async def stop(self, grace: float) -> None:
        """Start nothing more, wait so many seconds for answers, give back what was not sent, and close.

        See `hurry` for one who cannot wait so long.
        """
        if self._parts is not None and not self._stopping:
            self._stopping = True
            self._parts.waiters.close()
            await self._parts.stop(grace)
            self._parts = None
            self._not_at_work = ("stopping", "the server has stopped")

    def hurry(self) -> None:
        """Let a `stop` wait for answers no longer: it ends as if its time were over."""
        if self._parts is not None:
            self._parts.outbox.hurry()

    def ready(self) -> None:
        """Return when this server can work. Raises `Unavailable` with what is in the way."""
        if self._stopping:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        trouble = self._at_work.writer.trouble
        if trouble is not None:
            raise Unavailable("database_unavailable", trouble, retry_after=1)

    @property
    def first_token(self) -> str | None:
        """Return the API token that was made at this start; it is known this once."""
        return self._at_work.first_token

    def authenticate(self, token: str) -> None:
        """Return when the token is good. Raises `Unauthorized`."""
        if digest_of(token) not in self._at_work.tokens:
            raise Unauthorized("token_invalid", "the API token is not a good one")

    def metrics(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        parts = self._at_work
        return parts.telemetry.text(in_flight=parts.outbox.in_flight, queued=parts.writer.queued)

    # -- runs --------------------------------------------------------------------------------------------------------

    async def submit(self, submission: Submission) -> Accepted:
        """Accept a run; returns after the commit. Raises `Invalid`, `Conflict`, `Overloaded`, `Unavailable`."""
        return await self._at_work.submitting.submit(submission)

    async def submit_and_wait(self, submission: Submission, seconds: float) -> Run:
        """Accept a run and return it when it has ended, or as it is after so many seconds. Raises as `submit` does."""
        return await self._at_work.submitting.submit_and_wait(submission, seconds)

    async def submit_many(self, submissions: Sequence[Submission]) -> list[Accepted | Problem]:
        """Accept up to 1,000 runs in one commit, with an outcome for each, in order."""
        return await self._at_work.submitting.submit_many(submissions)

    async def get_run(self, run_id: str) -> Run:
        """Return a run with its timeline. Raises `NotFound`."""
        check_run_id(run_id)
        run = await self._read(views.one_run(TENANT, run_id))
        if run is None:
            raise unknown_run(run_id)
        return run

    async def explain(self, run_id: str) -> Explanation:
        """Say why a run is as it is: what holds it, or why it ended so. Raises `NotFound`, `Unavailable`."""
        check_run_id(run_id)
        return await available(self._at_work.explainer.explain(run_id))

    async def list_runs(
        self,
        *,
        task: str | None = None,
        state: RunState | None = None,
        delayed: bool = False,
        created_after: int | None = None,
        created_before: int | None = None,
        parent: str | None = None,
        root: str | None = None,
        kind: RunKind | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[Run]:
        """Return runs without their timelines, the newest first: `delayed` ones, `created_after` or at a time (ms).

        Those of a `parent` are its nodes and children, those of a `root` all below it. Where few of very many runs are
        meant, a page may be short, or empty, and have a cursor to go on.
        """
        wanted = Wanted(
            task, state and state.value, delayed, created_after, created_before, parent, root, kind and kind.value
        )
        start = views.LAST_ID if cursor is None else check_cursor(cursor)

        async def look(before: str, most: int, rows: int) -> Look[Run, str]:
            return await self._read(look_at_runs(TENANT, wanted, before=before, most=most, rows=rows))

        return Page(*await page_by_looks(look, start, limit, lambda run: run.id, Run.weight))

    async def wait(self, run_id: str, seconds: float, *, awaited_by: str | None = None) -> Run:
        """Return the run when it has ended, or as it is after so many seconds; `awaited_by` is the run that waits.

        Raises `NotFound`, `Unavailable`, and `Conflict` where one run would wait for the other for ever.
        """
        check_run_id(run_id)
        parts = self._at_work
        if awaited_by is None:
            return await parts.waiting.end_of(run_id, seconds)
        check_run_id(awaited_by)
        with parts.awaiting.waits(awaited_by, run_id):
            await parts.awaiting.check(run_id, awaited_by)
            return await parts.waiting.end_of(run_id, seconds)

    async def watch(self, run_id: str) -> Watch:
        """Begin to watch what happens to a run; to be left. Raises `NotFound`, `Unavailable`."""
        check_run_id(run_id)
        return await self._at_work.waiting.watch(run_id)

    def follow(self) -> Following:
        """Begin to hear of whatever happens to runs at this server; to be left. Raises `Unavailable`."""
        return self._at_work.waiting.follow()

    async def cancel_run(self, run_id: str, *, reason: str | None = None) -> Run:
        """Cancel a run at once; its worker is told. Raises `NotFound`, `Conflict` when it has ended otherwise."""
        check_run_id(run_id)
        await self._ask(Cancel(run_id, reason or "cancelled by request"))
        return await self._changed(run_id)

    async def replay_run(self, run_id: str, *, nodes: Sequence[str] = (), everything: bool = False) -> Run:
        """Queue a run that has ended again; its history stays.

        Of a workflow these `nodes` run anew and all below them, or `everything`, or else what did not end well. Raises
        `NotFound`, `Invalid`, `Conflict`.
        """
        check_run_id(run_id)
        await self._ask(Replay(run_id, nodes=nodes, everything=everything))
        return await self._changed(run_id)

    async def move_run(
        self, run_id: str, due_at: int | None = None, *, delay: float | None = None, priority: int | None = None
    ) -> Run:
        """Let a run that waits for its time start at another: then (ms), or in so many seconds.

        Raises `NotFound`, `Invalid`, `Conflict` when it is due already, runs, or has ended.
        """
        check_run_id(run_id)
        check_moment(due_at, self._at_work.clock.now_ms())
        await self._ask(Move(run_id, due_at, priority, None if delay is None else int(delay * 1000)))
        return await self._changed(run_id)

    async def _changed(self, run_id: str) -> Run:
        """Return a run of which a change was just stored: an answer that nothing was would not be true."""
        try:
            return await self.get_run(run_id)
        except Unavailable as problem:
            said = f"the change is stored, but the run cannot be shown: {problem.detail}"
            raise Unavailable("outcome_unknown", said, retry_after=1) from problem

    # -- reports of workers ------------------------------------------------------------------------------------------

    def check_lease(self, run_id: str, attempt: int, token: str) -> None:
        """Return when the token is the one of this attempt. Raises `Unauthorized`."""
        if not self._at_work.lease_tokens.proves(token, run_id, attempt):
            raise Unauthorized("lease_token_invalid", "this lease token is not the one of this attempt")

    async def report_heartbeat(self, run_id: str, attempt: int, token: str) -> HeartbeatReply:
        """Renew the lease of an attempt. Raises `Unauthorized`, `Conflict` when it is over."""
        self.check_lease(run_id, attempt, token)
        cancelled = await self._ask(Beat(run_id, attempt))
        return HeartbeatReply(bool(cancelled), self.settings.lease)

    async def report_complete(self, run_id: str, attempt: int, token: str, output: str, digest: bytes) -> None:
        """Take an output. An exact repeat is fine. Raises `Unauthorized`, `Conflict`."""
        self.check_lease(run_id, attempt, token)
        await self._ask(End([AttemptEnd(run_id, attempt, Succeeded(output), digest.hex()[:40])]))

    async def report_fail(self, run_id: str, attempt: int, token: str, failure: FailedLine, digest: bytes) -> None:
        """Take a failure. An exact repeat is fine. Raises `Unauthorized`, `Conflict`."""
        self.check_lease(run_id, attempt, token)
        await self._ask(End([AttemptEnd(run_id, attempt, failure_of(failure), digest.hex()[:40])]))

    async def report_cancel(self, run_id: str, attempt: int, token: str, line: CancelledLine, digest: bytes) -> None:
        """Take it that a task cancelled its run. An exact repeat is fine. Raises `Unauthorized`, `Conflict`."""
        self.check_lease(run_id, attempt, token)
        await self._ask(End([AttemptEnd(run_id, attempt, end_of(line), digest.hex()[:40])]))

    async def report_log(self, run_id: str, attempt: int, token: str, entries: Sequence[tuple[str, str]]) -> None:
        """Remember log lines (level, message). Raises `Unauthorized`, `Conflict` when the attempt is over."""
        self.check_lease(run_id, attempt, token)
        notes = [(run_id, attempt, "log", {"level": level, "message": message}) for level, message in entries]
        if notes:
            await self._ask(Note(notes))

    # -- workers and tasks -------------------------------------------------------------------------------------------

    async def register_worker(self, spec: WorkerSpec) -> Registered:
        """Register a worker, or change the one of that name. Raises `Invalid`."""
        registered = await available(self._at_work.fleet.register(spec))
        return replace(registered, worker=self._with_load(registered.worker))

    async def update_worker(self, name: str, **changes: Any) -> Worker:
        """Change some of what is said of a worker. Raises `NotFound`, `Invalid`."""
        return self._with_load(await available(self._at_work.fleet.update(name, changes)))

    async def list_workers(self, *, cursor: str | None = None, limit: int = 50) -> Page[Worker]:
        """Return workers by name."""
        workers = self._at_work.registry.workers
        return page_by_name({name: self._with_load(one) for name, one in workers.items()}, cursor, limit)

    async def get_worker(self, name: str) -> Worker:
        """Return a worker. Raises `NotFound`."""
        return self._with_load(self._at_work.fleet.get(name))

    async def delete_worker(self, name: str) -> None:
        """Forget a worker; its runs wait for another that serves their tasks. Raises `NotFound`."""
        await available(self._at_work.fleet.remove(name))

    async def sync_worker(self, name: str) -> Worker:
        """Prove a worker again and take its manifest. Raises `NotFound`."""
        return self._with_load(await available(self._at_work.fleet.sync(name)))

    async def rotate_secret(
        self, name: str, *, secret: str | None = None, algorithm: str | None = None, overlap: float = OVERLAP_SECONDS
    ) -> Registered:
        """Sign a worker's requests by a new key, and for so many seconds by the old ones, too; 0 ends them at once.

        Raises `NotFound`, `Invalid`, `Conflict`.
        """
        rotating = self._at_work.rotating
        rotated = await available(rotating.rotate(name, secret=secret, algorithm=algorithm, overlap=overlap))
        return replace(rotated, worker=self._with_load(rotated.worker))

    async def pause_worker(self, name: str) -> Worker:
        """Hold a worker's runs. Raises `NotFound`."""
        return self._with_load(await available(self._at_work.fleet.pause(name)))

    async def resume_worker(self, name: str) -> Worker:
        """Send runs to a paused or disabled worker again. Raises `NotFound`."""
        return self._with_load(await available(self._at_work.fleet.resume(name)))

    async def list_tasks(self, *, cursor: str | None = None, limit: int = 50) -> Page[Task]:
        """Return tasks by name."""
        return page_by_name(self._at_work.registry.tasks, cursor, limit)

    async def get_task(self, name: str) -> Task:
        """Return a task. Raises `NotFound`."""
        task = self._at_work.registry.tasks.get(name)
        if task is None:
            raise NotFound("task_unknown", f"there is no task {name}")
        return task

    @property
    def attempts(self) -> Attempts:
        """Return the attempts of runs: what was sent, and what came back."""
        return self._at_work.attempts

    @property
    def bulk(self) -> Bulk:
        """Return what is done to many runs at once."""
        return self._at_work.bulk

    @property
    def limits(self) -> Limits:
        """Return the rate limits, and the pauses of keys and tasks."""
        return self._at_work.limits

    @property
    def schedules(self) -> Schedules:
        """Return the schedules."""
        return self._at_work.schedules

    @property
    def events(self) -> Events:
        """Return the events, and the filters by which tasks choose among them."""
        return self._at_work.events

    @property
    def webhooks(self) -> Webhooks:
        """Return the incoming webhooks, and take in what their senders send."""
        return self._at_work.webhooks

    @property
    def workflows(self) -> Workflows:
        """Return the workflows, and what their runs are made of."""
        return self._at_work.workflows

    # -- inside ------------------------------------------------------------------------------------------------------

    @property
    def _at_work(self) -> Parts:
        if self._parts is None:
            raise Unavailable(*self._not_at_work, retry_after=1)
        return self._parts

    async def _ask(self, operation: Operation) -> Any:
        if self._stopping and isinstance(operation, Replay):
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        operation.reply = asyncio.get_running_loop().create_future()
        self._at_work.writer.put(operation)
        return await operation.reply

    async def _read(self, script: Script[T]) -> T:
        return await available(self._at_work.database.read(script))

    def _with_load(self, worker: Worker) -> Worker:
        seen = self._at_work.fleet.standing.last_seen(worker)
        slots = self._at_work.desk.picture.slots.get(worker.name)
        if slots is None:
            return replace(worker, window=worker.slots, last_seen_at=seen)
        return replace(worker, window=min(slots.window.size, worker.slots), in_flight=slots.used, last_seen_at=seen)

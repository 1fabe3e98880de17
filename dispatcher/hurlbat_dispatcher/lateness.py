"""What should have happened by now, and has not: nothing is broken by it yet, but somebody should look."""

import json
from collections.abc import Iterator
from typing import Final

from hurlbat_dispatcher.checkup import Code, Finding, warn
from hurlbat_dispatcher.domain.lifecycle import RunState
from hurlbat_dispatcher.domain.runs import RunKind
from hurlbat_dispatcher.domain.workers import SERVING
from hurlbat_dispatcher.flow_checkup import may_be_held
from hurlbat_dispatcher.graph_checkup import graph_warnings
from hurlbat_dispatcher.store.checkup import SeenRun, Sight

OVERDUE_MS: Final = 60_000
"""How long something may be late before it is a finding."""


def warnings(sight: Sight, *, alive: bool) -> Iterator[Finding]:
    """Find what should have happened by now. `alive`: a server is there to do it."""
    for stray in sight.strays:
        yield warn(
            Code.TIMELINE_WITHOUT_RUN,
            stray,
            f"the timeline has rows of run {stray}, which is not there; they take room and do no harm",
        )
    names = {worker.name for worker in sight.workers}
    for run in sight.runs:
        if run.state == RunState.RUNNING and run.worker and run.worker not in names:
            yield warn(
                Code.WORKER_GONE,
                run.id,
                f"run {run.id} runs at the worker {run.worker}, which was removed; it ends by its answer or its lease",
            )
        if alive:
            yield from _late(run, sight)
    if alive:
        held = may_be_held(sight.flow)
        yield from _beside_room(sight, held)
        yield from graph_warnings(sight, sight.now - OVERDUE_MS, held)


def _late(run: SeenRun, sight: Sight) -> Iterator[Finding]:
    before = sight.now - OVERDUE_MS
    if run.holds_until is not None and run.holds_until < before:
        yield _overdue(Code.HELD_TOO_LONG, run, "holds a slot that was to be given back", sight.now - run.holds_until)
    if run.state == RunState.RUNNING and run.kind != RunKind.WORKFLOW:
        if run.lease_until is not None:
            if run.lease_until < before:
                yield _overdue(Code.LEASE_NOT_RESCUED, run, "has a lease that ran out", sight.now - run.lease_until)
        elif run.started_at is not None and run.started_at < before:
            ends = {server.id: server.lease_until for server in sight.servers}.get(run.sender or "")
            if ends is None or (ends < before and len(sight.servers) > 1):
                yield _overdue(
                    Code.SENDER_GONE, run, "was sent by a server that is gone, and started", sight.now - run.started_at
                )
    if run.state == RunState.QUEUED:
        if run.expires_at is not None and run.expires_at < before:
            yield _overdue(
                Code.EXPIRY_NOT_APPLIED, run, "waits, and should have started or ended", sight.now - run.expires_at
            )
        elif not run.ready and run.due_at < before:
            yield _overdue(Code.DUE_NOT_SEEN, run, "was due, and nobody has seen it", sight.now - run.due_at)


def _overdue(code: Code, run: SeenRun, says: str, since: int) -> Finding:
    return warn(
        code,
        run.id,
        f"run {run.id} {says} {since / 1000:.0f} s ago; a server should have acted, "
        "so look at its log, and restart it if it says nothing",
    )


def _beside_room(sight: Sight, held: frozenset[int]) -> Iterator[Finding]:
    busy = {load.worker for load in sight.loads}
    idle: dict[str, str] = {}
    for worker in sight.workers:
        if worker.state in SERVING and worker.name not in busy and worker.updated_at < sight.now - OVERDUE_MS:
            idle.update(dict.fromkeys(json.loads(worker.tasks), worker.name))
    waiting: dict[str, SeenRun] = {}
    for run in sight.runs:
        due = run.state == RunState.QUEUED and run.ready and run.due_at < sight.now - OVERDUE_MS
        if (
            due
            and run.lane not in held
            and run.task in idle
            and run.kind != RunKind.WORKFLOW
            and (run.task not in waiting or run.due_at < waiting[run.task].due_at)
        ):
            waiting[run.task] = run
    for task, run in sorted(waiting.items()):
        yield warn(
            Code.WAITING_BESIDE_ROOM,
            run.id,
            f"run {run.id} of the task {task} waits since {(sight.now - run.due_at) / 1000:.0f} s, and the worker "
            f"{idle[task]} has nothing to do; unless it said that it has no room, look at the owner's log",
        )

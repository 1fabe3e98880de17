"""`/runs`: submit, look, wait, watch, move, cancel, replay."""

import asyncio
from collections.abc import Coroutine, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hurlbat.graph import MAX_NODES
from hurlbat_app.api.answers import Json, page, show_explanation, show_run
from hurlbat_app.api.bodies import read_body
from hurlbat_app.api.reading import (
    Members,
    flag_parameter,
    name_parameter,
    optional,
    page_parameters,
    parameters,
    read_members,
    run_id,
    run_id_parameter,
    text_of,
    time_parameter,
    wait_parameter,
    wrong,
)
from hurlbat_app.api.streams import Story, last_event_id
from hurlbat_app.api.submissions import MEMBERS, priority_of, read_bulk, read_submission, start_of
from hurlbat_dispatcher import Accepted, Engine, Invalid, Problem, Run, RunKind, RunState, Submission

_BULK: Final = frozenset({"runs"})
_REASON: Final = frozenset({"reason"})
_MOVE: Final = frozenset({"run_at", "delay", "priority"})
_REPLAY: Final = frozenset({"from"})
_FILTERS: Final = ("task", "state", "delayed", "created_after", "created_before", "parent", "root", "kind")
E = TypeVar("E", bound=StrEnum)


class Runs:
    """The endpoints below `/runs` that need the API token."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._limit = engine.settings.max_body_bytes
        self._wait_max = engine.settings.wait_max

    async def submit(self, request: Request) -> Response:
        """Accept a run: 201 after its commit, 200 for a repeat of a key; with `wait` 200 when it has ended, or 202."""
        wait = wait_parameter(parameters(request, "wait"), self._wait_max)
        found = read_members(request, await read_body(request, self._limit), MEMBERS)
        submission = read_submission(found, waits=wait is not None)
        if wait is None:
            accepted = await self._engine.submit(submission)
            shown, status = show_run(accepted.run, timeline=False), 201 if accepted.created else 200
            return Json(shown, status, {"location": f"/runs/{accepted.run.id}"})
        run = await _while_there(request, self._engine.submit_and_wait(submission, wait))
        return Json(show_run(run), 200 if run.is_final else 202, {"location": f"/runs/{run.id}"})

    async def submit_many(self, request: Request) -> Response:
        """Accept up to a thousand runs in one commit, with an outcome for each."""
        parameters(request)
        read = read_bulk(read_members(request, await read_body(request, self._limit), _BULK))
        good = [item for item in read if isinstance(item, Submission)]
        outcomes = iter(await self._engine.submit_many(good) if good else ())
        results = [next(outcomes) if isinstance(item, Submission) else item for item in read]
        return Json({"results": [_outcome(one, place) for place, one in enumerate(results)]})

    async def list(self, request: Request) -> Response:
        """List runs, the newest first."""
        query = parameters(request, *_FILTERS, "cursor", "limit")
        cursor, limit = page_parameters(query)
        state, delayed = _one_of(RunState, query, "state"), flag_parameter(query, "delayed")
        if delayed and state not in (None, RunState.QUEUED):
            raise Invalid("parameter_invalid", "delayed runs are queued; leave state out", field="state")
        found = await self._engine.list_runs(
            task=name_parameter(query, "task"),
            state=state,
            delayed=delayed,
            created_after=time_parameter(query, "created_after"),
            created_before=time_parameter(query, "created_before"),
            parent=run_id_parameter(query, "parent"),
            root=run_id_parameter(query, "root"),
            kind=_one_of(RunKind, query, "kind"),
            cursor=cursor,
            limit=limit,
        )
        return Json(page([show_run(run, timeline=False) for run in found.items], found.next_cursor))

    async def show(self, request: Request) -> Response:
        """Show a run with its timeline, with `wait` when it has ended or the time is over."""
        query = parameters(request, "wait", "awaited_by")
        wait, by = wait_parameter(query, self._wait_max), run_id_parameter(query, "awaited_by")
        wanted = run_id(request)
        if wait is not None:
            run = await _while_there(request, self._engine.wait(wanted, wait, awaited_by=by))
        elif by is not None:
            raise Invalid("parameter_invalid", "awaited_by says who waits, so it needs wait", field="awaited_by")
        else:
            run = await self._engine.get_run(wanted)
        return Json(show_run(run, family=await self._engine.workflows.family_of(run)))

    async def events(self, request: Request) -> Response:
        """Tell what happens to a run while it happens, from its beginning or from where a client was."""
        after = last_event_id(request)
        return Story(await self._engine.watch(run_id(request)), after)

    async def move(self, request: Request) -> Response:
        """Let a run that waits for its time start at another, or with another priority."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _MOVE)
        run_at, delay = start_of(found)
        priority = priority_of(found)
        if run_at is None and delay is None and priority is None:
            raise Invalid("member_missing", "say run_at, delay or priority", field="run_at")
        return Json(show_run(await self._engine.move_run(run_id(request), run_at, delay=delay, priority=priority)))

    async def explain(self, request: Request) -> Response:
        """Say why a run is as it is: what holds it, or why it ended so."""
        parameters(request)
        return Json(show_explanation(await self._engine.explain(run_id(request))))

    async def cancel(self, request: Request) -> Response:
        """Cancel a run, at once."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _REASON)
        return Json(show_run(await self._engine.cancel_run(run_id(request), reason=text_of(found, "reason", 256))))

    async def replay(self, request: Request) -> Response:
        """Queue a run that has ended again; of a workflow's what did not end well, all of it, or from some nodes on."""
        parameters(request)
        found = read_members(request, await read_body(request, self._limit), _REPLAY)
        wanted = run_id(request)
        nodes, everything = _from(found)
        if optional(found, "from") is not None and (await self._engine.get_run(wanted)).kind is not RunKind.WORKFLOW:
            raise wrong("from", "is for runs of workflows; this one is of a task, and is replayed as a whole")
        return Json(show_run(await self._engine.replay_run(wanted, nodes=nodes, everything=everything)))


async def _while_there(request: Request, work: Coroutine[Any, Any, Run]) -> Run:
    """Return what the work returns; who has gone waits no longer. Raises `ClientDisconnect`."""
    waiting = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({waiting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        return waiting.result()
    finally:
        waiting.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _one_of(kind: type[E], query: Mapping[str, str], name: str) -> E | None:
    text = query.get(name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        raise Invalid("parameter_invalid", f"{name} must be one of {', '.join(kind)}", field=name) from None


def _from(found: Members) -> tuple[list[str], bool]:
    """Return from which nodes a replay is to go on, and whether it is to begin anew. Raises `Invalid`."""
    value = optional(found, "from")
    if value in (None, "failed", "start"):
        return [], value == "start"
    if (
        not isinstance(value, list)
        or not 1 <= len(value) <= MAX_NODES
        or not all(isinstance(one, str) for one in value)
    ):
        raise wrong("from", f'must be "failed", "start", or a list of 1 to {MAX_NODES} names of nodes')
    return value, False


def _outcome(result: Accepted | Problem, place: int) -> dict[str, Any]:
    """Return the run of an item, or what is wrong with it; a member that is named comes with the item's place."""
    if isinstance(result, Accepted):
        return show_run(result.run, timeline=False)
    shown = result.as_json()
    if shown.get("field") is not None:
        shown["field"] = f"runs[{place}].{shown['field']}".removesuffix(".")
    return shown

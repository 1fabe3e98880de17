"""Schedules as people make them, change them, look at them and pause them; what fires them is `turn.firing`.

What is changed is stored, and in force with the next turn of the server that starts runs.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Clock, Ids
from hurlbat_dispatcher.crontab import CronInvalid, Crontab, compile_cron
from hurlbat_dispatcher.domain.runs import Run
from hurlbat_dispatcher.domain.schedules import Missed, Overlap, Schedule, ScheduleFire, Source
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound, Problem, Unavailable
from hurlbat_dispatcher.moments import check_moment
from hurlbat_dispatcher.pages import Page
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.store import schedules as store
from hurlbat_dispatcher.store import views
from hurlbat_dispatcher.store.database import Clash, Database
from hurlbat_dispatcher.store.runs import database_now
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.operations import Fire, Operation, Placed, Tick

T = TypeVar("T")

_OF_TASK: Final = re.compile(r".*\.\d+")
_CURSOR: Final = re.compile(r"(\d{1,18})-([01])")


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """What is said of a new schedule. It has an `expression` or a `run_at` (ms); input and metadata are raw JSON.

    Without a name it gets one; without a priority its runs have their task's.
    """

    task: str
    name: str | None = None
    expression: str | None = None
    run_at: int | None = None
    timezone: str = "UTC"
    input: str = "null"
    metadata: str = "{}"
    priority: int | None = None
    missed: Missed = Missed.ONCE
    overlap: Overlap = Overlap.ALLOW


class Schedules:
    """All schedules."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        desk: Desk,
        clock: Clock,
        ids: Ids,
        *,
        put: Callable[[Operation], None],
        changed: Callable[[], None],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._desk = desk
        self._clock = clock
        self._ids = ids
        self._put = put
        self._changed = changed

    async def create(self, spec: ScheduleSpec) -> tuple[Schedule, bool]:
        """Make a schedule; return it, or the one that is just like it, and whether it is a new one.

        Raises `Invalid`, and `Conflict` where another schedule has its name.
        """
        self._check_task(spec.task)
        if spec.expression is None and spec.run_at is None:
            said = "a schedule needs an expression, to fire again and again, or a run_at, to fire once"
            raise Invalid("member_missing", said, field="expression")
        if spec.expression is not None and spec.run_at is not None:
            said = "run_at and expression exclude each other: one is for a single time, the other for many"
            raise Invalid("member_invalid", said, field="run_at")
        if spec.name is not None and _OF_TASK.fullmatch(spec.name):
            raise Invalid(
                "member_invalid",
                "name must not end in a dot and a number: such are the names of the crons of tasks",
                field="name",
            )
        _crontab(spec.expression or "* * * * *", spec.timezone)
        name = self._ids.new() if spec.name is None else spec.name
        return await self._write(lambda: self._created(name, spec))

    async def get(self, name: str) -> Schedule:
        """Return a schedule. Raises `NotFound`."""
        found = await available(self._database.read(store.one_schedule(self._tenant, name)))
        if found is None:
            raise _unknown(name)
        return found

    async def page(
        self, *, task: str | None = None, paused: bool | None = None, cursor: str | None = None, limit: int = 50
    ) -> Page[Schedule]:
        """Return schedules by name: of a task, those that are paused, or those that are not."""
        script = store.page_of_schedules(self._tenant, task=task, paused=paused, after=cursor or "", most=limit + 1)
        found = await available(self._database.read(script))
        items = found[:limit]
        return Page(items, items[-1].name if len(found) > limit else None)

    async def update(self, name: str, changes: Mapping[str, Any]) -> Schedule:
        """Change members of a schedule, named as in `ScheduleSpec`. New times count from now.

        An `expression` takes the place of a `run_at`, and the other way round. Raises `NotFound`, `Invalid`, and
        `Conflict` for one of a task's policy.
        """
        if "task" in changes:
            self._check_task(changes["task"])

        def edited(old: Schedule, now: int) -> Schedule:
            _check_free(old)
            new = old._replace(**changes)
            if "expression" in changes:
                new = new._replace(run_at=None)
            elif "run_at" in changes:
                check_moment(new.run_at, now)
                new = new._replace(expression=None)
            _crontab(new.expression or "* * * * *", new.timezone)
            if _times(new) != _times(old):
                new = new._replace(next_at=None if new.paused else _first(new, now), problem=None)
            return new

        return await self._edit(name, edited)

    async def pause(self, name: str) -> Schedule:
        """Let a schedule fire no more; times that pass meanwhile are not made up for. Raises `NotFound`."""
        return await self._edit(name, lambda old, _: old._replace(paused=True, next_at=None))

    async def resume(self, name: str) -> Schedule:
        """Let a schedule fire again, from now on; one whose only time has passed meanwhile fires now.

        Raises `NotFound`.
        """

        def resumed(old: Schedule, now: int) -> Schedule:
            over = old.run_at is not None and old.last_at is not None and old.last_at >= old.run_at
            return old._replace(paused=False, next_at=None if over else _first(old, now)) if old.paused else old

        return await self._edit(name, resumed)

    async def delete(self, name: str) -> None:
        """Forget a schedule; its runs stay.

        Raises `NotFound`, and `Conflict` for one of a task's policy that a registered worker serves.
        """

        def script() -> Script[None]:
            old = yield from self._locked(name)
            task = self._registry.tasks.get(old.task)
            if task is not None and task.is_served:
                _check_free(old)
            yield from store.delete_schedule(self._tenant, name)

        await self._write(script)

    async def trigger(self, name: str) -> Run:
        """Start a run of a schedule now, whether it is paused or not; its own times stay. Raises `NotFound`.

        Raises what a submit of the run would.
        """
        placed = await self._ask(Fire(name))
        if isinstance(placed, Problem):
            raise placed
        if placed.run is not None:
            return placed.run
        run = await available(self._database.read(views.one_run(self._tenant, placed.run_id)))
        if run is None:
            raise NotFound("run_unknown", f"there is no run {placed.run_id}")
        return run

    async def next(self, name: str, count: int = 10) -> list[int]:
        """Return when a schedule fires next (ms), at most so many times; never while it is paused.

        Raises `NotFound`.
        """
        found = await self.get(name)
        if found.next_at is None or found.expression is None:
            return [] if found.next_at is None else [found.next_at]
        return _some(_crontab(found.expression, found.timezone), found.next_at - 1, count)

    async def fires(self, name: str, *, cursor: str | None = None, limit: int = 50) -> Page[ScheduleFire]:
        """Return what came of a schedule's due times, the newest first. Raises `NotFound`, `Invalid`."""
        since = (await self.get(name)).created_at
        before = store.LAST_FIRE if cursor is None else _read_cursor(cursor)
        script = store.page_of_fires(self._tenant, name, since=since, before=before, most=limit + 1)
        found = await available(self._database.read(script))
        items = found[:limit]
        return Page(items, f"{items[-1].due_at}-{int(items[-1].manual)}" if len(found) > limit else None)

    def preview(self, expression: str, timezone: str = "UTC", count: int = 10) -> list[int]:
        """Return when an expression is due next in a time zone (ms). Raises `Invalid`."""
        return _some(_crontab(expression, timezone), self._clock.now_ms(), count)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _check_task(self, name: str) -> None:
        if name not in self._registry.tasks:
            said = f"there is no task {name}; register a worker that serves it first"
            raise Invalid("task_unknown", said, field="task")

    def _created(self, name: str, spec: ScheduleSpec) -> Script[tuple[Schedule, bool]]:
        now = max(self._desk.last_now, (yield from database_now()))  # a clock that was set back makes up for nothing
        old = yield from store.locked_schedule(self._tenant, name)
        new = Schedule(
            name=name,
            task=spec.task,
            source=Source.API,
            expression=spec.expression,
            timezone=spec.timezone,
            run_at=spec.run_at,
            input=spec.input,
            metadata=spec.metadata,
            priority=spec.priority,
            missed=spec.missed,
            overlap=spec.overlap,
            paused=False,
            next_at=None,
            last_at=None,
            last_run=None,
            problem=None,
            created_at=now,
            updated_at=now,
        )
        if old is not None:
            if _content(old) != _content(new):
                raise Conflict(
                    "schedule_exists",
                    f"there is a schedule {name} already, and it says something else; change it with"
                    f" PATCH /schedules/{name}, or take another name",
                )
            return old, False
        check_moment(spec.run_at, now)
        new = new._replace(next_at=_first(new, now))
        yield from store.add_schedule(self._tenant, new)
        return new, True

    def _locked(self, name: str) -> Script[Schedule]:
        found = yield from store.locked_schedule(self._tenant, name)
        if found is None:
            raise _unknown(name)
        return found

    async def _edit(self, name: str, edit: Callable[[Schedule, int], Schedule]) -> Schedule:
        """Change a schedule as it is now, held by its lock; the second argument is now (ms). Raises `NotFound`."""

        def script() -> Script[Schedule]:
            old = yield from self._locked(name)
            now = max(self._desk.last_now, (yield from database_now()))
            new = edit(old, now)
            if new != old:
                new = new._replace(updated_at=now)
                yield from store.save_schedule(self._tenant, new)
            return new

        return await self._write(script)

    async def _write(self, script: Callable[[], Script[T]]) -> T:
        """Write, once more where another transaction was in the way, and let the server know that starts runs."""
        try:
            done = await available(self._database.write(script()))
        except Clash:
            done = await available(self._database.write(script()))
        self._put(Tick())
        self._changed()
        return done

    async def _ask(self, operation: Fire) -> Placed | Problem:
        if self._desk.draining:
            raise Unavailable("stopping", "the server is stopping", retry_after=1)
        operation.reply = asyncio.get_running_loop().create_future()
        self._put(operation)
        placed: Placed | Problem = await operation.reply
        return placed


def _crontab(expression: str, timezone: str) -> Crontab:
    try:
        return compile_cron(expression, timezone)
    except CronInvalid as error:
        code = "timezone_unknown" if error.field == "timezone" else "cron_invalid"
        raise Invalid(code, str(error), field=error.field) from None


def _first(one: Schedule, now: int) -> int | None:
    """Return when a schedule fires first from now on (ms)."""
    if one.expression is None:
        return None if one.run_at is None else max(one.run_at, now)
    return _crontab(one.expression, one.timezone).after(now)


def _some(crontab: Crontab, after: int, count: int) -> list[int]:
    return list(islice(crontab.times(after), count))


def _times(one: Schedule) -> tuple[str | None, str, int | None]:
    return one.expression, one.timezone, one.run_at


def _content(one: Schedule) -> tuple[Any, ...]:
    """Return what was asked for; a second schedule that asks for the same is no other one."""
    return (one.source, one.task, *_times(one), one.input, one.metadata, one.priority, one.missed, one.overlap)


def _check_free(one: Schedule) -> None:
    if one.source is Source.TASK:
        raise Conflict(
            "schedule_of_task",
            f"schedule {one.name} stands in the policy of task {one.task}: change its crons there,"
            " or pause the schedule",
        )


def _unknown(name: str) -> NotFound:
    return NotFound("schedule_unknown", f"there is no schedule {name[:64]}")


def _read_cursor(cursor: str) -> store.FirePlace:
    found = _CURSOR.fullmatch(cursor)
    if found is None:
        raise Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor")
    return int(found[1]), int(found[2])

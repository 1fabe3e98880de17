"""Rate limits as people put them, look at them and pause them, and tasks as they pause them.

What is changed is stored, read anew by every server, and in force with the next turn of the one that starts runs.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from hurlbat_dispatcher.availability import available
from hurlbat_dispatcher.clock import Clock
from hurlbat_dispatcher.domain.policies import RateDraw, StaticLimit
from hurlbat_dispatcher.domain.runs import Task
from hurlbat_dispatcher.errors import Conflict, Invalid, NotFound
from hurlbat_dispatcher.pages import Page
from hurlbat_dispatcher.registry import Registry
from hurlbat_dispatcher.store import limits as store
from hurlbat_dispatcher.store.database import Clash, Database
from hurlbat_dispatcher.store.limits import name_of
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.turn.desk import Desk

T = TypeVar("T")
Drawn = Mapping[RateDraw, int]
"""What lanes draw of rate limits, and how many of their runs are due and wait."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate limit as it is shown: at most `limit` units in any `duration` ms. Times are ms since the epoch.

    `used` is how many units count now, None where another server counts them; `waiting` is how many runs are due and
    wait that draw on it. A dynamic key that is paused while nothing draws on it has neither limit nor duration.
    """

    key: str
    dynamic: bool
    limit: int | None = None
    duration: int | None = None
    used: int | None = None
    waiting: int = 0
    paused: bool = False
    paused_until: int | None = None
    updated_at: int | None = None


class Limits:
    """All rate limits, and what is paused besides workers."""

    def __init__(
        self,
        tenant: int,
        database: Database,
        registry: Registry,
        desk: Desk,
        clock: Clock,
        *,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._tenant = tenant
        self._database = database
        self._registry = registry
        self._desk = desk
        self._clock = clock
        self._announce = announce

    # -- what people ask for -----------------------------------------------------------------------------------------

    async def put(self, key: str, most: int, duration: int) -> tuple[RateLimit, bool]:
        """Allow at most `most` units of a key in any `duration` ms; return it, and whether the key is a new one."""
        created = await self._change(lambda: store.put_limit(self._tenant, key, most, duration))
        return await self.get(key), created

    async def get(self, key: str) -> RateLimit:
        """Return a static rate limit. Raises `NotFound`."""
        limit = self._known(key)
        return self._static(limit, _static_waiting(await self._drawn(key)))

    async def page(self, *, cursor: str | None = None, limit: int = 50) -> Page[RateLimit]:
        """Return the static rate limits by key."""
        waiting = _static_waiting(await self._drawn())
        limits = self._registry.limits
        keys = sorted(key for key in limits if cursor is None or key > cursor)
        shown = keys[:limit]
        return Page([self._static(limits[key], waiting) for key in shown], shown[-1] if len(keys) > limit else None)

    async def dynamic_page(self, *, cursor: str | None = None, limit: int = 50) -> Page[RateLimit]:
        """Return the dynamic rate limits that are in use or paused, by key and duration. Raises `Invalid`.

        Of a key and duration that come with several limits the largest is shown.
        """
        after = _read_cursor(cursor) if cursor is not None else ("", -1)
        found = [one for one in self._dynamic(await self._drawn()) if _place(one) > after]
        shown = found[:limit]
        return Page(shown, _cursor_of(shown[-1]) if len(found) > limit else None)

    async def delete(self, key: str) -> None:
        """Forget a static rate limit. Raises `NotFound`, and `Conflict` while runs that have not ended draw on it."""
        self._known(key)
        runs = await available(self._database.read(store.drawing_on(self._tenant, key)))
        if runs:
            raise Conflict(
                "rate_limit_in_use",
                f"runs that have not ended draw on the rate limit {key}, such as {', '.join(runs)};"
                " let them end, or cancel them first",
                runs=runs,
            )
        await self._change(lambda: store.delete_limit(self._tenant, key))

    async def pause(self, key: str, *, dynamic: bool = False) -> RateLimit:
        """Start nothing that draws on a key until it is resumed. Raises `NotFound` for an unknown static one."""
        return await self._pause(key, dynamic, store.pause_key)

    async def resume(self, key: str, *, dynamic: bool = False) -> RateLimit:
        """Start what draws on a key again. Raises `NotFound` for an unknown static one."""
        return await self._pause(key, dynamic, store.resume_key)

    async def pause_task(self, name: str) -> Task:
        """Start no more runs of a task; what is running goes on. Raises `NotFound`."""
        return await self._pause_task(name, True)

    async def resume_task(self, name: str) -> Task:
        """Start a task's runs again. Raises `NotFound`."""
        return await self._pause_task(name, False)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _known(self, key: str) -> StaticLimit:
        found = self._registry.limits.get(key)
        if found is None:
            raise NotFound("rate_limit_unknown", f"there is no rate limit {key}; PUT /rate-limits/{key} makes it")
        return found

    async def _pause(self, key: str, dynamic: bool, script: Callable[[int, str], Script[None]]) -> RateLimit:
        if not dynamic:
            self._known(key)
        await self._change(lambda: script(self._tenant, name_of(key, dynamic=dynamic)))
        return self._bare(key) if dynamic else await self.get(key)

    async def _pause_task(self, name: str, paused: bool) -> Task:
        if name not in self._registry.tasks and name not in self._registry.removed:
            raise NotFound("task_unknown", f"there is no task {name}")
        await self._change(lambda: store.pause_task(self._tenant, name, paused))
        return self._registry.tasks.get(name) or self._registry.removed[name]

    async def _change(self, script: Callable[[], Script[T]]) -> T:
        """Write, once more where another server has just written the same, and let all servers know."""
        try:
            done = await available(self._database.write(script()))
        except Clash:
            done = await available(self._database.write(script()))
        await available(self._announce())
        return done

    async def _drawn(self, key: str | None = None) -> Drawn:
        return await available(self._database.read(store.draws_on_rates(self._tenant, key)))

    def _static(self, limit: StaticLimit, waiting: Mapping[str, int]) -> RateLimit:
        name = name_of(limit.key)
        paused, until = self._paused(name)
        return RateLimit(
            limit.key,
            dynamic=False,
            limit=limit.most,
            duration=limit.duration,
            used=self._used(name, limit.duration),
            waiting=waiting.get(limit.key, 0),
            paused=paused,
            paused_until=until,
            updated_at=limit.updated_at,
        )

    def _dynamic(self, drawn: Drawn) -> list[RateLimit]:
        """Return what is in use or paused, in order."""
        waiting: dict[tuple[str, int], int] = {}
        limits: dict[tuple[str, int], int] = {}
        for draw, count in drawn.items():
            if not draw.is_static:
                at = draw.key, draw.duration
                waiting[at] = waiting.get(at, 0) + count
                limits[at] = max(limits.get(at, 0), draw.limit)
        found = []
        for key, duration in limits:
            name = name_of(key, dynamic=True)
            used = self._used(name, duration)
            count = waiting[key, duration]
            paused, until = self._paused(name)
            if used != 0 or count or paused:  # lanes are remembered for a while after their last run
                found.append(RateLimit(key, True, limits[key, duration], duration, used, count, paused, until))
        drawn_on = {one.key for one in found}
        names = (name.partition(":") for name in tuple(self._registry.pauses))
        idle = [self._bare(key) for kind, _, key in names if kind == "dynamic" and key not in drawn_on]
        return sorted(found + [one for one in idle if one.paused], key=_place)

    def _bare(self, key: str) -> RateLimit:
        """Return a dynamic key without what is drawn of it."""
        paused, until = self._paused(name_of(key, dynamic=True))
        return RateLimit(key, dynamic=True, paused=paused, paused_until=until)

    def _paused(self, name: str) -> tuple[bool, int | None]:
        if name not in self._registry.pauses:
            return False, None
        until = self._registry.pauses[name]
        return (True, until) if until is None or until > self._clock.now_ms() else (False, None)

    def _used(self, name: str, duration: int) -> int | None:
        if not self._desk.owns:
            return None
        rate = self._desk.picture.rates.get((name, duration))
        return 0 if rate is None else rate.counted(self._clock.now_ms())


def _static_waiting(drawn: Drawn) -> dict[str, int]:
    found: dict[str, int] = {}
    for draw, count in drawn.items():
        if draw.is_static:
            found[draw.key] = found.get(draw.key, 0) + count
    return found


def _place(one: RateLimit) -> tuple[str, int]:
    return one.key, one.duration or 0


def _cursor_of(one: RateLimit) -> str:
    key, duration = _place(one)
    return urlsafe_b64encode(f"{duration}:{key}".encode()).decode()


def _read_cursor(cursor: str) -> tuple[str, int]:
    try:
        duration, _, key = urlsafe_b64decode(cursor).decode().partition(":")
        return key, int(duration)
    except ValueError as error:
        raise Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor") from error

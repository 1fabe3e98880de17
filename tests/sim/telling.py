"""Tells one history from its seed, and holds its end against what was promised."""

import asyncio
import logging
from collections import Counter
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import structlog
from sqlalchemy.dialects.sqlite import pysqlite

from hurlbat_dispatcher.checkup import Code, Severity, strict_checkup
from hurlbat_dispatcher.domain.flow import Picture
from hurlbat_dispatcher.simulation.disk import Disk
from hurlbat_dispatcher.simulation.world import Server
from hurlbat_dispatcher.store import views
from hurlbat_dispatcher.store.sqlite import transact
from hurlbat_dispatcher.store.statement import Script
from hurlbat_dispatcher.turn.desk import Desk
from hurlbat_dispatcher.turn.due import rebuild
from tests.sim.history import Rule, Violation
from tests.sim.plan import Plan, plan_of
from tests.sim.story import LIMIT, Story
from tests.sim.timeline import disagreements

T = TypeVar("T")

BOUND: Final = 240.0
"""Seconds of calm within which everything that was acknowledged ends."""
PROMPT: Final = 45.0
"""Seconds of calm within which a new run ends: less than the time between two sweeps of a server that is alone."""
REST: Final = 20.0
"""Seconds after the last end within which no slot is held."""
AWAKE: Final = 30.0
"""Seconds of calm after which somebody looks after workers: a late answer may have stopped one once more."""
EACH: Final = 4
"""Runs of each key that wait at once, when it is seen whether turns rotate."""
LATEST: Final = 120.0
"""Seconds after which no answer is on its way any more."""
_MISTAKES: Final = frozenset({"a turn broke", "an operation failed", "a delivery failed"})
_MAY_MEET_TROUBLE: Final = frozenset({"what was done beside failed", "a background duty failed"})


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one history. `seconds` are virtual, `faults` those that struck, by kind."""

    plan: Plan
    violations: tuple[Violation, ...]
    trace: tuple[str, ...]
    digest: str
    seconds: float
    counts: Counter[str]
    faults: Counter[str]


def tell(
    seed: int, mode: str = "both", *, flow_control: bool = True, ways: bool = True, composition: bool = True
) -> Told:
    """Tell the history of this seed, in one of `plan.MODES`."""
    return tell_plan(plan_of(seed, mode, flow_control=flow_control, ways=ways, composition=composition))


def tell_plan(plan: Plan) -> Told:
    """Tell a history as planned."""
    story = Story(plan)
    before = structlog.get_config()
    structlog.configure(processors=[_Ear(story)], wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        with suppress(_GivenUp):
            story.simulation.run(_live(story))
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            story.history.broke(Rule.MISTAKE, f"nobody caught {error!r}")
    finally:
        structlog.configure(**before)
        story.simulation.disk.on_commit = None
        seconds = story.simulation.loop.time()
        trace, digest = tuple(story.simulation.trace), story.simulation.digest
        story.simulation.close()
    struck = Counter({str(fault): count for fault, count in story.simulation.trouble.struck.items()})
    return Told(plan, tuple(story.history.violations), trace, digest, seconds, story.history.counts, struck)


class _GivenUp(Exception):
    """The history cannot go on."""


class _Ear:
    """Hears what servers log: that a part of them made a mistake is a violation."""

    def __init__(self, story: Story) -> None:
        self._story = story

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> str:
        said = event.get("event")
        error = str(event.get("error"))
        if said in _MISTAKES or (said in _MAY_MEET_TROUBLE and "DatabaseTrouble" not in error):
            self._story.history.broke(Rule.MISTAKE, f"{said}: {error}")
        raise structlog.DropEvent


async def _live(story: Story) -> None:
    plan, simulation = story.plan, story.simulation
    faults, simulation.trouble.faults = simulation.trouble.faults, simulation.trouble.faults.calm()
    story.wire.calm = True
    for name in story.names:
        await story.start(name)
    await story.register()
    story.wire.calm = False
    simulation.trouble.faults = faults
    until = simulation.loop.time() + plan.trouble
    others = (story.mishaps, story.operator, story.ways, story.composition)
    around = [asyncio.ensure_future(one.live(until)) for one in others]
    await story.client.live(until)
    await asyncio.gather(*around)
    if plan.calms_down:
        await _calm_down(story)
    else:
        for name in story.names:
            simulation.kill(name)
    _look_back(story)


async def _calm_down(story: Story) -> None:
    """Let all be well, and see that everything ends and nothing is left."""
    story.history.note("all is well")
    try:
        async with asyncio.timeout(BOUND):
            await story.mishaps.make_well()
    except TimeoutError:
        story.history.broke(Rule.ENDS, f"the servers do not work again within {BOUND:g} s")
        raise _GivenUp from None
    slack = (
        2 * LIMIT if story.history.set_back else 0.0
    )  # what waits for a time waits for the clock to come there again
    await _until(story, BOUND, lambda: story.checker.ways.late(story.simulation.disk.clock.now_ms()))
    await story.ways.make_well()
    story.spawn(story.composition.give_up())
    await _until(story, BOUND + slack, lambda: _unfinished(story))
    probes = [await story.client.probe(task.name) for task in story.plan.usual]
    waits = slack if story.plan.flow.on else 0.0  # units that were stored in times to come
    await _until(story, PROMPT + waits, lambda: [run_id for run_id in probes if not story.rows[run_id].final])
    await _take_turns(story)
    left = await _until(story, REST + slack, lambda: _held(story), Rule.LEFT)
    left += await _until(story, LATEST, lambda: _uncounted(story), Rule.LEFT)
    if not left:
        await _hold_pictures(story)


async def _until(story: Story, seconds: float, missing: Any, rule: Rule = Rule.ENDS) -> list[str]:
    """Wait until nothing is missing; after so many seconds that is a violation."""
    until = story.simulation.loop.time() + seconds
    looked = story.simulation.loop.time()
    while missing_now := missing():
        for what in story.checker.flow.idle(story.simulation.disk.clock.now_ms()):
            story.history.broke(*what)
        if story.simulation.loop.time() > looked + AWAKE:
            looked = story.simulation.loop.time()
            await story.mishaps.wake_workers()
        if story.simulation.loop.time() >= until:
            story.history.broke(rule, f"after {seconds:g} s of calm: {', '.join(missing_now[:5])}")
            return list(missing_now)
        await asyncio.sleep(0.5)
    return []


async def _take_turns(story: Story) -> None:
    """See that turns rotate over the keys, where one rule says so and nothing else holds back."""
    for task, policy in ((task.name, story.policies[task.name]) for task in story.plan.usual):
        rules = policy.get("concurrency", ())
        if [rule["strategy"] for rule in rules] == ["GROUP_ROUND_ROBIN"] and not policy.get("rate_limits"):
            keys = await story.client.crowd(task, EACH)
            await _until(story, BOUND, lambda keys=keys: [one for one in keys if not story.rows[one].final])
            for what in story.checker.flow.turns(keys):
                story.history.broke(Rule.TURNS, what)
            return


def _unfinished(story: Story) -> list[str]:
    waiting = [f"{row.id} is {row.state}" for row in story.rows.values() if not row.final]
    busy = story.client.busy + story.ways.busy + story.composition.busy
    return waiting or ([f"{busy} calls have no answer"] if busy else [])


def _held(story: Story) -> list[str]:
    return [f"{row.id} is {row.state} and holds a slot" for row in story.rows.values() if row.occupies]


def _uncounted(story: Story) -> list[str]:
    """Return what servers hold in memory though nothing runs."""
    left = []
    for server in _servers(story):
        parts = server.engine._parts
        if parts is not None:
            running = parts.desk.picture.running if parts.desk.owns else ()
            left += [f"{server.name} has {run_id} in flight" for run_id in running]
            left += [f"{server.name} has {key} in its outbox" for key in parts.outbox.handed_over]
    return left


async def _hold_pictures(story: Story) -> None:
    """Hold what the owner counts in memory against what the rows say."""
    for server in _servers(story):
        parts = server.engine._parts
        if parts is None or not parts.desk.owns:
            continue
        desk = Desk(
            me=parts.desk.me,
            registry=parts.registry,
            chance=parts.desk.chance,
            lease=parts.desk.lease,
            report_base="",
            lease_tokens=parts.lease_tokens,
            clock=server.clock,
        )
        _read(story.simulation.disk, rebuild(desk))
        now = max(desk.last_now, parts.desk.last_now)
        kept, read = _counted(parts.desk.picture, now), _counted(desk.picture, now)
        if kept != read:
            story.history.broke(Rule.PICTURE, f"{server.name} counts {kept} and the rows say {read}")


def _counted(picture: Picture, now: int) -> Any:
    used = {name: slots.used for name, slots in picture.slots.items() if slots.used}
    used |= {group.name: group.used for group in picture.groups.values() if group.used}
    waiting = {lane.id: lane.head() for lane in picture.lanes.values() if lane.head() is not None}
    spent = {key: rate.counted(now) for key, rate in picture.rates.items()}
    spent |= {key: sum(units for _, last, units in marks if last + key[1] > now) for key, marks in picture.cold.items()}
    return sorted(picture.running), used, waiting, sorted(picture.members), {key: n for key, n in spent.items() if n}


def _servers(story: Story) -> list[Server]:
    return [story.started[name] for name in story.names if name in story.started]


def _look_back(story: Story) -> None:
    """Hold the whole history against what is stored at its end."""
    story.checker.look_back()
    disk = story.simulation.disk
    for finding in _read(disk, strict_checkup()):
        clock = story.history.set_back and finding.code in (Code.STARTED_EARLY, Code.RATE_OVERSOLD)
        changed = story.plan.flow.doings and finding.code in (Code.GROUP_OVERSOLD, Code.RATE_OVERSOLD)
        if finding.severity is Severity.VIOLATION and not clock and not changed:
            story.history.broke(Rule.SNAPSHOT, finding.sentence)
    for row in story.rows.values():
        run = _read(disk, views.one_run(1, row.id))
        for what in disagreements(run, set_back=story.history.set_back) if run is not None else ["it is not found"]:
            story.history.broke(Rule.TIMELINE, f"{row.id}: {what}")


def _read(disk: Disk, script: Script[T]) -> T:
    """Read from outside of the world: nothing goes wrong."""
    return transact(disk.connection, pysqlite.dialect(), script, "BEGIN", "ROLLBACK")

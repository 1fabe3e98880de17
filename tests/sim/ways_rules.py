"""The ways in which runs start, held against what is committed: fires, events, callbacks, gathering and moves.

A second opinion: what ought to start is worked out here once more, from the plan and from rows, in the plainest words.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any, Final

from tests.sim.history import History, Rule
from tests.sim.plan import Plan
from tests.sim.rows import Change, Moment, Row
from tests.sim.ways_plan import due_times
from tests.sim.ways_rows import EventRow, FireRow, ScheduleRow, StartRow, WaysReader

Complaint = tuple[Rule, str]
Trigger = Mapping[str, Any]

SAME: Final = 2
"""Milliseconds by which two times of one transaction may differ."""
LATE: Final = 60_000
"""Milliseconds after which a due time counts as missed."""
MOST: Final = 1_000
"""Missed times that are made up for at most."""
DEED: Final = {"INSERT": "new", "UPDATE": "changed", "DELETE": "gone"}


class WaysRules:
    """What was fired and published, and what became of it. `rows` is what is committed now."""

    def __init__(
        self, connection: sqlite3.Connection, history: History, rows: Mapping[str, Row], plan: Plan, settle: int
    ) -> None:
        self._reader = WaysReader(connection)
        self._history = history
        self._rows = rows
        self._plan = plan
        self._settle = settle
        self._served: list[tuple[int, frozenset[str]]] = [(-1, frozenset())]
        """Which tasks were served by some worker, from when on (ms); who decides may not know it yet."""
        self.schedules: dict[str, ScheduleRow] = {}
        """The schedules as they are committed."""
        self._fires: dict[tuple[str, int, int], FireRow] = {}
        self._events: dict[str, EventRow] = {}
        self._starts: dict[str, list[StartRow]] = defaultdict(list)
        self._run_of: dict[tuple[str, int, bool], str] = {}
        """The run of each due time of a schedule."""
        self.commits = 0
        """How many commits there were."""
        self._inputs: dict[str, list[tuple[int, str]]] = defaultdict(list)
        """All inputs that a run of a gathering task ever had, each with the number of the commit that brought it."""
        self.submitted: set[str] = set()
        """What was submitted to be gathered; what events bring may come once for each filter."""
        self._items: dict[str, str] = {}
        """The run that has an item of a batch."""

    def committed(self, changes: Sequence[Change], moment: Moment) -> None:
        """Look at what a commit has changed."""
        for what in self._complaints(changes, moment):
            self._history.broke(*what)

    def _complaints(self, changes: Sequence[Change], moment: Moment) -> Iterator[Complaint]:
        self.commits += 1
        touched = self._reader.touched()
        if "worker" in touched:
            self._served.append((moment.now, self._reader.served()))
        if touched or self._plan.ways.on:
            born = {change.after.id: change.after for change in changes if change.before is None and change.after}
            ended = {change.after.id for change in changes if change.before and change.after and change.after.final}
            yield from self._fired(touched, born, born.keys() | ended, moment)
            yield from self._published(touched, born, moment)
            yield from self._called(changes, born)
            for change in changes:
                yield from self._gathered(change, moment)

    # -- schedules -----------------------------------------------------------------------------------------------------

    def _fired(
        self,
        touched: Mapping[str, Sequence[tuple[int, str]]],
        born: Mapping[str, Row],
        alive: AbstractSet[str],
        moment: Moment,
    ) -> Iterator[Complaint]:
        """Complain of fires. `alive` are runs that lived at the commit, as far as that cannot be seen of them now."""
        places = touched.get("schedule_fire", ())
        if any(deed != "INSERT" for _, deed in places):
            yield Rule.FIRES, "a fire that was stored was changed or removed"
        fires = self._reader.fires([place for place, _ in places]) if places else []
        before = self.schedules
        if "schedule" in touched:
            self.schedules = self._reader.schedules()
        for fire in fires:
            known = self._fires.setdefault((fire.schedule, fire.due_at, fire.manual), fire)
            if known is not fire:
                yield Rule.FIRES, f"{fire.schedule} fired twice for {fire.due_at}"
        for run in born.values():
            yield from self._by_schedule(run)
        for fire in fires:
            newer = any(other.schedule == fire.schedule and other.due_at > fire.due_at for other in fires)
            yield from self._one_fire(fire, before.get(fire.schedule), born, alive, moment, newer=newer)
        of = {fire.schedule for fire in fires if not fire.manual}
        for name, now in self.schedules.items():
            was = before.get(name)
            if was is not None and was.next_at != now.next_at:
                yield from self._moved_on(was, now, moment, fired=name in of)

    def _one_fire(
        self,
        fire: FireRow,
        schedule: ScheduleRow | None,
        born: Mapping[str, Row],
        alive: AbstractSet[str],
        moment: Moment,
        *,
        newer: bool,
    ) -> Iterator[Complaint]:
        called = f"{fire.schedule} at {fire.due_at}"
        if fire.due_at > moment.now + SAME:
            yield Rule.FIRES, f"{called} fired {fire.due_at - moment.now} ms before it was due"
        if not fire.manual and not moment.by_owner:
            yield Rule.OWNER, f"{moment.process} fired {called} and does not own the lanes"
        if schedule is None:
            return
        if not fire.manual and schedule.next_at is None:
            yield Rule.FIRES, f"{called} fired, and is paused or over"
        match fire.outcome:
            case "started":
                run = self._rows.get(fire.run or "")
                trigger = {} if run is None else _trigger(run)
                gathers = schedule.task in self._plan.ways.gathered
                told = trigger.get("schedule") == fire.schedule and trigger.get("manual") is bool(fire.manual)
                before = [one.id for one in self._of_schedule(fire.schedule) if not one.final and one.id not in born]
                if schedule.overlap == "skip" and not fire.manual and before:
                    yield Rule.FIRES, f"{called} started {fire.run} beside {before}"
                if run is None or not (gathers or (told and run.id in born)):
                    yield Rule.FIRES, f"{called} started {fire.run}, which is not stored with it: {trigger}"
            case "overlap":
                lived = [run for run in self._of_schedule(fire.schedule) if not run.final or run.id in alive]
                if schedule.overlap == "allow" or not (lived or (newer and schedule.overlap == "cancel")):
                    yield Rule.FIRES, f"{called} was left out, and no run of it was alive"
            case "missed":
                if fire.due_at > moment.now - LATE + SAME or schedule.missed == "all":
                    yield Rule.FIRES, f"{called} was missed {moment.now - fire.due_at} ms past: {schedule.missed}"
            case _:
                if not self._plan.flow.on and self._is_served(schedule.task, moment.now):
                    yield Rule.FIRES, f"{called} failed: {fire.reason}"

    def _by_schedule(self, run: Row) -> Iterator[Complaint]:
        trigger = _trigger(run)
        if trigger.get("type") != "schedule" or run.task in self._plan.ways.gathered:
            return
        due_at = _ms(trigger["due_at"])
        own = (trigger["schedule"], due_at, trigger["manual"])
        other = self._run_of.setdefault(own, run.id)
        if other != run.id:
            yield Rule.FIRES, f"{run.id} and {other} are both of {own}"
        fire = self._fires.get((trigger["schedule"], due_at, int(trigger["manual"])))
        if fire is None or fire.run != run.id:
            yield Rule.FIRES, f"{run.id} is of {own}, and no fire says so"

    def _of_schedule(self, name: str) -> Iterator[Row]:
        for (schedule, _, _), run_id in self._run_of.items():
            if schedule == name and run_id in self._rows:
                yield self._rows[run_id]

    def _moved_on(self, was: ScheduleRow, now: ScheduleRow, moment: Moment, *, fired: bool) -> Iterator[Complaint]:
        """Hold every due time that a schedule has left behind against what was fired."""
        called = f"{now.name} went from {was.next_at} to {now.next_at}"
        changed = (was.expression, was.timezone, was.run_at, was.paused) != (
            now.expression,
            now.timezone,
            now.run_at,
            now.paused,
        )
        if changed and not fired:
            if now.next_at is not None and now.next_at < moment.least - SAME and now.expression is not None:
                yield Rule.FIRES, f"{called}, which is over, by a change"
            return
        if was.next_at is None:
            yield Rule.FIRES, f"{called} by nobody"
            return
        until = moment.now + SAME if now.next_at is None else now.next_at - 1
        if was.expression is None:
            left = [was.next_at]
        else:
            left = due_times(was.expression, was.next_at - 1, until)
        old = [time for time in left if time <= moment.now - LATE + SAME]
        kept = {"skip": 0, "once": 1, "all": MOST}[was.missed]
        excused = set(old[: len(old) - kept] if kept < len(old) else ()) if kept else set(old)
        lost = [time for time in left if (now.name, time, 0) not in self._fires and time not in excused]
        if lost:
            yield Rule.FIRES, f"{called} at {moment.now}, and {lost[:5]} of {len(lost)} were never fired"

    def _is_served(self, task: str, now: int) -> bool:
        """Tell whether everybody must know that a worker serves the task."""
        since = now - self._settle
        newest = [tasks for at, tasks in self._served if at > since]
        before = [tasks for at, tasks in self._served if at <= since]
        return all(task in tasks for tasks in (*before[-1:], *newest))

    def late(self, now: int) -> list[str]:
        """Return the schedules whose time has come, and that were not fired for a while."""
        found = self.schedules.values()
        return [f"{one.name} is due since {one.next_at}" for one in found if one.next_at and one.next_at < now - 3_000]

    # -- events --------------------------------------------------------------------------------------------------------

    def _published(
        self, touched: Mapping[str, Sequence[tuple[int, str]]], born: Mapping[str, Row], moment: Moment
    ) -> Iterator[Complaint]:
        for table in ("event", "event_start"):
            for deed in {deed for _, deed in touched.get(table, ())} - {"INSERT"}:
                yield Rule.LISTENS, f"a row of {table} that was stored is {DEED[deed]}"
        events = self._reader.events([place for place, _ in touched["event"]]) if "event" in touched else []
        starts = self._reader.starts([place for place, _ in touched["event_start"]]) if "event_start" in touched else []
        new = {event.id: event for event in events}
        for event in events:
            self._events[event.id] = event
        for start in starts:
            self._starts[start.event].append(start)
            if start.event not in new:
                yield Rule.LISTENS, f"{start.task} was told of the event {start.event} after it was stored"
        for event in events:
            yield from self._one_event(event, self._starts[event.id], born, moment)
        for run in born.values():
            trigger = _trigger(run)
            if trigger.get("type") == "event" and not any(
                start.run == run.id for start in self._starts.get(trigger["event"], ())
            ):
                yield Rule.LISTENS, f"{run.id} is of the event {trigger['event']}, which does not say so"

    def _one_event(
        self, event: EventRow, starts: Sequence[StartRow], born: Mapping[str, Row], moment: Moment
    ) -> Iterator[Complaint]:
        told = {start.task for start in starts}
        expected = [
            one
            for one in self._plan.ways.listeners(event.key, event.scope, json.loads(event.payload))
            if one[0] in told or self._is_served(one[0], moment.now)
        ]
        wanted = Counter((task, rule) for task, rule, _ in expected)
        if wanted != Counter((start.task, start.filter) for start in starts):
            yield Rule.LISTENS, f"of {event} were told {starts}, and there are {expected}"
            return
        verdicts: dict[tuple[str, str | None], list[str]] = defaultdict(list)
        for task, rule, says in expected:
            verdicts[task, rule].append({True: "started", False: "filtered", None: "failed"}[says])
        for start in starts:
            wanted_of = verdicts[start.task, start.filter]
            refused = start.outcome == "failed" and "started" in wanted_of and self._plan.flow.on
            if start.outcome not in wanted_of and not refused:
                yield Rule.LISTENS, f"{start} for {event}, and it ought to be {wanted_of}"
                continue
            wanted_of.remove("started" if refused and start.outcome not in wanted_of else start.outcome)
            if (start.run is not None) != (start.outcome == "started"):
                yield Rule.LISTENS, f"{start} for {event}"
            elif start.run is not None:
                yield from self._one_start(event, start, born)

    def _one_start(self, event: EventRow, start: StartRow, born: Mapping[str, Row]) -> Iterator[Complaint]:
        run = self._rows.get(start.run or "")
        if run is None or run.task != start.task:
            yield Rule.LISTENS, f"{start} is of {event}, and its run is {run}"
        elif start.task not in self._plan.ways.gathered:
            trigger = _trigger(run)
            if (trigger.get("event"), trigger.get("filter")) != (event.id, start.filter) or run.id not in born:
                yield Rule.LISTENS, f"{start} is of {event}, and its run says {trigger}"
            if run.input != event.payload:
                yield Rule.LISTENS, f"{run.id} of {event} has another input: {run.input}"

    def event_is_stored(self, event_id: str) -> bool:
        """Tell whether an event is committed."""
        return event_id in self._events

    # -- callbacks -----------------------------------------------------------------------------------------------------

    def _called(self, changes: Sequence[Change], born: Mapping[str, Row]) -> Iterator[Complaint]:
        called: dict[str, list[Row]] = defaultdict(list)
        for run in born.values():
            trigger = _trigger(run)
            if trigger.get("type") == "failure":
                called[trigger["run"]].append(run)
        for change in changes:
            after = change.after
            if after is None or after.state != "failed" or (change.before is not None and change.before.final):
                continue
            on_failure = self._plan.task(after.task).policy.get("on_failure")
            wanted = [on_failure] if on_failure and _trigger(after).get("type") != "failure" else []
            found = [run.task for run in called.pop(after.id, ())]
            if found != wanted:
                yield Rule.CALLED, f"{after.id} of {after.task} has failed, and {found} was called in its commit"
        for run_id in called:
            yield Rule.CALLED, f"{run_id} did not fail in the commit that called for it"

    # -- gathering -----------------------------------------------------------------------------------------------------

    def _gathered(self, change: Change, moment: Moment) -> Iterator[Complaint]:
        before, after = change.before, change.after
        if after is None or after.task not in self._plan.ways.gathered:
            return
        if before is not None and before.input == after.input:
            return
        policy = self._plan.ways.gathered[after.task]
        if before is not None and (before.attempt, before.state) != (0, "queued"):
            yield Rule.GATHERED, f"{after.id} was {before.state} in attempt {before.attempt} and got {after.input}"
        self._inputs[after.id].append((self.commits, after.input))
        if "batch_size" in policy:
            yield from self._batch(before, after, policy)
        elif policy["debounce"].get("mode") == "leading":
            if before is not None:
                yield Rule.GATHERED, f"{after.id} leads, and got another input: {after.input}"
        elif not self._history.set_back and after.attempt == 0 and after.state == "queued":
            rule = policy["debounce"]
            until = moment.now + round(rule["period"] * 1000)
            if "max_wait" in rule:
                until = min(until, after.created_at + round(rule["max_wait"] * 1000))
            if abs(after.due_at - until) > SAME:
                yield Rule.GATHERED, f"{after.id} is due at {after.due_at} and not at {until}"

    def _batch(self, before: Row | None, after: Row, policy: Mapping[str, Any]) -> Iterator[Complaint]:
        items: list[Any] = json.loads(after.input)
        was: list[Any] = [] if before is None else json.loads(before.input)
        if items[: len(was)] != was or len(items) > policy["batch_size"]:
            yield Rule.GATHERED, f"{after.id} had {was} and has {items}"
        for item in items[len(was) :]:
            said = json.dumps(item)
            other = self._items.setdefault(said, after.id) if said in self.submitted else after.id
            if said in self.submitted and (other != after.id or items.count(item) > 1):
                yield Rule.GATHERED, f"{item} is in {after.id} and in {other}"

    def has(self, run_id: str, asked: str, since: int) -> bool:
        """Tell whether a run has, or had, what was asked for when there were so many commits.

        Of several in one commit only the last is seen, where it takes the place of the others.
        """
        row, known = self._rows[run_id], self._inputs.get(run_id, ())
        if "batch_size" in self._plan.ways.gathered[row.task]:
            return json.loads(asked) in json.loads(row.input)
        return any(number > since or text == asked for number, text in known)


def _trigger(run: Row) -> Trigger:
    found: Trigger = json.loads(run.trigger or "{}")
    return found


def _ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)

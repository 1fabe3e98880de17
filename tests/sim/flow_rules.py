"""Flow control, held against what is committed: rooms in groups and windows, pauses, and whom rules may cancel.

A second opinion: it counts rows and stamps, and knows nothing of pictures, lines and rings.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from tests.sim.history import History, Key, Rule
from tests.sim.plan import Plan
from tests.sim.rows import Change, Moment, Row
from tests.sim.terms import Book, Draws, Rate, Terms

Group = tuple[str, str]
Complaint = tuple[Rule, str]
LINES: Final = {"QUEUE_NEWEST_ONLY": 1, "QUEUE_OLDEST_ONLY": 1}
"""How many runs that never started wait in a group, at most; for others, as many as may run."""
SAME: Final = 5
"""Milliseconds that a commit may take."""
LATER: Final = 2_000
"""Milliseconds after which what could not be done in one turn has been done in another."""
IDLE: Final = 25_000
"""Milliseconds for which a worker may have nothing to do beside a run that could start there."""


@dataclass(frozen=True, slots=True)
class Use:
    """Units of a rate limit, and when (ms) the attempt started that took them."""

    at: int
    rate: Rate


class FlowRules:
    """What was started, and who lives in which group. `rows` is what is committed now."""

    def __init__(self, book: Book, history: History, rows: Mapping[str, Row], plan: Plan) -> None:
        self.book = book
        self._fits = {task.name: plan.fits(task.name) for task in plan.tasks}
        self.starts: list[tuple[str, str, int]] = []
        """Every start in order: run, worker, when (ms)."""
        self._history = history
        self._rows = rows
        self._ended_by: dict[str, str] = {}
        """The process that has stored the end of a run."""
        self._uses: dict[str, dict[Key, Use]] = defaultdict(dict)
        self._members: dict[Group, dict[str, None]] = defaultdict(dict)
        """All runs that were ever due in a group."""
        self._crowded: dict[Group, tuple[int, int]] = {}
        self._could: dict[tuple[str, str], int] = {}
        self._epoch = -1
        self._alone = not plan.shared

    # -- commits -------------------------------------------------------------------------------------------------------

    def committed(self, changes: Sequence[Change], moment: Moment) -> None:
        """Look at what a commit has changed."""
        self.book.committed(moment.now)
        if moment.epoch != self._epoch:
            self._epoch = moment.epoch
            self._crowded.clear()
            self.book.settled = moment.now if self._alone else -1  # who is alone reads everything when it starts
        for what in self._complaints(changes, moment):
            self._history.broke(*what)

    def _complaints(self, changes: Sequence[Change], moment: Moment) -> Iterator[Complaint]:
        starts: list[tuple[Row, Draws]] = []
        joined: dict[Group, None] = {}
        back: list[Rate] = []
        for change in changes:
            before, after = change.before, change.after
            if after is None:
                continue
            draws = self.book.draws(after.lane)
            if draws is None:
                continue
            if before is not None and before.state == "running" and after.state == "queued":
                back += self._put_back(before, draws) if self._unsent(before, after) else []
            if after.final and not (before is not None and before.final):
                self._ended_by[after.id] = moment.process
            fresh = after.joined_at is not None and (before is None or before.joined_at is None)
            if fresh or after.reason == "concurrency":
                for group in draws.groups:
                    self._members[group][after.id] = None
                    joined[group] = None
            if change.begins:
                starts.append((after, draws))
        if starts:
            yield from self._started(starts, moment)
        yield from self._given_back(back, moment)
        for change in changes:
            after = change.after
            if (
                after is not None
                and after.reason == "concurrency"
                and (change.before is None or not change.before.final)
            ):
                yield from self._displaced(change.before, after, changes, moment)
        yield from self._lines(joined, moment)

    def _unsent(self, before: Row, after: Row) -> bool:
        """Tell whether an attempt was no start."""
        kinds = self.book.kinds(before.id, before.attempt)
        return after.tries < before.tries and ("not_sent" in kinds or not kinds - {"log", "progress"})

    def _put_back(self, before: Row, draws: Draws) -> Iterator[Rate]:
        """Forget the units of an attempt that was no start."""
        for rate in draws.rates:
            self._uses[rate.name].pop((before.id, before.attempt), None)
            yield rate

    def _given_back(self, back: Iterable[Rate], moment: Moment) -> Iterator[Complaint]:
        """Complain where who starts runs has not forgotten them; one who is alone knows at once."""
        for rate in back:
            if rate.duration and self._alone and not self._history.set_back:
                stored = self.book.units_stored(rate.name, rate.duration, moment.now)
                counted = self.units(rate.name, 2 * rate.duration, moment.now + rate.duration, rate.duration)
                if stored > counted:
                    yield Rule.RATES, f"{stored} units of {rate.name} are stored, and {counted} have started"

    # -- starts --------------------------------------------------------------------------------------------------------

    def _started(self, starts: Sequence[tuple[Row, Draws]], moment: Moment) -> Iterator[Complaint]:
        possible = self.book.possible(moment.now)
        groups = dict.fromkeys(group for _, draws in starts for group in draws.groups)
        for group in groups:
            caps = [terms.rules[group[0]].max_runs for terms in possible if group[0] in terms.rules]
            used = self.used(group)
            if len(caps) == len(possible) and used > max(caps):
                yield Rule.GROUPS, f"{used} runs are in {group}, which has {max(caps)}"
        for row, draws in starts:
            self.starts.append((row.id, row.worker or "", row.started_at or 0))
            if row.worker not in self._fits[row.task] and row.kind != "workflow":
                yield Rule.LABELS, f"{row.id} of {row.task} started at {row.worker}"
            if all(row.task in terms.paused_tasks for terms in possible):
                yield Rule.PAUSED, f"{row.id} started, and {row.task} is paused"
            for rate in draws.rates:
                if all(_paused(terms, rate.name, moment.least) for terms in possible):
                    yield Rule.PAUSED, f"{row.id} started, and {rate.name} is paused"
        if not self._history.set_back:  # else times that were stored may come a second time
            yield from self._rates(starts, possible, moment)

    def _rates(
        self, starts: Sequence[tuple[Row, Draws]], possible: Sequence[Terms], moment: Moment
    ) -> Iterator[Complaint]:
        new: dict[tuple[str, int], list[tuple[Row, Rate]]] = defaultdict(list)
        for row, draws in starts:
            for rate in draws.rates:
                new[rate.name, rate.duration].append((row, rate))
        for (rate_name, duration), taken in new.items():
            at = max(row.started_at or 0 for row, _ in taken)
            known = self._uses[rate_name]
            if duration:
                before = self.units(rate_name, duration, at, duration)
                most = max(rate.limit for _, rate in taken)
                for row, rate in taken:
                    if before + rate.units > rate.limit:
                        says = f"{before} units of {rate_name} before its {rate.units}, and keeps to {rate.limit}"
                        yield Rule.RATES, f"{row.id} started with {says} in {duration} ms"
            else:
                limits = [terms.limits[taken[0][1].key] for terms in possible if taken[0][1].key in terms.limits]
                if not limits:
                    yield Rule.RATES, f"{taken[0][0].id} started, and there is no limit {rate_name}"
                    continue
                longest = max(limit[1] for limit in limits)
                older = [terms.limits.get(taken[0][1].key) for terms in self.book.possible(moment.now, longest)]
                duration = min(limit[1] for limit in older if limit is not None)
                most = max(limit[0] for limit in limits)
            for row, rate in taken:
                known[row.id, row.attempt] = Use(row.started_at or 0, rate)
            units = self.units(rate_name, duration, at, taken[0][1].duration)
            if units > most:
                yield Rule.RATES, f"{units} units of {rate_name} started within {duration} ms, and {most} may"
            stored = self.book.units_stored(rate_name, duration, at)
            if stored < units and (taken[0][1].duration or len({limit and limit[1] for limit in older}) == 1):
                yield Rule.RATES, f"{units} units of {rate_name} started within {duration} ms, and {stored} are stored"

    def units(self, rate_name: str, window: int, at: int, duration: int) -> int:
        """Return the units that started in a window (ms) which ends then; of a dynamic key those of its duration."""
        return sum(
            use.rate.units
            for use in self._uses[rate_name].values()
            if at - window < use.at <= at and use.rate.duration == duration
        )

    def used(self, group: Group) -> int:
        """Return how many runs of a group run or are held."""
        return sum(self._rows[run_id].occupies for run_id in self._members[group] if run_id in self._rows)

    # -- whom a rule cancels -------------------------------------------------------------------------------------------

    def _displaced(
        self, before: Row | None, after: Row, changes: Sequence[Change], moment: Moment
    ) -> Iterator[Complaint]:
        if not moment.by_owner:
            yield Rule.OWNER, f"{moment.process} cancelled {after.id} for a rule, and does not own the lanes"
        told = self.book.displaced(after.id)
        draws = self.book.draws(after.lane)
        if told is None or draws is None:
            yield Rule.TIMELINE, f"{after.id} was cancelled for a rule, and its timeline does not say by which"
            return
        groups = [group for group in draws.groups if _said(group[0]) == told["rule"] and group[1] == told["key"]]
        by = None if told["by"] is None else self._rows.get(told["by"])
        if not groups or (told["by"] is not None and by is None):
            yield Rule.DISPLACED, f"{after.id} was cancelled by {told}, and is in no such group"
            return
        if by is not None and by.reason == "concurrency" and self.refused(by):
            yield Rule.DISPLACED, f"{after.id} was displaced by {by.id}, which was refused itself"
        caps = [terms.rules.get(groups[0][0]) for terms in self.book.possible(moment.now)]
        fitting = [cap.max_runs for cap in caps if cap is not None and cap.strategy == told["strategy"]]
        if not fitting:
            yield Rule.DISPLACED, f"{after.id} was cancelled by {told}, and there is no such rule"
            return
        was = after if before is None else before
        at = (was if by is None else by).joined_at or moment.now
        was = was._replace(state="queued" if before is None else was.state, joined_at=was.joined_at or at)
        was_at = at if by is not None else moment.now - SAME - 1  # what joins in one turn joins at one time
        now = {change.after.id for change in changes if change.after is not None} | {told["by"]}
        members = dict.fromkeys((*self._members[groups[0]], *(() if by is None else (by.id,))))
        others = [self._rows[run_id] for run_id in members if run_id != after.id]
        living = [
            row._replace(joined_at=at) if row.id in now and (row.joined_at or 0) > was_at else row
            for row in others
            if row.id in now or (row.joined_at or at) <= at <= (row.finished_at or at) + self._unheard(row, moment)
        ]
        timely = not self._history.set_back  # else nobody can tell who came first
        if timely and not _may_cancel(told["strategy"], min(fitting), was, living, now):
            shown = ", ".join(f"{row.id} {row.state}#{row.attempt} p{row.priority}" for row in living)
            yield Rule.DISPLACED, f"{after.id} p{after.priority} was cancelled by {told} among {shown or 'nobody'}"

    def _unheard(self, row: Row, moment: Moment) -> int:
        """Return for how long (ms) whoever cancels may not know that a run has ended: another server tells of it."""
        return 0 if self._ended_by.get(row.id, moment.process) == moment.process else LATER

    def refused(self, row: Row) -> bool:
        """Tell whether a run was cancelled when it joined."""
        told = self.book.displaced(row.id)
        return told is not None and told["by"] is None

    def _lines(self, joined: Iterable[Group], moment: Moment) -> Iterator[Complaint]:
        """Complain of groups that keep more than they may; what could not be done at once is done in the next turn."""
        for group in joined:
            kept = self._kept(group)
            if kept and group not in self._crowded:
                self._crowded[group] = moment.now, kept
        for group, (since, _) in list(self._crowded.items()):
            kept = self._kept(group)
            if not kept:
                del self._crowded[group]
            elif moment.by_owner and moment.now > since + LATER:
                del self._crowded[group]
                yield Rule.CROWDED, f"{group} has kept {kept} too many runs since {since}"

    def _kept(self, group: Group) -> int:
        """Return how many runs too many a group keeps."""
        rules = [terms.rules[group[0]] for terms in self.book.all if group[0] in terms.rules]
        if not rules:
            return 0
        strategy, cap = rules[-1].strategy, max(rule.max_runs for rule in rules)
        rows = [self._rows[run_id] for run_id in self._members[group] if run_id in self._rows]
        living = [row for row in rows if not row.final and row.joined_at is not None]
        if strategy == "CANCEL_IN_PROGRESS":
            return max(0, len(living) - cap)
        if strategy == "GROUP_ROUND_ROBIN":
            return 0
        untried = sum(row.state == "queued" and row.attempt == 0 for row in living)
        return max(0, untried - LINES.get(strategy, cap))

    # -- turns ---------------------------------------------------------------------------------------------------------

    def turns(self, keys: Mapping[str, str]) -> Iterator[str]:
        """Complain of keys that had to wait for longer than a turn of each other; `keys` has that of each run.

        They waited all the time, and nothing else held them back but their group.
        """
        rows = {run_id: self._rows[run_id] for run_id in keys}
        starts = [(run_id, at) for run_id, _, at in self.starts if run_id in keys]
        draws = self.book.draws(next(iter(rows.values())).lane)
        rules = [] if draws is None else [self.book.newest.rules.get(rule) for rule, _ in draws.groups]
        if any(row.attempt != 1 for row in rows.values()) or len(starts) != len(keys) or not rules or rules[0] is None:
            return  # something was tried again, or the rule was never heard of
        most = rules[0].max_runs
        waited: Counter[str] = Counter()
        left = Counter(keys.values())
        for at, together in groupby(starts, key=lambda start: start[1]):  # in what order those start nobody can tell
            begin = [keys[run_id] for run_id, _ in together]
            for key in left:
                running = [one for one, row in rows.items() if keys[one] == key and _runs_at(row, at)]
                if key not in begin and left[key] and len(running) < most:
                    waited[key] += len(begin)
                else:
                    waited[key] = 0
                if waited[key] > len(left):
                    yield f"{key} could start and let {waited[key]} others pass: {[keys[one] for one, _ in starts]}"
                    return
            left.subtract(begin)

    # -- what could start ----------------------------------------------------------------------------------------------

    def idle(self, now: int) -> Iterator[Complaint]:
        """Complain of workers that have nothing to do beside runs that could start there, for long."""
        terms = self.book.newest
        could: dict[tuple[str, str], int] = {}
        busy = {row.worker for row in self._rows.values() if row.occupies}
        waiting = [row for row in self._rows.values() if row.state == "queued" and row.due_at <= now]
        for worker, state, slots, tasks in self.book.workers():
            if worker in busy or state not in ("ready", "unverified"):
                continue
            for row in waiting:
                draws = self.book.draws(row.lane)
                if draws is None or row.task not in tasks or worker not in self._fits[row.task]:
                    continue
                if draws.cost <= slots and self._has_room(row, draws, terms, now):
                    since = self._could.get((worker, row.id), now)
                    could[worker, row.id] = since
                    if now - since > IDLE:
                        yield Rule.IDLE, f"{row.id} could start at {worker}, which has had nothing to do for long"
                        return
        self._could = could

    def _has_room(self, row: Row, draws: Draws, terms: Terms, now: int) -> bool:
        if row.task in terms.paused_tasks or (draws.rates and self._history.set_back):
            return False
        for group in draws.groups:
            if group[0] in terms.rules and self.used(group) >= terms.rules[group[0]].max_runs:
                return False
        for rate in draws.rates:
            if _paused(terms, rate.name, now):
                return False
            most, duration = (rate.limit, rate.duration) if rate.duration else terms.limits.get(rate.key, (0, 1))
            longest = duration + duration // 32 + 1  # parts of it are given back together
            if self.units(rate.name, longest, now, rate.duration) + rate.units > most:
                return False
        return True


def _paused(terms: Terms, rate_name: str, now: int) -> bool:
    if rate_name not in terms.paused_keys:
        return False
    until = terms.paused_keys[rate_name]
    return until is None or until > now


def _runs_at(row: Row, at: int) -> bool:
    """Whether a run may have been running then, or just before."""
    return (row.started_at or 0) <= at <= (row.finished_at or at)


def _said(rule: str) -> str:
    """Return how a rule is called: by its name, or its key."""
    kind, _, rest = rule.partition(":")
    return rest if kind == "name" else rest.partition(":")[2]


def _may_cancel(strategy: str, cap: int, was: Row, living: Sequence[Row], now: set[str]) -> bool:
    """Tell whether a rule may cancel a run, read literally, among the others that live.

    Of those that changed in the same commit (`now`) nobody knows whether that was before or after.
    """
    never = was.state == "queued" and was.started_at is None
    waits = [row for row in living if row.id in now or (row.started_at is None and row.state == "queued")]
    match strategy:
        case "CANCEL_IN_PROGRESS":
            return sum(_newer(row, was) for row in living) >= cap
        case "CANCEL_NEWEST":
            running = [row for row in living if row.state == "running"]
            better = [row for row in waits if _older(row, was)]
            return never and len({row.id for row in (*running, *better)}) >= cap
        case "QUEUE_NEWEST_ONLY":
            return never and any(_newer(row, was) for row in waits)
        case "QUEUE_OLDEST_ONLY":
            return never and any(_older(row, was) for row in waits)
    return False


def _newer(row: Row, was: Row) -> bool:
    """Whether a run goes before another by priority, then by coming later; of the same moment either may."""
    return (row.priority, row.joined_at or 1 << 60) >= (was.priority, was.joined_at or 0)


def _older(row: Row, was: Row) -> bool:
    return (row.priority, -(row.joined_at or 0)) >= (was.priority, -(was.joined_at or 1 << 60))

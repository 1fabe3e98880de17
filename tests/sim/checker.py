"""Holds every commit, every send, every execution and every answer against what was promised."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.sim.composition_rules import CompositionRules
from tests.sim.flow_rules import FlowRules
from tests.sim.history import History, Key, Rule, name
from tests.sim.plan import Mishap, Plan
from tests.sim.rows import Change, Moment, Reader, Row
from tests.sim.rules import complaints
from tests.sim.terms import Book
from tests.sim.ways_rules import WaysRules

HASTE: Final = 12
"""Starts of one run within a second that are too many."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start as it was committed: who is to send it, and when that was (ms)."""

    sender: str
    at: int


class Checker:
    """Watches one history. `now` tells the database's time in ms."""

    def __init__(
        self, plan: Plan, history: History, connection: sqlite3.Connection, now: Callable[[], int], *, alone: bool
    ) -> None:
        self._plan = plan
        self._history = history
        self._reader = Reader(connection)
        self._now = now
        self._alone = alone
        self.flow = FlowRules(Book(connection, _settle(plan)), history, self._reader.rows, plan)
        self.ways = WaysRules(connection, history, self._reader.rows, plan, _settle(plan))
        self.composition = CompositionRules(connection, history, self._reader.rows, plan)
        self._starts: dict[Key, Start] = {}
        self._servers: dict[str, str] = {}
        self._leases: dict[str, int] = {}
        self._granted: dict[str, list[tuple[int, int]]] = {}
        self._shard: tuple[str | None, int, int] = (None, 0, 0)
        self._owned_since = 0
        self.clock_set_at = -1.0
        """When (seconds of the loop) the database's clock was set last."""
        self._keys: dict[tuple[str, str], list[str]] = {}
        self._until: dict[str, int] = {}
        self._inputs: dict[str, str] = {}
        self._latest = 0.0
        self._latest_at = 0.0

    @property
    def rows(self) -> Mapping[str, Row]:
        """What is committed now."""
        return self._reader.rows

    # -- commits ------------------------------------------------------------------------------------------------------

    def committed(self, process: str) -> None:
        """Look at what a process has just committed."""
        self._history.counts["commits"] += 1
        moment = self._look_at_leases(process)
        changes = self._reader.changes()
        for change in changes:
            for rule, what in complaints(change, moment, self._plan, self._history):
                self._history.broke(rule, what)
            self._remember(change, moment)
        self._count_slots(changes)
        self.flow.committed(changes, moment)
        self.ways.committed(changes, moment)
        self.composition.committed(changes, moment)

    def _look_at_leases(self, process: str) -> Moment:
        now, leases, shard = self.time(), self._reader.leases(), self._reader.shard()
        longest = now + int(self._plan.lease * 1000)
        for server, until in leases.items():
            self._servers.setdefault(server, process)
            if until != self._leases.get(server):
                self._granted.setdefault(server, []).append((now, until))
                if until > longest:
                    self._history.broke(Rule.LEASE, f"{process} has a lease of {(until - now) / 1000:g} s")
        owner, epoch, until = shard
        before, last, owned_until = self._shard
        if (owner, epoch) != (before, last):
            self._owned_since = now
        if owner != before and owner is not None:
            if epoch <= last:
                self._history.broke(Rule.OWNER, f"{process} took the lanes without a new epoch")
            if before is not None and owned_until > now and not self._alone:
                self._history.broke(Rule.OWNER, f"{process} took the lanes of {before}, whose lease was good")
        if until > longest:
            self._history.broke(Rule.LEASE, f"{process} owns the lanes for {(until - now) / 1000:g} s")
        if shard != self._shard or leases.keys() != self._leases.keys():
            self._history.note(f"owner {owner} epoch {epoch}, {len(leases)} leases")
        self._leases, self._shard = leases, shard
        return Moment(process, now, self._now(), owner, epoch, until, leases, self._servers)

    def changed(self, process: str, since: int) -> None:
        """Take notice that a server has answered for a change of what is in force, which was asked for then (ms)."""
        book, now = self.flow.book, self.time()
        changes = sum(terms.since >= since for terms in book.all)
        if self._servers.get(self._shard[0] or "") == process and since >= self._owned_since:
            book.settled = max(book.settled, now if changes == 1 else since - 1)

    def time(self) -> int:
        """Return now (ms): the database's clock, or where it was set back, what it would be without that.

        To be asked before it is set, too: servers may have read it then.
        """
        at = asyncio.get_running_loop().time()
        self._latest = max(self._now(), self._latest + (at - self._latest_at) * 1000)
        self._latest_at = at
        return round(self._latest)

    def _remember(self, change: Change, moment: Moment) -> None:
        before, after = change.before, change.after
        if after is None:
            return
        was = "-" if before is None else f"{before.state}#{before.attempt}"
        self._history.note(f"{after.id} {was} to {after.state}#{after.attempt} tries {after.tries} due {after.due_at}")
        if after.state == "running" and (before is None or before.attempt != after.attempt):
            self._starts[after.id, after.attempt] = Start(after.sender or "", moment.now)
            earlier = self._starts.get((after.id, after.attempt - HASTE))
            if earlier is not None and moment.now - earlier.at < 1_000:
                self._history.broke(Rule.HASTE, f"{after.id} was started {HASTE} times within a second")
        if before is None and after.idempotency_key is not None:
            self._hold_key(after, moment)
        elif before is None and after.trigger is None and not (after.node or after.task in self._plan.ways.gathered):
            other = self._inputs.setdefault(after.input, after.id)
            if other != after.id:
                self._history.broke(Rule.KEYS, f"{after.id} and {other} were stored for one submit")

    def _hold_key(self, new: Row, moment: Moment) -> None:
        """Let a key name one run: until it has ended, or for as long as was asked. A replay does not take it back."""
        holders = self._keys.setdefault((new.task, new.idempotency_key or ""), [])
        for other in (self.rows[run_id] for run_id in holders if run_id in self.rows):
            until = self._until.get(other.id)
            runs_still = not other.final and not self._history.replayed[other.id]
            if runs_still if until is None else until > moment.now:
                self._history.broke(Rule.KEYS, f"{new.id} was stored with the key of {other.id}")
        holders.append(new.id)
        until = self._reader.key_until(new.id)
        if until is not None:
            self._until[new.id] = until

    def _count_slots(self, changes: Sequence[Change]) -> None:
        begun = [change.after for change in changes if change.begins and change.after is not None]
        started = {row.worker: None for row in begun if row.kind != "workflow"}
        if not started:
            return
        slots = self._reader.slots()
        for worker in started:
            used = sum(self._reader.cost(row.id) for row in self.rows.values() if row.occupies and row.worker == worker)
            if worker is None or used > slots.get(worker, 0):
                self._history.broke(Rule.SLOTS, f"{used} attempts are at {worker}, which has {slots.get(worker or '')}")

    # -- what is sent and executed -------------------------------------------------------------------------------------

    def sends(self, process: str, keys: Sequence[Key], decided: float) -> None:
        """Look at a delivery that leaves. `decided` is when (seconds of the loop) its sender decided on it."""
        for key in keys:
            self._history.note(f"{process} sends {name(key)}")
            start = self._starts.get(key)
            if start is None:
                self._history.broke(Rule.COMMITTED, f"{process} sends {name(key)}, which is not stored as started")
                continue
            if key in self._history.sent:
                self._history.broke(Rule.ONCE, f"{process} sends {name(key)}, which {self._history.sent[key]} has sent")
            self._history.sent[key] = process
            if self._servers.get(start.sender) != process:
                self._history.broke(
                    Rule.SENDER, f"{process} sends {name(key)} in the place of {self._servers.get(start.sender)}"
                )
            elif not self._alone and not self._held(start.sender, decided):
                self._history.broke(Rule.FENCE, f"{process} sends {name(key)}, and its lease was over at {decided:g}")

    def _held(self, server: str, decided: float) -> bool:
        """Tell whether the server's lease was good then: of what it had been granted before, something still lasted."""
        at = self._now() - round((asyncio.get_running_loop().time() - decided) * 1000)
        return any(granted <= at < until for granted, until in self._granted.get(server, ()))

    def executes(self, worker: str, at_work: Sequence[Key]) -> None:
        """Look at a worker that begins another attempt: beyond its slots there are only those that were given up."""
        current = [key for key in at_work if self._occupies(key)]
        slots = next(one.slots for one in self._plan.workers if one.name == worker)
        if sum(self._reader.cost(run_id) for run_id, _ in current) > slots:
            listed = ", ".join(map(name, current))
            self._history.broke(Rule.SLOTS, f"{worker} has {slots} slots and executes {listed}")

    def renewed(self, key: Key, since: float) -> None:
        """Look at a heartbeat that was answered; the question was asked at `since` (seconds of the loop)."""
        row = self.rows.get(key[0])
        if row is None or row.state != "running" or row.attempt != key[1] or row.lease_until is None:
            return
        if since <= self.clock_set_at:
            return
        waited = asyncio.get_running_loop().time() - since
        promised = self._now() + int((self._plan.lease - waited) * 1000) - 2
        if row.lease_until < min(promised, row.deadline_at or promised):
            missing = (promised - row.lease_until) / 1000
            self._history.broke(Rule.LEASE, f"a heartbeat of {name(key)} was answered; its lease lacks {missing:g} s")

    def _occupies(self, key: Key) -> bool:
        row = self.rows.get(key[0])
        return row is not None and row.attempt == key[1] and row.occupies

    def executed(self, key: Key) -> None:
        """Look at an attempt that begins.

        Somebody between who answers 403 to what was executed makes believe that it was not: nobody can know.
        """
        run_id, _ = key
        row = self.rows.get(run_id)
        if row is None:
            self._history.broke(Rule.COMMITTED, f"{name(key)} is executed and is not stored")
        elif self._plan.task(row.task).max_attempts == 1:
            most = 1 + self._history.replayed[run_id]
            if len(self._history.executed[run_id]) > most + self._reader.told(run_id, "held"):
                self._history.broke(
                    Rule.AT_MOST_ONCE, f"{run_id} was executed in its attempts {self._history.executed[run_id]}"
                )

    # -- the end -------------------------------------------------------------------------------------------------------

    def look_back(self) -> None:
        """Hold what is stored now against all that was seen on the way."""
        stored = self._reader.everything()
        if stored != self._reader.rows:
            self._history.broke(Rule.KEPT, "something changed that was never committed")
        for run_id, asked in self._history.acknowledged.items():
            row = stored.get(run_id)
            if row is None or (row.task, row.idempotency_key) != (asked.task, asked.key):
                self._history.broke(Rule.STORED, f"the acknowledged {run_id} is not stored as it was asked for")
            elif row.input != asked.input and asked.key is None:
                self._history.broke(Rule.STORED, f"the input of {run_id} is not what was asked for")


def _settle(plan: Plan) -> int:
    """Return for how long (ms) a server may go by terms that were changed, when nobody has heard from it since.

    It reads them anew now and then, and later where it has stood still.
    """
    if not plan.shared:
        return 150_000
    stalls = plan.faults.stall > 0 or any(mishap in (Mishap.STALL, Mishap.BLINK) for mishap, _ in plan.mishaps)
    away = plan.faults.outage_seconds[1] if plan.faults.outage else 0.0
    return (90_000 if stalls else 20_000) + round(away * 1_000)

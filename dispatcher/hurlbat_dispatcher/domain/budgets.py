"""Budgets that are keyed: concurrency groups, rate limits, and the gates of paused tasks.

A budget has room or not; what waits for it stands in its *lines*, one for each pool and need, so that who needs little
is not held by who needs much. Times are ms.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from hurlbat_dispatcher.domain.policies import Strategy

if TYPE_CHECKING:
    from hurlbat_dispatcher.domain.concurrency import Ranking
    from hurlbat_dispatcher.domain.lanes import Lane, Pool
    from hurlbat_dispatcher.domain.rotation import Ring

SUB_WINDOWS: Final = 64
"""Into how many parts the time of a rate limit is cut: so coarsely, and no coarser, it remembers its starts."""
NEVER: Final = 1 << 62
"""A time that does not come."""


class LineKey(NamedTuple):
    """What those in one line of a budget have in common: their workers, the units they need, the limit they keep.

    Where a budget has many lines, the units of a line are of one size only, which stands below zero (`size_of`).
    """

    pool: "Pool"
    units: int
    limit: int


@dataclass(slots=True, eq=False)
class Budget:
    """What all keyed budgets have in common."""

    name: str
    lines: "dict[LineKey, Ring]" = field(default_factory=dict)
    reserved: "Lane | None" = None
    """A lane that was passed over too often: nobody else takes of this budget until it has started."""
    lanes: int = 0
    """How many lanes refer to it."""

    def room(self, now: int, units: int, limit: int) -> bool:
        """Tell whether so many units may be taken now, by one who keeps this limit (0: the budget's own)."""
        raise NotImplementedError

    def take(self, now: int, units: int) -> None:
        """Take units."""
        raise NotImplementedError

    def give(self, units: int) -> None:
        """Give units back, at the end of an attempt."""
        raise NotImplementedError

    def opens_at(self, now: int, units: int, limit: int) -> int | None:
        """Return when there is room by the passing of time alone; None when only an event makes room."""
        del now, units, limit
        return None

    @property
    def idle(self) -> bool:
        """Tell whether nothing would be lost if it were forgotten."""
        return not self.lanes and not self.lines


@dataclass(slots=True, eq=False)
class Group(Budget):
    """The runs of one value of a concurrency key. `cap` None: its rule is in force no longer."""

    rule: str = ""
    value: str = ""
    cap: int | None = None
    strategy: Strategy = Strategy.GROUP_ROUND_ROBIN
    used: int = 0
    members: "dict[str, Member]" = field(default_factory=dict)
    """The runs that live in it, by id, where the strategy ranks them."""
    ranking: "Ranking | None" = None
    """The worst of them, once somebody had to be compared with them."""

    def room(self, now: int, units: int, limit: int) -> bool:
        """Tell whether one more may start."""
        return self.cap is None or self.used < self.cap

    def take(self, now: int, units: int) -> None:
        """Take a place."""
        self.used += 1

    def give(self, units: int) -> None:
        """Give a place back."""
        self.used -= 1

    @property
    def idle(self) -> bool:
        """Tell whether nothing would be lost if it were forgotten."""
        return not (self.used or self.lanes or self.lines or self.members)


@dataclass(slots=True, eq=False)
class Member:
    """A run that lives in groups which rank their runs: waiting, running, or backing off."""

    run_id: str
    priority: int
    joined_at: int
    started: bool = False
    """Whether an attempt has started that counts."""
    running: bool = False
    groups: tuple[Group, ...] = ()
    earlier: bool = False
    """Whether an attempt before the running one counts."""


class Mark:
    """The starts of one sub-window: which, when the last was, how many units."""

    __slots__ = ("bucket", "last", "units")

    def __init__(self, bucket: int, last: int, units: int) -> None:
        self.bucket = bucket
        self.last = last
        self.units = units


@dataclass(slots=True, eq=False)
class Rate(Budget):
    """At most so many units in any `span`, wherever it is placed.

    Starts are remembered by sub-windows, and the units of one count until `span` after its last start: the error is
    always on the strict side, and at most one part in 64.
    """

    span: int = 1_000
    most: int | None = None
    """The limit of a static key; None where each run brings its own, or where the key is unknown."""
    known: bool = True
    """False for a static key that nobody has put."""
    marks: deque[Mark] = field(default_factory=deque)
    spent: int = 0
    forgotten: int = -1
    """Starts at this time and earlier are remembered no longer."""
    paused_until: int = 0
    timer: int = 0
    """When it is looked at again; 0 when no look is planned."""
    dirty: dict[int, None] = field(default_factory=dict)
    """Sub-windows that changed since they were stored."""

    def __post_init__(self) -> None:
        self.width = max(1, self.span // SUB_WINDOWS)

    width: int = field(init=False)

    def used(self, now: int) -> int:
        """Return the units that count now."""
        while self.marks and self.marks[0].last + self.span <= now:
            gone = self.marks.popleft()
            self.spent -= gone.units
            self.forgotten = max(self.forgotten, gone.last)
            self.dirty.pop(gone.bucket, None)
        return self.spent

    def counted(self, now: int) -> int:
        """Return the units that count at a time which no turn has had, perhaps: nothing is forgotten by asking."""
        return sum(mark.units for mark in tuple(self.marks) if mark.last + self.span > now)

    def room(self, now: int, units: int, limit: int) -> bool:
        """Tell whether so many units may start now."""
        most = self._limit(limit)
        if most is None or now < self.paused_until:
            return False
        return self.spent + units <= most or self.used(now) + units <= most

    def take(self, now: int, units: int) -> None:
        """Count units that start now."""
        bucket = now // self.width
        last = self.marks[-1] if self.marks else None
        if last is not None and last.bucket >= bucket:  # a clock that was ahead may have counted later starts
            bucket = last.bucket
            last.last = max(last.last, now)
            last.units += units
        else:
            self.marks.append(Mark(bucket, now, units))
        self.spent += units
        self.dirty[bucket] = None

    def give(self, units: int) -> None:
        """Do nothing: what has started has started."""

    def undo(self, started_at: int, units: int) -> None:
        """Take a start back that was none, as it was never sent."""
        bucket = started_at // self.width
        for mark in self.marks:
            if mark.bucket == bucket:
                taken = min(units, mark.units)
                mark.units -= taken
                self.spent -= taken
                self.dirty[bucket] = None
                return

    def opens_at(self, now: int, units: int, limit: int) -> int | None:
        """Return when so many units may start, if nothing else does; None where they never may."""
        most = self._limit(limit)
        if most is None or units > most:
            return None
        at = max(now, self.paused_until)
        short = self.used(now) + units - most
        for mark in self.marks:
            if short <= 0:
                break
            short -= mark.units
            at = max(at, mark.last + self.span)
        return at if at < NEVER else None

    def restore(self, bucket: int, last: int, units: int) -> None:
        """Know of starts that were stored; the oldest come first."""
        self.marks.append(Mark(bucket, last, units))
        self.spent += units

    def inherit(self, marks: Iterable[tuple[int, int]], forgotten: int = -1) -> None:
        """Count what started (when last, units) while the key had another duration, as far as it is not counted.

        What was `forgotten` there, at that time and before, does not stand for anything that is remembered.
        """
        own = [(mark.last, mark.units) for mark in self.marks]
        before = forgotten
        for last, units in marks:  # of those that come after ours some may stand for ours, too
            more = units - sum(counted for at, counted in own if before < at <= last)
            if more > 0 and last > forgotten and (not own or last >= own[-1][0]):
                self.take(last, more)
            before = max(before, last)

    def pause(self, until: int | None) -> None:
        """Let nothing start before then; None: before it is resumed."""
        self.paused_until = NEVER if until is None else until

    def _limit(self, limit: int) -> int | None:
        if not self.known:
            return None
        return self.most if self.most is not None else limit or None

    @property
    def idle(self) -> bool:
        """Tell whether nothing would be lost if it were forgotten."""
        return not (self.lanes or self.lines or self.marks or self.paused_until)


@dataclass(slots=True, eq=False)
class Gate(Budget):
    """The gate of a task that is paused."""

    shut: bool = True

    def room(self, now: int, units: int, limit: int) -> bool:
        """Tell whether it is open."""
        return not self.shut

    def take(self, now: int, units: int) -> None:
        """Do nothing."""

    def give(self, units: int) -> None:
        """Do nothing."""


def size_of(units: int) -> int:
    """Return the line of all that need at most so many units and more than half of that, up to a power of two."""
    return -units.bit_length()


class Need(NamedTuple):
    """What a lane's runs take of a budget: units, and the limit that they keep (0: the budget's own)."""

    budget: Budget
    units: int = 1
    limit: int = 0

"""What goes wrong in a world and how often, and the seeded source that decides each time."""

from collections import Counter
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final

from hurlbat_dispatcher.clock import Chance, Clock
from hurlbat_dispatcher.simulation.process import current

Range = tuple[float, float]
"""Seconds: from, to."""


class Fault(StrEnum):
    """What can go wrong; each has its rate in `Faults`, under the same name."""

    # a request
    REFUSED = "refused"
    UNCONNECTED = "unconnected"
    BLACK_HOLE = "black_hole"
    ANSWER_LOST = "answer_lost"
    LATE = "late"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    SLOW = "slow"
    CUT = "cut"
    ENDED_EARLY = "ended_early"
    WRONG_STATUS = "wrong_status"
    GARBAGE = "garbage"
    # a transaction
    BUSY = "busy"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    CONNECTION_LOST = "connection_lost"
    OUTAGE = "outage"
    READ_ONLY = "read_only"
    DISK_FULL = "disk_full"
    # a message between servers
    MESSAGE_LOST = "message_lost"
    MESSAGE_LATE = "message_late"
    # a process, at each of its I/O
    CRASH = "crash"
    STALL = "stall"


@dataclass(frozen=True, slots=True)
class Faults:
    """How often each fault strikes, from 0 (never) to 1 (always), and ranges in seconds. The default is calm."""

    refused: float = 0.0
    """The connection is refused."""
    unconnected: float = 0.0
    """Nobody answers the attempt to connect."""
    black_hole: float = 0.0
    """The request is sent, and neither seen nor answered."""
    answer_lost: float = 0.0
    """The request is executed, its answer lost: a reset, or silence."""
    late: float = 0.0
    """The answer takes `late_seconds` longer."""
    duplicated: float = 0.0
    """The request comes twice."""
    reordered: float = 0.0
    """The request is overtaken by later ones."""
    slow: float = 0.0
    """Each piece of the answer takes `slow_seconds`."""
    cut: float = 0.0
    """The answer breaks off in the middle."""
    ended_early: float = 0.0
    """The answer ends in the middle as if it were whole."""
    wrong_status: float = 0.0
    """Something between answers, with a status of its own."""
    garbage: float = 0.0
    """A piece of the answer comes out as something else."""
    busy: float = 0.0
    """The transaction fails before it begins."""
    broken: float = 0.0
    """The transaction fails in the middle and is rolled back."""
    unknown: float = 0.0
    """Nobody knows whether the transaction was stored; half of the time it was."""
    connection_lost: float = 0.0
    """The transaction fails, and messages of other servers are missed until the next `listen`."""
    outage: float = 0.0
    """The database is away for `outage_seconds`."""
    read_only: float = 0.0
    """The database takes no writes for `outage_seconds`."""
    disk_full: float = 0.0
    """The same, for another reason."""
    message_lost: float = 0.0
    """A message between servers is lost."""
    message_late: float = 0.0
    """A message between servers is overtaken by later ones."""
    crash: float = 0.0
    """The process dies at an I/O, before or after its effect."""
    stall: float = 0.0
    """The process stands still for `stall_seconds` at an I/O."""
    network_seconds: Range = (0.0005, 0.01)
    disk_seconds: Range = (0.0002, 0.003)
    late_seconds: Range = (20.0, 90.0)
    slow_seconds: Range = (0.5, 6.0)
    outage_seconds: Range = (0.5, 20.0)
    stall_seconds: Range = (10.0, 60.0)

    def __post_init__(self) -> None:
        for fault in Fault:
            rate = getattr(self, fault)
            if not 0 <= rate <= 1:
                raise ValueError(f"{fault} is how often that happens, from 0 to 1, and not {rate!r}")

    @classmethod
    def none(cls) -> "Faults":
        """Return a world where nothing goes wrong; things take their time all the same."""
        return cls()

    @classmethod
    def from_seed(cls, seed: int) -> "Faults":
        """Return a mix drawn from the seed: about half of all faults, each with a rate of its own.

        Leaving some out lets the others show what they do (swarm testing, Groce et al., ISSTA 2012).
        """
        chance = Chance(seed)
        rates: dict[str, Any] = {}
        for fault in Fault:
            drawn, strength = chance.uniform(0, 1), chance.uniform(0.1, 1)
            if drawn < 0.5:
                rates[fault.value] = _USUAL.get(fault, 0.04) * strength
        return cls(**rates)

    def calm(self) -> "Faults":
        """Return the same world with nothing going wrong."""
        ranges = {field.name: getattr(self, field.name) for field in fields(self) if field.name.endswith("_seconds")}
        return Faults(**ranges)


_USUAL: Final = {
    Fault.OUTAGE: 0.004,
    Fault.READ_ONLY: 0.003,
    Fault.DISK_FULL: 0.003,
    Fault.CRASH: 0.008,
    Fault.STALL: 0.008,
}
"""The highest rates of what has large effects; 0.04 is that of the others."""


class Trouble:
    """Decides by the seed what strikes and how long things take, and counts what struck. Can be calmed for ever."""

    def __init__(self, faults: Faults, chance: Chance, clock: Clock) -> None:
        self.faults = faults
        self.struck: Counter[Fault] = Counter()
        self.chance = chance
        self._clock = clock

    def calm(self) -> None:
        """Let nothing more go wrong."""
        self.faults = self.faults.calm()

    def strikes(self, fault: Fault) -> bool:
        """Draw whether this goes wrong now."""
        rate: float = getattr(self.faults, fault)
        if rate <= 0 or self.chance.uniform(0, 1) >= rate:
            return False
        self.struck[fault] += 1
        return True

    def first_of(self, *faults: Fault) -> Fault | None:
        """Draw which of these goes wrong now, if any."""
        return next((fault for fault in faults if self.strikes(fault)), None)

    def seconds(self, range: Range) -> float:
        """Draw how long something takes."""
        return self.chance.uniform(*range)

    def one_of(self, count: int) -> int:
        """Draw a number below `count`."""
        return self.chance.bits(32) % count

    async def io(self, what: str, seconds: Range) -> None:
        """Let an I/O of the current process take its time; it may die there, or stand still."""
        await self._clock.sleep(self.seconds(seconds))
        process = current()
        if process is None or not process.fragile:
            return
        if self.strikes(Fault.CRASH):
            process.kill(f"at {what}")
            await self._clock.sleep(0)  # from which it does not return
        elif self.strikes(Fault.STALL):
            process.stall(self.seconds(self.faults.stall_seconds))
            await self._clock.sleep(0)  # from which it returns late

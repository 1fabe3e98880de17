"""Workers: their states, when they may be sent to, and how much at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """How a worker speaks: the whole push protocol, or plain HTTP."""

    PROTOCOL = "protocol"
    PLAIN = "plain"


class WorkerState(StrEnum):
    """Whether a worker gets runs, and if not, why."""

    PENDING = "pending"
    READY = "ready"
    REJECTED = "rejected"
    UNVERIFIED = "unverified"
    UNREACHABLE = "unreachable"
    PAUSED = "paused"
    DISABLED = "disabled"


SERVING: Final = frozenset({WorkerState.READY, WorkerState.UNVERIFIED})
"""States in which a worker gets runs without reserve; an unreachable one gets single probing deliveries."""

NOWHERE: Final = ""
"""Where runs of workflows run: on no worker, with room for all."""
FIRST_WINDOW: Final = 16
PROBE_FIRST_MS: Final = 500
PROBE_MAX_MS: Final = 5_000
PAUSE_MS: Final = 100
"""A larger window must stand so long at least, and twice the time that trouble last took to show."""
HOLD: Final = 32
"""How many times the pause that meeting the edge costs a window stays below it, once it has met it thrice."""
HOLD_LAG: Final = 16
"""The same for the time that trouble takes to show, in which only a part of the work is lost."""
CONFIRMED: Final = 3
NEAR: Final = 16
"""Sizes that differ by less than this fraction count as the same edge."""
RARE: Final = 8
"""Trouble is rare where there are so many good answers to each bad one."""
QUIET_MS: Final = 10_000
"""A window in use that hears nothing for so long grows as by a round of good answers."""
MAX_LAG_MS: Final = 60_000
MAX_HOLD_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What may be told of a key that a worker's requests are signed with. Times are ms since the epoch."""

    id: str
    algorithm: str
    """`v1` (HMAC-SHA256) or `v1a` (Ed25519)."""
    public_key: str | None
    """Of `v1a`, what the worker needs to check signatures."""
    created_at: int | None
    """None: before this was kept."""
    until: int | None
    """When it signs no more, as it was replaced; None for the newest."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A registered worker as it is shown. Times are ms since the epoch; `problem` is one sentence, or None."""

    name: str
    url: str
    mode: Mode
    slots: int
    state: WorkerState
    problem: str | None
    tasks: tuple[str, ...]
    labels: Mapping[str, str]
    max_batch: int
    manifest: str
    created_at: int
    updated_at: int
    last_seen_at: int | None = None
    streams: bool = True
    pinned: int | None = None
    window: int = 0
    in_flight: int = 0
    keys: tuple[SigningKey, ...] = ()
    """Its signing keys, newest first."""


@dataclass(slots=True)
class Window:
    """The part of a worker's slots that is used now: from 1 to its slots, found by what its answers say.

    Slow start, a halving for each flight that met trouble, and the fast way back to a size that is known to be good are
    those of TCP (RFC 5681, section 3; a flight's trouble counts once, RFC 6582). Where TCP would then grow by one a
    round, and so meet the edge again every few rounds, this one remembers the edge: growth halves the distance to it
    (BIC: Xu, Harfoush and Rhee, 2004), stays just below it for long compared with what meeting it costs, and then looks
    beyond in steps that double (RFC 9438 does both by the clock, with one cubic). That cost is the pause that the
    worker asks for by `Retry-After`, and the time that trouble takes to show. Where trouble is rare among good answers
    the size that is known to be good falls a little, not by half (in the manner of RFC 8257).

    Latency is no signal: what is slow may be a long task. Times are ms, sizes count slots.
    """

    slots: int
    size: int = field(init=False)
    pinned: int | None = None
    sound: int = field(init=False)
    """A size that has stood its time; below it, the window grows with every answer."""
    edge: int | None = None
    """The size that last met trouble; None while none is known."""
    met: int = 0
    """How often in a row the same edge was met."""
    next_at: int = 0
    """When the window may go beyond what is sound."""
    pause: int = PAUSE_MS
    step: int = 1
    earned: int = 0
    """Good answers since it has its size."""
    good: int = 0
    """Good answers, and bad ones, since it last fell."""
    bad: int = 0
    shrunk_at: int = -(1 << 62)
    heard_at: int | None = None

    def __post_init__(self) -> None:
        self.size = self.sound = min(self.slots, FIRST_WINDOW)

    @property
    def learns(self) -> bool:
        """Tell whether good answers can still change it."""
        return self.pinned is None and self.size < self.slots

    def resize(self, slots: int) -> None:
        """Take another number of slots. A size that it is pinned at beyond them comes back with them."""
        self.slots = slots
        self.size = min(slots, self.size if self.pinned is None else self.pinned)
        self.sound = min(slots, self.sound)

    def pin(self, size: int | None) -> None:
        """Hold it at a size, at most its slots; None lets it adapt again, from the size that it has, as a cold one."""
        if size == self.pinned:
            return
        self.pinned = size
        self.size = self.sound = self.size if size is None else max(1, min(size, self.slots))
        self.edge, self.pause, self.step = None, PAUSE_MS, 1
        self.met = self.next_at = self.earned = self.good = self.bad = 0

    def grow(self, answers: int, now: int, used: int) -> None:
        """Count so many answers that came as they should, while so many slots were used.

        With no answers it only looks whether it has heard nothing for long: an hour's tasks must not keep it small for
        hours.
        """
        if not answers and not self._quiet(now, used):
            return
        self.heard_at = now
        self.good += answers
        if not self.learns:
            return
        gained = answers or self.size
        if self.edge is None:
            self.size = min(self.slots, self.size + gained)
        elif self.size < self.sound:
            self.size = min(self.sound, self.size + gained)
        else:
            if 2 * used > self.size:  # what is not used proves nothing (RFC 7661)
                self.earned += gained
            if self.earned >= self.size and now >= self.next_at:
                self._look_beyond(now, self.edge)

    def shrink(self, now: int, sent_at: int, wait: int = 0) -> None:
        """Halve, on trouble with what was sent then, but once for all that was on its way together.

        `wait` is the pause that the worker asks for.
        """
        self.bad += 1
        self.heard_at = now
        if self.pinned is not None or sent_at <= self.shrunk_at:
            return
        lag = min(max(now - sent_at, 0), MAX_LAG_MS)
        cost = HOLD * (PAUSE_MS + wait) + HOLD_LAG * lag
        rare = self.good >= RARE * self.bad and now - self.shrunk_at >= HOLD * wait // 2
        looked = self.size > self.sound and now < self.next_at
        if rare and not looked and self.edge is not None:
            self.sound = max(1, self.sound - 1 - self.sound // 64)
        elif not looked:  # the edge has come down, or was not known
            self.sound = max(1, self.size // 2)
        same = self.edge is not None and abs(self.size - self.edge) <= max(1, self.size // NEAR)
        self.met = min(CONFIRMED, self.met + 1) if looked and same else 0
        self.edge = max(self.size, self.sound + 1)
        self.pause = PAUSE_MS + 2 * lag
        self.next_at = now + wait + self.pause
        if looked and self.edge - self.sound <= max(1, self.sound // NEAR):
            self.next_at = now + wait + max(self.pause, min(MAX_HOLD_MS, cost >> (CONFIRMED - self.met)))
        self.size = max(1, self.size // 2)
        self.shrunk_at = now
        self.step = 1
        self.earned = self.good = self.bad = 0

    def restart(self, size: int = 1) -> None:
        """Begin small again, for a worker that comes back; what is known of its edge still holds."""
        if self.pinned is None:
            self.size = min(self.size, size)
            self.earned, self.heard_at = 0, None

    def _look_beyond(self, now: int, edge: int) -> None:
        """Take the next step from a size that has stood its time."""
        self.sound = self.size
        if edge - self.size > 1:
            self.size += (edge - self.size) // 2
        else:
            self.size += self.step
            self.step *= 2
        self.size = min(self.size, self.slots)
        self.earned = 0
        self.next_at = now + self.pause

    def _quiet(self, now: int, used: int) -> bool:
        """Tell whether a window that is in use has not heard of its worker for long."""
        if self.heard_at is None:
            self.heard_at = now
        return now - self.heard_at >= QUIET_MS and 2 * used > self.size


def probe_wait(failures: int) -> int:
    """Return the milliseconds before the next probing delivery, after so many that failed in a row."""
    return int(min(PROBE_MAX_MS, PROBE_FIRST_MS * 2 ** min(failures - 1, 10)))

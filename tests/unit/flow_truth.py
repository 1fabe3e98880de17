"""What is true of waiting and running runs, kept in plain lists: slow, obvious, and without a rule of the picture.

Everything is counted anew from the runs whenever it is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from hurlbat_dispatcher.domain.policies import Draws, RateDraw
from hurlbat_dispatcher.domain.terms import Terms

MINUTE = 60_000
PARTS = 64
"""A rate limit may count a start for longer than its duration: by one part in so many."""


@dataclass(eq=False)
class Job:
    """A run that waits or runs. Times are ms."""

    id: str
    lane: int
    rank: int
    priority: int
    due: int
    worker: str | None = None
    started_at: int = 0
    start: int = 0
    """The number of its last start: a run may start twice within one ms, and only one of them may be taken back."""

    @property
    def order(self) -> tuple[int, str]:
        """Its place in its lane."""
        return self.rank, self.id


class Use(NamedTuple):
    """Units that a start took of a rate limit, and until when at most they may be remembered beyond the duration."""

    at: int
    start: int
    units: int
    blur: int
    sure: bool = True
    """False where a key was deleted meanwhile: then it may be remembered or not."""


@dataclass
class Turns:
    """Since when a rotation waits for its next turn: not before `low`, not after `high`, told apart by a number."""

    low: int
    high: int
    number: int


@dataclass
class Truth:
    """All runs, and what is in force."""

    lanes: dict[int, tuple[str, Draws]]
    terms: Terms = field(default_factory=Terms)
    waiting: list[Job] = field(default_factory=list)
    pending: list[Job] = field(default_factory=list)
    running: list[Job] = field(default_factory=list)
    uses: dict[tuple[str, int], list[Use]] = field(default_factory=dict)
    turns: dict[str, Turns] = field(default_factory=dict)
    number: int = 0

    # -- who waits, and who runs -------------------------------------------------------------------------------------

    def in_lane(self, lane: int) -> list[Job]:
        """Return the lane's waiting runs, the first first."""
        return sorted((job for job in self.waiting if job.lane == lane), key=lambda job: job.order)

    def at_worker(self, worker: str) -> int:
        """Return the slots in use there."""
        return sum(self.lanes[job.lane][1].cost for job in self.running if job.worker == worker)

    def in_group(self, rule: str, value: str) -> int:
        """Return how many run in a concurrency group."""
        return sum((rule, value) in self.lanes[job.lane][1].groups for job in self.running)

    # -- rate limits -------------------------------------------------------------------------------------------------

    def span(self, draw: RateDraw) -> int | None:
        """Return the duration that a draw counts by; None where nobody has put the key."""
        if draw.duration:
            return draw.duration
        limit = self.terms.limits.get(draw.key)
        return None if limit is None else limit.duration

    def most(self, draw: RateDraw) -> int:
        """Return the limit that a draw has to keep."""
        return draw.limit if draw.duration else self.terms.limits[draw.key].most

    def started_within(self, draw: RateDraw, now: int, *, blurred: bool = False) -> int:
        """Return the units in the duration that ends now; `blurred`: with all that may still be remembered."""
        span = self.span(draw)
        assert span is not None
        uses = self.uses.get((draw.name, span), ())
        return sum(
            use.units for use in uses if (blurred or use.sure) and use.at + span + (use.blur if blurred else 0) > now
        )

    def use(self, draw: RateDraw, job: Job, now: int) -> None:
        """Note a start."""
        span = self.span(draw)
        assert span is not None
        blur = max(1, span // PARTS)
        self.uses.setdefault((draw.name, span), []).append(Use(now, job.start, draw.units, blur))

    def unuse(self, job: Job) -> None:
        """Forget a start that was none; where the duration has changed since, it may be remembered."""
        for name, uses in self.uses.items():
            others = [use for use in uses if use.start != job.start]
            inherited = [use for use in uses if use not in others and use.blur > max(1, name[1] // PARTS)]
            self.uses[name] = [*others, *(use._replace(sure=False) for use in inherited)]

    def respan(self, name: str, before: int, span: int, now: int, *, sure: bool) -> None:
        """Let what was started while a key had another duration count in the new one, as far as that is known."""
        known = self.uses.setdefault((name, span), [])
        there = {use.start for use in known}
        for use in self.uses.get((name, before), ()):
            if use.start not in there:
                blur = use.blur + max(1, before // PARTS) + max(1, span // PARTS)
                known.append(use._replace(blur=blur, sure=use.sure and sure and use.at + before > now))

    # -- what may start ----------------------------------------------------------------------------------------------

    def why_not(self, lane: int, now: int, *, surely: bool) -> str | None:
        """Return what forbids a start of the lane, but for slots; `surely`: a limit that may still remember forbids."""
        task, draws = self.lanes[lane]
        if self.terms.tasks[task].paused:
            return "its task is paused"
        for rule, value in draws.groups:
            known = self.terms.rules.get(rule)
            if known is not None and self.in_group(rule, value) >= known.max_runs:
                return f"the group {rule}={value} is full"
        for draw in draws.rates:
            until = self.terms.pauses.get(draw.name, 0)
            if until is None or now < until:
                return f"{draw.name} is paused"
            if self.span(draw) is None:
                return f"nobody has put {draw.name}"
            if self.started_within(draw, now, blurred=surely) + draw.units > self.most(draw):
                return f"{draw.name} has no room"
        return None

    # -- turns -------------------------------------------------------------------------------------------------------

    def rotation(self, lane: int) -> str:
        """Return what the lane takes turns as: the first round-robin key that applies, else its task."""
        task, draws = self.lanes[lane]
        for rule, value in draws.groups:
            known = self.terms.rules.get(rule)
            if known is not None and known.strategy == "GROUP_ROUND_ROBIN":
                return f"{rule}={value}"
        return task

    def pool(self, lane: int) -> str:
        """Return a name for the workers and the slots that the lane wants."""
        task, draws = self.lanes[lane]
        return f"{self.terms.tasks[task].workers} {draws.cost}"

    def turn(self, lane: int) -> Turns:
        """Return since when the lane's rotation waits for its turn, within its pool."""
        name = f"{self.pool(lane)} {self.rotation(lane)}"
        if name not in self.turns:
            self.turns[name] = Turns(0, 1 << 60, 0)  # it waited before, under other terms
        return self.turns[name]

    def begin(self, lane: int, now: int) -> None:
        """Let the lane's rotation wait for its next turn from now on."""
        self.number += 1
        turn = self.turn(lane)
        turn.low, turn.high, turn.number = now, now, self.number

    def waits_for_first(self, lane: int) -> bool:
        """Tell whether nothing of the lane's rotation waits, in its pool."""
        name = self.pool(lane), self.rotation(lane)
        return not any((self.pool(job.lane), self.rotation(job.lane)) == name for job in self.waiting)

    def unsure(self) -> None:
        """Let it be open since when all wait."""
        self.turns.clear()

    def heads(self) -> Iterator[Job]:
        """Go through the first run of each lane."""
        for lane in self.lanes:
            jobs = self.in_lane(lane)
            if jobs:
                yield jobs[0]

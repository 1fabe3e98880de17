"""What a play comes to: figures as one JSON object, and in words."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

from tests.chaos.faults import Struck
from tests.chaos.history import Promise
from tests.chaos.play import Played
from tests.chaos.stage import LEASE

SHOWN: Final = 20
"""Breaches that are told in words; the JSON has them all."""
AFTERMATH: Final = 2 * LEASE
"""Seconds after a fault in which a gap in service is counted as its own."""


@dataclass(frozen=True, slots=True)
class Gap:
    """The longest time, in seconds, in which no submit was acknowledged, and in which no attempt began."""

    no_submit: float
    no_start: float


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one play. Without `violations`, all promises were kept."""

    database: str
    seed: int
    seconds: float
    faults: dict[str, int]
    not_possible: list[str]
    submitted: int
    acknowledged: int
    never_answered: int
    refused: dict[str, int]
    lost: int
    states: dict[str, int]
    failed_by: dict[str, int]
    replayed: int
    executions: int
    executed_again: dict[str, int]
    beside_abandoned: int
    longest_gap: Gap
    gap_after: dict[str, Gap]
    settled_after: float | None
    looks: int
    complaints: dict[str, int]
    violations: list[str]

    def as_json(self) -> str:
        """Return one object on one line."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        gaps = "\n".join(f"    {kind:28} {_words(gap)}" for kind, gap in sorted(self.gap_after.items()))
        told = "".join(f"\n  - {violation[:900]}" for violation in self.violations[:SHOWN])
        settled = "not in time" if self.settled_after is None else f"{self.settled_after:g} s after the last fault"
        return f"""chaos on {self.database}, seed {self.seed}, {self.seconds:g} s
  faults              {_counts(self.faults)}{"".join(f"; not made: {why}" for why in self.not_possible)}
  submitted           {self.submitted}, acknowledged {self.acknowledged}, never answered {self.never_answered}
  answered otherwise  {_counts(self.refused)}
  lost                {self.lost}
  ended               {_counts(self.states)}; {settled}
  failed by           {_counts(self.failed_by)}
  replayed            {self.replayed}
  executions          {self.executions}, of which again because of: {_counts(self.executed_again)}
  beyond slots        {self.beside_abandoned} starts beside abandoned attempts
  longest gap         {_words(self.longest_gap)}; of those around a fault:
{gaps}
  looks               {self.looks}
  in the logs         {_counts(self.complaints)}
  violations          {len(self.violations)}{told}"""


def report(played: Played, database: str, seed: int, not_possible: Sequence[str] = ()) -> Report:
    """Sum up a play."""
    history, told = played.history, played.told
    violations = [str(breach) for breach in played.judgement.breaches] + list(played.wrong)
    if played.settled is None:
        violations.append("not everything had ended in time after the last fault")
    submits = told.acknowledged_at
    starts = sorted(execution.begun for execution in history.executions)

    def gap(begin: float, end: float) -> Gap:
        return Gap(longest_gap(submits, begin, end), longest_gap(starts, begin, end))

    around: dict[str, Gap] = {}
    for one in played.struck:
        found = gap(one.began, min(one.ended + AFTERMATH, played.over))
        known = around.get(one.fault.kind, Gap(0, 0))
        around[one.fault.kind.value] = Gap(max(known.no_submit, found.no_submit), max(known.no_start, found.no_start))
    return Report(
        database=database,
        seed=seed,
        seconds=round(played.over - played.began, 1),
        faults=_kinds(played.struck),
        not_possible=list(not_possible),
        submitted=len(told.submissions),
        acknowledged=sum(bool(one.acknowledged) for one in told.submissions),
        never_answered=told.refusals["submit: unanswered"],
        refused={what: count for what, count in told.refusals.items() if what != "submit: unanswered"},
        lost=len(played.judgement.of(Promise.KEPT)),
        states=dict(Counter(run.state for run in history.runs)),
        failed_by=dict(Counter(str(run.code) for run in history.runs if run.state == "failed")),
        replayed=sum(one.replayed for one in told.submissions),
        executions=len(history.executions),
        executed_again=dict(played.judgement.repeats),
        beside_abandoned=played.judgement.crowded,
        longest_gap=gap(played.began, played.over),
        gap_after=around,
        settled_after=played.settled,
        looks=played.looks,
        complaints=played.complaints,
        violations=violations,
    )


def longest_gap(times: Iterable[float], begin: float, end: float) -> float:
    """Return the longest time between two of these moments, as far as they lie between begin and end."""
    inside = [begin, *sorted(time for time in times if begin < time < end), end]
    return round(max(later - earlier for earlier, later in pairwise(inside)), 2)


def _kinds(struck: Iterable[Struck]) -> dict[str, int]:
    return dict(Counter(one.fault.kind.value for one in struck))


def _counts(found: dict[str, Any]) -> str:
    return ", ".join(f"{what} {count}" for what, count in sorted(found.items())) or "none"


def _words(gap: Gap) -> str:
    return f"{gap.no_submit:g} s without an acknowledged submit, {gap.no_start:g} s without a start"

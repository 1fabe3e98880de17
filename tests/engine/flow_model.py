"""What must be so of runs under flow control, judged from committed rows only."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations_with_replacement, pairwise
from typing import Any, Final, NamedTuple

from hurlbat_dispatcher import Run, RunState

STRATEGIES: Final = (
    "GROUP_ROUND_ROBIN",
    "CANCEL_IN_PROGRESS",
    "CANCEL_NEWEST",
    "QUEUE_NEWEST_ONLY",
    "QUEUE_OLDEST_ONLY",
)
MOST: Final = {"a": 2, "b": 3}
"""How many of a group may run at a time, by the input's member that is its key."""
SLOTS: Final = {"one": 7, "two": 4}
STATIC, RAISED, STATIC_MS = 10, 14, 120
DYNAMIC, DYNAMIC_MS = 6, 100
UNSENT: Final = {"not_sent"}
PUTS_BACK: Final = {"retry", "not_sent", "pushed_back", "held", "not_started"}
LIVING: Final = (RunState.QUEUED, RunState.RUNNING)


class Kind(NamedTuple):
    """A task by its rules: two strategies, how many slots it takes, and what limits its starts."""

    name: str
    a: str
    b: str
    cost: int
    rate: str | None

    @property
    def policy(self) -> dict[str, Any]:
        """What its worker declares."""
        rates: dict[str | None, list[dict[str, Any]]] = {
            None: [],
            "static": [{"key": "k", "units": "input.units"}],
            "dynamic": [{"dynamic_key": "input.a", "limit": DYNAMIC, "duration": DYNAMIC_MS / 1000}],
        }
        return {
            "name": self.name,
            "retries": 4,
            "backoff": {"strategy": "fixed", "initial": 0.004, "jitter": False},
            "slot_cost": self.cost,
            "concurrency": [
                {"key": f"input.{key}", "max_runs": MOST[key], "strategy": strategy, "name": f"{key}-{strategy}"}
                for key, strategy in (("a", self.a), ("b", self.b))
            ],
            "rate_limits": rates[self.rate],
        }

    def groups(self, given: Mapping[str, Any]) -> list[tuple[str, str, str, int]]:
        """Return the groups of a run with this input: rule, value, strategy, how many may run."""
        pairs = (("a", self.a), ("b", self.b))
        return [(f"{key}-{strategy}", given[key], strategy, MOST[key]) for key, strategy in pairs]


KINDS: Final = {
    f"task{n}": Kind(f"task{n}", one, other, 1 + n % 3, (None, "static", "dynamic")[(n // 2) % 3])
    for n, (one, other) in enumerate(
        [*combinations_with_replacement(STRATEGIES, 2), *((two, one) for one, two in pairwise(STRATEGIES))]
    )
}


class Row(NamedTuple):
    """A run as a snapshot of the committed rows has it."""

    id: str
    task: str
    state: str
    worker: str | None
    holds_until: int | None
    joined_at: int | None
    attempt: int
    input: str

    @property
    def holds(self) -> bool:
        """Whether it holds its budgets."""
        return self.state == "running" or self.holds_until is not None


SNAPSHOT: Final = f"SELECT {', '.join(Row._fields)} FROM run"


@dataclass
class Judge:
    """Looks at snapshots while runs live, and at all of them at the end."""

    snapshots: list[list[Row]] = field(default_factory=list)
    raised_at: int = 1 << 62
    pairs: Counter[frozenset[str]] = field(default_factory=Counter)

    def see(self, rows: Iterable[Sequence[Any]]) -> None:
        """Check what holds at every committed instant."""
        snapshot = [Row(str(row[0]), *row[1:]) for row in rows]
        used: Counter[str | None] = Counter()
        groups: Counter[tuple[str, str]] = Counter()
        most: dict[tuple[str, str], int] = {}
        for row in snapshot:
            if row.holds:
                used[row.worker] += KINDS[row.task].cost
                for rule, value, _, cap in KINDS[row.task].groups(json.loads(row.input)):
                    groups[rule, value] += 1
                    most[rule, value] = cap
        assert all(count <= SLOTS[worker or ""] for worker, count in used.items()), used
        assert all(count <= most[group] for group, count in groups.items()), groups
        self.snapshots.append(snapshot)

    def conclude(self, runs: Sequence[Run], marks: Mapping[str, set[str]]) -> None:
        """Check all that can be told from how it went, and count which features met in one run."""
        known = {str(run.id): run for run in runs}
        for run in runs:
            assert run.is_final, run
            self._judge_displaced(run, known)
        self._judge_groups(known)
        self._judge_intervals(runs)
        self._judge_rates(runs)
        self._count(runs, marks)

    def _judge_displaced(self, run: Run, known: Mapping[str, Run]) -> None:
        kinds = [entry.kind for entry in run.timeline if entry.kind != "late"]
        told = [entry for entry in run.timeline if entry.kind == "displaced"]
        assert (run.reason == "concurrency") == (bool(told) and kinds[-2:] == ["displaced", "cancelled"]), run
        for entry in told:
            groups = {(name, value): strategy for name, value, strategy, _ in _groups(run)}
            group, strategy = (entry.detail["rule"], entry.detail["key"]), entry.detail["strategy"]
            assert groups[group] == strategy != "GROUP_ROUND_ROBIN"
            at = run.timeline.index(entry)
            if strategy != "CANCEL_IN_PROGRESS":
                before = [one.kind for one in run.timeline[:at] if one.kind != "late"]
                assert before[-1] != "started", "one that ran was displaced"
                assert "retry" not in before or "replayed" in before, "a retry was displaced"
            displacer = entry.detail.get("by")
            if displacer is not None:
                by = known[displacer]
                assert group in [one[:2] for one in _groups(by)]
                assert by.priority >= run.priority
                assert strategy not in ("CANCEL_NEWEST", "QUEUE_OLDEST_ONLY") or by.priority > run.priority

    def _judge_groups(self, known: Mapping[str, Run]) -> None:
        """Check who may wait, but for those whom the next turn displaces; what was put back is not judged again.

        One that changed in a turn is displaced by the next, and may have ended by itself in that: so one that lives in
        no later snapshot with other rows is not held against those that came.
        """
        stays = {run_id for run_id, run in known.items() if run.reason != "concurrency"}
        for snapshot, later in zip(self.snapshots, self._alive_later(), strict=True):
            living: Counter[tuple[str, str]] = Counter()
            fresh: Counter[tuple[str, str]] = Counter()
            says: dict[tuple[str, str], tuple[str, int]] = {}
            for row in snapshot:
                if row.state not in LIVING or row.joined_at is None or row.id not in stays:
                    continue
                for rule, value, strategy, most in KINDS[row.task].groups(json.loads(row.input)):
                    says[rule, value] = strategy, most
                    living[rule, value] += row.id in later
                    fresh[rule, value] += row.state == "queued" and row.attempt == 0
            for group, (strategy, most) in says.items():
                match strategy:
                    case "CANCEL_IN_PROGRESS":
                        assert living[group] <= most, group
                    case "CANCEL_NEWEST":
                        assert fresh[group] <= most, group
                    case "QUEUE_NEWEST_ONLY" | "QUEUE_OLDEST_ONLY":
                        assert fresh[group] <= 1, group

    def _alive_later(self) -> Sequence[set[str]]:
        """Return for each snapshot who lives in the next one that is not the same."""
        found: list[set[str]] = []
        after: list[Row] | None = None
        later: set[str] = set()
        for snapshot in reversed(self.snapshots):
            if after is not None and snapshot != after:
                later = {row.id for row in after if row.state in LIVING}
            found.append(later)
            after = snapshot
        return found[::-1]

    def _judge_intervals(self, runs: Sequence[Run]) -> None:
        """Check groups and workers at every start, by the times of starts and ends."""
        changes: dict[tuple[str, str], list[tuple[int, int, int]]] = defaultdict(list)
        most: dict[tuple[str, str], int] = {}
        for run in runs:
            kind = KINDS[run.task]
            for start, end, worker, _ in _attempts(run):
                held = [(rule, value, 1, cap) for rule, value, _, cap in _groups(run)]
                if worker is not None:
                    held.append(("worker", worker, kind.cost, SLOTS[worker]))
                for name, value, units, cap in held:
                    most[name, value] = cap
                    changes[name, value] += [(start, 1, units), (end, 0, -units)]
        for budget, moments in changes.items():
            used = 0
            for _, _, units in sorted(moments):
                used += units
                assert used <= most[budget], budget

    def _judge_rates(self, runs: Sequence[Run]) -> None:
        starts: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
        for run in runs:
            rate, given = KINDS[run.task].rate, json.loads(run.input)
            for start, _, _, sent in _attempts(run):
                if sent and rate is not None:
                    name = ("static", "k") if rate == "static" else ("dynamic", given["a"])
                    starts[name].append((start, given["units"] if rate == "static" else 1))
        for (rate, key), found in starts.items():
            span = STATIC_MS if rate == "static" else DYNAMIC_MS
            for left, _ in found:
                window = [(at, units) for at, units in found if left <= at < left + span]
                last = max(at for at, _ in window)
                most = DYNAMIC if rate == "dynamic" else STATIC if last < self.raised_at else RAISED
                assert sum(units for _, units in window) <= most, (rate, key, window)

    def _count(self, runs: Sequence[Run], marks: Mapping[str, set[str]]) -> None:
        for run in runs:
            kind = KINDS[run.task]
            has = set(marks.get(str(run.id), ()))
            has |= {"rate"} if kind.rate is not None else set()
            has |= {"priority"} if run.priority != 2 else set()
            has |= {"retry"} if any(entry.kind == "retry" for entry in run.timeline) else set()
            strategies = sorted({kind.a, kind.b})
            features = sorted(has | set(strategies))
            self.pairs.update(frozenset({one, other}) for one in features for other in features if one < other)
            self.pairs.update([frozenset({kind.a, kind.b})] if kind.a == kind.b else [])


def _groups(run: Run) -> list[tuple[str, str, str, int]]:
    return KINDS[run.task].groups(json.loads(run.input))


def _attempts(run: Run) -> list[tuple[int, int, str | None, bool]]:
    """Return the start and the end of each attempt, its worker where that is known, and whether it was sent."""
    found: list[tuple[int, int, str | None, bool]] = []
    begun: tuple[int, str | None] | None = None
    for entry in run.timeline:
        if entry.kind == "started":
            begun = entry.at, entry.detail.get("worker")
        elif begun is not None and (entry.kind in PUTS_BACK or entry.kind in set(RunState) - set(LIVING)):
            found.append((begun[0], entry.at, begun[1], entry.kind not in UNSENT))
            begun = None
    return found

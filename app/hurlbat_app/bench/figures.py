"""From what clients, worker and server wrote down to the figures of a bench: pure functions."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from hurlbat_app.bench.watch import Cpu

NS_PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took, in milliseconds."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory of the server in MiB: after warming up, half way, when the last result was stored, at most."""

    start: float
    middle: float
    end: float
    highest: float


@dataclass(frozen=True, slots=True)
class Report:
    """One measurement, as `--json` prints it."""

    runs_per_second: float
    """From the first submit to the last stored result."""
    submit_ms: Percentiles
    """Under load: from sending a submit until it was acknowledged, i.e. committed and synced."""
    start_ms: Percentiles | None
    """Idle: from sending a submit until the task's function began; None for a worker that is not ours."""
    stored_ms: Percentiles
    """Idle: from sending a submit until its result was stored."""
    idle_submit_ms: Percentiles
    lost: int
    """Acknowledged runs that never started in the worker, as far as that is known, or have no stored result."""
    duplicates: int | None
    """Starts in the worker beyond the first of each run; None for a worker that is not ours."""
    refused: int
    """Submits that were answered 503 and repeated."""
    cpu_us_per_run: Cpu
    """Microseconds of CPU; unlike the others it hardly depends on what else the machine does."""
    memory_mb: Memory | None
    versions: Mapping[str, str]
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON objects and numbers."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Start:
    """One line of the worker's log."""

    run_id: str
    attempt: int
    at_ns: int


def read_log(lines: Iterable[str]) -> list[Start]:
    """Read the worker's log."""
    parts = (line.split() for line in lines)
    return [Start(run_id, int(attempt), int(at_ns)) for run_id, attempt, at_ns in parts]


def percentiles(milliseconds: Sequence[float]) -> Percentiles:
    """Return the nearest-rank percentiles of at least one value."""
    ordered = sorted(milliseconds)

    def rank(percent: int) -> float:
        return round(ordered[max(0, -(-len(ordered) * percent // 100) - 1)], 3)

    return Percentiles(rank(50), rank(95), rank(99))


def lost(acknowledged: Sequence[str], started: Sequence[Start], stored: Iterable[str]) -> int:
    """Count acknowledged runs that did not start, or whose result is not stored."""
    return len(set(acknowledged) - ({start.run_id for start in started} & set(stored)))


def duplicates(started: Sequence[Start]) -> int:
    """Count starts beyond the first of each run."""
    return sum(count - 1 for count in Counter(start.run_id for start in started).values())


def start_latencies(ids: Sequence[str], began_ns: Sequence[int], started: Sequence[Start]) -> list[float]:
    """Return the milliseconds from each submit to its first start, for the runs that started."""
    first: dict[str, int] = {}
    for start in started:
        first[start.run_id] = min(start.at_ns, first.get(start.run_id, start.at_ns))
    pairs = zip(ids, began_ns, strict=True)
    return [(first[run_id] - began) / NS_PER_MS for run_id, began in pairs if run_id in first]


def memory(samples: Sequence[tuple[float, float]]) -> Memory:
    """Boil samples of (seconds, MiB) down to what they were first, half way and last, and at most."""
    half = (samples[0][0] + samples[-1][0]) / 2
    middle = min(samples, key=lambda sample: abs(sample[0] - half))
    figures = (samples[0][1], middle[1], samples[-1][1], max(sample[1] for sample in samples))
    return Memory(*(round(figure, 1) for figure in figures))


# -- a burdened server beside an empty one -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of runs that the burden does not concern."""

    runs_per_second: float
    """From the first submit to the last stored result."""
    submit_ms: Percentiles
    """Under load: from sending a submit until it was acknowledged."""
    start_ms: Percentiles
    """Idle: from sending a submit until the task's function began."""
    loaded_start_ms: Percentiles
    """The same under load, which is mostly the time in the queue."""
    refused: int


@dataclass(frozen=True, slots=True)
class Grown:
    """Resident memory of the server in MiB: warmed up, when all that waits was loaded, and after the last round."""

    before: float
    loaded: float
    end: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """A scenario's figures over those of `empty`, the median of the rounds' ratios."""

    runs_per_second: float
    start_p99: float
    loaded_start_p99: float


@dataclass(frozen=True, slots=True)
class Burdened:
    """What was measured in one scenario; rates and times are medians of its rounds."""

    waiting: int
    """Runs that waited throughout."""
    loaded_per_second: float
    """Runs of the burden submitted and acknowledged per second, in bulk."""
    runs_per_second: float
    submit_ms: Percentiles
    start_ms: Percentiles
    loaded_start_ms: Percentiles
    ratio: Ratio | None
    """None for `empty` itself."""
    duplicates: int
    refused: int
    strayed: int
    """Starts of the burden beyond those that its rules allow, or missing from them."""
    memory_mb: Grown
    idle_cpu_percent: float
    """Of one core, used by the server while nothing is submitted to it."""
    rounds: Sequence[Round]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All scenarios, as `--json` prints them."""

    scenarios: Mapping[str, Burdened]
    versions: Mapping[str, str]
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the comparison as JSON objects and numbers."""
        return asdict(self)


def burdened(
    rounds: Sequence[Round],
    empty: Sequence[Round] | None,
    *,
    waiting: int,
    loaded_per_second: float,
    duplicates: int,
    strayed: int,
    memory_mb: Grown,
    idle_cpu_percent: float,
) -> Burdened:
    """Sum a scenario's rounds up, and set each against the round of `empty` that was measured beside it."""
    return Burdened(
        waiting=waiting,
        loaded_per_second=round(loaded_per_second, 1),
        runs_per_second=median(one.runs_per_second for one in rounds),
        submit_ms=_middle([one.submit_ms for one in rounds]),
        start_ms=_middle([one.start_ms for one in rounds]),
        loaded_start_ms=_middle([one.loaded_start_ms for one in rounds]),
        ratio=None if empty is None else _ratio(list(zip(rounds, empty, strict=True))),
        duplicates=duplicates,
        refused=sum(one.refused for one in rounds),
        strayed=strayed,
        memory_mb=memory_mb,
        idle_cpu_percent=round(idle_cpu_percent, 1),
        rounds=rounds,
    )


def _ratio(pairs: Sequence[tuple[Round, Round]]) -> Ratio:
    def middle(figure: Callable[[Round], float]) -> float:
        return round(median(figure(one) / figure(empty) for one, empty in pairs), 3)

    return Ratio(
        middle(lambda one: one.runs_per_second),
        middle(lambda one: one.start_ms.p99),
        middle(lambda one: one.loaded_start_ms.p99),
    )


def _middle(found: Sequence[Percentiles]) -> Percentiles:
    return Percentiles(
        *(median(values) for values in zip(*((one.p50, one.p95, one.p99) for one in found), strict=True))
    )

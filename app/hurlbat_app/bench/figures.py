"""From what clients, worker and server wrote down to the figures of a bench: pure functions."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
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
    start_ms: Percentiles
    """Idle: from sending a submit until the task's function began."""
    idle_submit_ms: Percentiles
    lost: int
    """Acknowledged runs that never started in the worker, or have no stored result."""
    duplicates: int
    """Starts in the worker beyond the first of each run."""
    refused: int
    """Submits that were answered 503 and repeated."""
    cpu_us_per_run: Cpu
    """Microseconds of CPU; unlike the others it hardly depends on what else the machine does."""
    memory_mb: Memory | None
    versions: Mapping[str, str]
    settings: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON objects and numbers."""
        found = asdict(self)
        if self.memory_mb is None:
            del found["memory_mb"]
        return found


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

"""Tell histories from the command line: many seeds and what they broke, or the trace of one.

python -m tests.sim --seeds 0:300 [--json] [--mode safety|liveness|both] [--jobs 2]
python -m tests.sim --seed 7 --trace
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, Final

from tests.sim.plan import MODES
from tests.sim.telling import Told, tell

CHUNK: Final = 10
"""Seeds that one process takes at a time."""
SHOWN: Final = 5
"""Violations that are shown of one seed."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is kept of one history."""

    seed: int
    violations: tuple[str, ...]
    seconds: float
    counts: Counter[str]
    faults: Counter[str]


def summary_of(told: Told) -> Summary:
    """Return what is kept of a history."""
    shown = tuple(f"{one.at:.3f} s: {one.rule}: {one.what}" for one in told.violations)
    return Summary(told.plan.seed, shown, told.seconds, told.counts, told.faults)


def command_of(seed: int, mode: str = "both") -> str:
    """Return the command that tells this history again."""
    more = "" if mode == "both" else f" --mode {mode}"
    return f"python -m tests.sim --seed {seed} --trace{more}"


def summaries(seeds: range, mode: str, jobs: int) -> Iterator[Summary]:
    """Tell these histories, in order."""
    if jobs == 1:
        for seed in seeds:
            yield summary_of(tell(seed, mode))
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        yield from pool.map(_one, seeds, [mode] * len(seeds), chunksize=CHUNK)


def _one(seed: int, mode: str) -> Summary:
    return summary_of(tell(seed, mode))


def figures(told: Sequence[Summary], wall: float) -> dict[str, Any]:
    """Return what is shown of many histories: totals, and faults and mishaps per history by kind."""
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for one in told:
        counts.update(one.counts)
        faults.update(one.faults)
    number = max(1, len(told))
    per_history = {kind: round(count / number, 3) for kind, count in sorted(faults.items())}
    happened = {kind: round(count / number, 2) for kind, count in sorted(counts.items())}
    return {
        "seconds": round(wall, 1),
        "histories_per_second": round(number / wall, 2) if wall else 0.0,
        "virtual_seconds": round(sum(one.seconds for one in told)),
        "faults_per_history": round(sum(faults.values()) / number, 1),
        "faults": per_history,
        "per_history": happened,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what is asked for; return 1 when something was violated."""
    asked = _parser().parse_args(arguments)
    if asked.seed is not None:
        return _tell_one(asked.seed, asked.mode, trace=asked.trace)
    began = time.monotonic()
    told = []
    for one in summaries(asked.seeds, asked.mode, asked.jobs):
        told.append(one)
        if one.violations:
            _complain(one, asked.mode)
    found = figures(told, time.monotonic() - began)
    violations = [{"seed": one.seed, "violations": one.violations[:SHOWN]} for one in told if one.violations]
    result = {"seeds": len(told), "violations": violations}
    if asked.json:
        print(json.dumps(result | {"figures": found}))
    else:
        print(json.dumps(result))
        print(json.dumps(found, indent=2))
    return 1 if violations else 0


def _tell_one(seed: int, mode: str, *, trace: bool) -> int:
    told = tell(seed, mode)
    if trace:
        print("\n".join(told.trace))
    else:
        _complain(summary_of(told), mode)
        print(json.dumps({"seeds": 1, "violations": [seed] if told.violations else []}))
    return 1 if told.violations else 0


def _complain(one: Summary, mode: str) -> None:
    for what in one.violations[:SHOWN]:
        print(f"seed {one.seed}: {what}", file=sys.stderr)
    if one.violations:
        print(f"seed {one.seed}: {command_of(one.seed, mode)}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description="Tell simulated histories.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--seeds", type=_range, metavar="A:B", help="tell the histories of these seeds, B not among them")
    what.add_argument("--seed", type=int, help="tell the history of one seed")
    parser.add_argument("--trace", action="store_true", help="print the trace of the one history, and nothing else")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--mode", choices=MODES, default="both", help="whether trouble ends; both: the seed decides")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that tell at the same time")
    return parser


def _range(text: str) -> range:
    first, _, last = text.partition(":")
    return range(int(first), int(last))

"""Make trouble with real processes for a while and tell what became of everything.

    python -m tests.chaos --minutes 10 --database postgres [--seed 7] [--json]

The figures come as text, or as one JSON object; the exit code is 1 where a promise was broken.
"""

import argparse
import asyncio
import json
import secrets
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from tests.chaos import packets
from tests.chaos.faults import trouble
from tests.chaos.play import Played, play
from tests.chaos.report import Report, report
from tests.chaos.stage import set_stage
from tests.support.postgres import Cluster, running_cluster

MODULE = "tests.chaos"
RATE = 30.0
BOUND = 150.0
"""Seconds: a run that no worker took for long is offered at most once a minute."""


def main() -> int:
    """Run and report; return the exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Make trouble with real processes.")
    parser.add_argument("--minutes", type=float, required=True, help="how long faults are made")
    parser.add_argument("--database", choices=["postgres", "sqlite"], required=True)
    parser.add_argument("--seed", type=int, default=None, help="decides the faults and what is submitted")
    parser.add_argument("--rate", type=float, default=RATE, help="submits a second")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args()
    packets.enter(MODULE, sys.argv[1:])
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="hurlbat-chaos-"))
    print(f"seed {seed}, logs in {folder}", file=sys.stderr)
    found = run(folder, asked.database, seed, asked.minutes * 60, asked.rate)
    print(found.as_json() if asked.json else found)
    if found.violations:
        print(f"the logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


def run(folder: Path, database: str, seed: int, seconds: float, rate: float) -> Report:
    """Make trouble for so many seconds on a database of our own."""
    with ExitStack() as stack:
        cluster = stack.enter_context(running_cluster()) if database == "postgres" else None
        played = asyncio.run(_played(folder, cluster, seed, seconds, rate))
    (folder / "history.json").write_text(json.dumps(asdict(played.history)))
    lacking = None if packets.inside() else packets.missing()
    return report(played, database, seed, [f"dropped packets ({lacking})"] if lacking else [])


async def _played(folder: Path, cluster: Cluster | None, seed: int, seconds: float, rate: float) -> Played:
    name = "hurlbat.db" if cluster is None else "postgres"
    async with set_stage(folder, cluster, name) as stage:
        return await play(stage, lambda: trouble(stage, seed, seconds), seed=seed, rate=rate, bound=BOUND)


if __name__ == "__main__":
    sys.exit(main())

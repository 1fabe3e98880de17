"""Make up requests from `openapi.yaml` and hold a real server to it: `python -m tests.contract.fuzz --cases 10000`.

schemathesis makes the cases: the contract's examples, the edges of every schema, chance, and chains along the links.
A case that is answered by a 5xx, or by a status, type, header or body that the contract does not have, ends it with a
line of curl. What is printed last tells how many cases each operation had and how many of them were answered well.
"""

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hurlbat_app.api.contract import contract
from tests.support.postgres import running_cluster
from tests.support.processes import ROOT, TOKEN, Processes

METHODS = frozenset({"get", "post", "put", "patch", "delete"})
PHASES = "examples,coverage,fuzzing,stateful"
ALLOWED = "positive_data_acceptance"
"""The one check that is left out: a good body may still name what is not there, or contradict what is."""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """What came of the cases: how many answers of which status each operation gave, and what schemathesis said."""

    statuses: dict[str, dict[int, int]]
    passed: bool
    said: str

    @property
    def cases(self) -> int:
        """How many cases were sent."""
        return sum(sum(counts.values()) for counts in self.statuses.values())

    @property
    def unseen(self) -> list[str]:
        """Operations of the contract that had no case."""
        return sorted(operations() - self.statuses.keys())

    @property
    def never_well(self) -> list[str]:
        """Operations that were never answered 2xx."""
        return sorted(label for label, counts in self.statuses.items() if not _well(counts))

    def __str__(self) -> str:
        lines = [f"{'cases':>6} {'2xx':>5}  operation"]
        for label, counts in sorted(self.statuses.items()):
            several = "  ".join(f"{status}: {count}" for status, count in sorted(counts.items()))
            total = sum(counts.values())
            lines.append(f"{total:>6} {_well(counts) / total:>5.0%}  {label:<54} {several}")
        return "\n".join([*lines, f"{self.cases:,} cases, {len(self.statuses)} of {len(operations())} operations"])


def operations() -> set[str]:
    """Return the operations of the contract, as `GET /runs`."""
    return {
        f"{method.upper()} {path}" for path, item in contract()["paths"].items() for method in item if method in METHODS
    }


def fuzz(
    processes: Processes, database_url: str, folder: Path, seed: int, *options: str, phases: str = PHASES
) -> Fuzzed:
    """Start a server and its workers, and have schemathesis make up requests. The options are schemathesis' own."""
    stage = processes.app("tests.contract.stage:app")
    server = processes.serve(database_url, HURLBAT_PROXY=stage.url)
    counts = folder / "counts.json"
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [program, "--config-file", str(ROOT / "tests/api/schemathesis.toml"), "run", str(ROOT / "openapi.yaml")]
    asked = ("--url", server.url, "--seed", str(seed), "--phases", phases, "--exclude-checks", ALLOWED, "--no-color")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.contract.hooks",
        "HURLBAT_CONTRACT_SERVER": server.url,
        "HURLBAT_CONTRACT_STAGE": stage.url,
        "HURLBAT_CONTRACT_TOKEN": TOKEN,
        "HURLBAT_CONTRACT_SEED": str(seed),
        "HURLBAT_CONTRACT_COUNTS": str(counts),
    }
    done = subprocess.run(
        [*command, *asked, *options], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    statuses: dict[str, dict[int, int]] = defaultdict(dict)
    for label, status, count in json.loads(counts.read_text()) if counts.exists() else ():
        statuses[label][status] = count
    said = done.stdout + done.stderr
    logged = "unexpected error" in server.output
    if logged:
        said += f"\nthe server's log:\n{server.output[-20_000:]}"
    return Fuzzed(dict(statuses), done.returncode == 0 and not logged, said)


def main() -> int:
    """Fuzz and report; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.contract.fuzz", description="Hold a server to its contract.")
    parser.add_argument("--cases", type=int, default=10_000, help="at least so many made up by chance")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    asked = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    each = -(-asked.cases // len(operations()))
    folder = Path(tempfile.mkdtemp(prefix="hurlbat-contract-"))
    print(f"seed {seed}, {each} cases by chance for each operation, logs in {folder}", file=sys.stderr)
    processes = Processes(folder)
    try:
        with _database(asked.database, folder) as url:
            found = fuzz(processes, url, folder, seed, "--max-examples", str(each), "--continue-on-failure")
    finally:
        processes.close()
    print(found)
    wrong = [] if found.passed else ["the contract was broken"]
    wrong += [] if found.cases >= asked.cases else [f"only {found.cases:,} cases"]
    wrong += [f"no case of {label}" for label in found.unseen]
    wrong += [f"never answered 2xx: {label}" for label in found.never_well]
    if wrong:
        print(found.said, *wrong, f"again: python -m tests.contract.fuzz --cases {asked.cases} --seed {seed}", sep="\n")
    return 1 if wrong else 0


def _well(counts: dict[int, int]) -> int:
    return sum(count for status, count in counts.items() if status < 300)


@contextmanager
def _database(kind: str, folder: Path) -> Iterator[str]:
    if kind == "sqlite":
        yield f"sqlite+aiosqlite:///{folder / 'contract.db'}"
        return
    with running_cluster() as cluster, cluster.database() as name:
        yield cluster.url(name)


if __name__ == "__main__":
    sys.exit(main())

"""Makes trouble while runs are submitted, and counts afterwards what became of every one of them.

How much trouble: HURLBAT_CHAOS_RUNS, HURLBAT_CHAOS_KILLS and HURLBAT_CHAOS_AWAY (seconds), small unless set.
"""

import json
import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

import httpx

from tests.e2e.stage import Api, Journal, Object, until
from tests.support.processes import TOKEN

CLIENTS = 6
PACE = 0.02
"""Seconds between two submits of a client: as kills take time, the submits have to last as long."""
EXTRA = frozenset({"retry", "not_started"})
"""Kinds of timeline rows that tell why an attempt, which may have been executed, is followed by another."""


@dataclass(frozen=True)
class Size:
    runs: int
    kills: int
    away: float


def size() -> Size:
    """Return how much is asked for."""
    asked = os.environ
    return Size(
        runs=int(asked.get("HURLBAT_CHAOS_RUNS", "300")),
        kills=int(asked.get("HURLBAT_CHAOS_KILLS", "3")),
        away=float(asked.get("HURLBAT_CHAOS_AWAY", "5")),
    )


@dataclass
class Submitters:
    """Clients that submit numbered runs, over and over until each is acknowledged.

    The even numbers carry an idempotency key, so that a repeat after a broken answer finds the first. For odd ones a
    broken answer may leave a run behind that nobody knows of; only the acknowledged ones count.
    """

    urls: Sequence[str]
    """Servers; a client stays with one until it cannot be reached."""
    runs: int
    task: str = "work"
    acknowledged: dict[int, str] = field(default_factory=dict)
    unanswered: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def start(self) -> None:
        self._numbers = iter(range(self.runs))
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._submit, args=(client,)) for client in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def until(self, acknowledged: int) -> None:
        """Wait until so many runs are acknowledged."""
        until(lambda: len(self.acknowledged) >= acknowledged, f"{acknowledged} acknowledged runs", 180)

    def give_up(self) -> None:
        """Submit nothing more."""
        self._over.set()

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _submit(self, client_number: int) -> None:
        servers = deque(self.urls)
        servers.rotate(client_number)
        with httpx.Client(headers={"authorization": f"Bearer {TOKEN}"}, timeout=60, trust_env=False) as client:
            while True:
                with self._lock:
                    number = next(self._numbers, None)
                if number is None:
                    return
                while not self._attempt(client, servers[0], number):
                    servers.rotate()
                    if self._over.wait(0.05):
                        return
                if self._over.wait(PACE):
                    return

    def _attempt(self, client: httpx.Client, server: str, number: int) -> bool:
        body: Object = {"task": self.task, "input": number}
        if number % 2 == 0:
            body |= {"idempotency_key": f"number-{number}", "idempotency_ttl": 3600}
        try:
            response = client.post(f"{server}/runs", json=body)
        except httpx.ConnectError:
            return False
        except httpx.HTTPError:
            self.unanswered += 1
            return False
        if response.status_code not in (200, 201):
            self.refused[f"{response.status_code} {response.json().get('code')}"] += 1
            return False
        self.acknowledged[number] = response.json()["id"]
        return True


@dataclass(frozen=True)
class Count:
    """What became of the runs. `lost` must be empty, and so must `unexplained`."""

    submitted: int
    acknowledged: int
    unanswered: int
    completed: int
    lost: list[Object]
    executions: int
    duplicates: int
    explained_by: dict[str, int]
    unexplained: list[str]
    charged_for: dict[str, int]
    """The codes of all charged starts but the last, whether the worker noted an execution or not."""
    refused: dict[str, int]
    """What clients were answered instead of an acknowledgement, and tried again."""
    seconds: float

    def __str__(self) -> str:
        return json.dumps(asdict(self))


def kills(runs: int, count: int, seed: int) -> list[int]:
    """Return after how many of the runs to strike."""
    return sorted(random.Random(seed).sample(range(runs // 20, runs), count))


def count(api: Api, submitters: Submitters, journal: Journal, began: float) -> Count:
    """Wait until every acknowledged run has ended, and look at each of them, and at what the worker noted."""
    runs = {run_id: ended(api, run_id) for run_id in submitters.acknowledged.values()}
    seconds = time.monotonic() - began
    starts: dict[str, list[int]] = {}
    for entry in journal.entries():
        if entry["event"] == "started":
            starts.setdefault(entry["run_id"], []).append(entry["attempt"])
    explained: Counter[str] = Counter()
    unexplained: list[str] = []
    for run_id, attempts in starts.items():
        if run_id in runs:
            reasons, faults = explain(runs[run_id], attempts)
            explained.update(reasons)
            unexplained += faults
    executions = sum(len(attempts) for run_id, attempts in starts.items() if run_id in runs)
    return Count(
        submitted=submitters.runs,
        acknowledged=len(submitters.acknowledged),
        unanswered=submitters.unanswered,
        completed=sum(run["state"] == "completed" for run in runs.values()),
        lost=[run for run in runs.values() if run["state"] != "completed" or run["id"] not in starts],
        executions=executions,
        duplicates=executions - sum(run_id in starts for run_id in runs),
        explained_by=dict(explained),
        unexplained=unexplained,
        charged_for=dict(Counter(code for run in runs.values() for code in charges(run))),
        refused=dict(submitters.refused),
        seconds=round(seconds, 1),
    )


def ended(api: Api, run_id: str) -> Object:
    """Return a run when it has ended; a server whose database has just come back may say that it is away."""
    until(lambda: api.send("GET", f"/runs/{run_id}", wait=60).status_code != 503, "answer from the database")
    return api.ended(run_id, 180)


def charges(run: Object) -> list[str]:
    """Return why each charged start but the last did not end the run."""
    codes = [entry["code"] for entry in run["timeline"] if entry["kind"] == "retry"]
    assert len(codes) == run["tries"] - 1, run
    return codes


def explain(run: Object, attempts: Iterable[int]) -> tuple[list[str], list[str]]:
    """Return why each execution but the last happened, and what cannot be explained.

    No attempt is ever executed twice, and every attempt that another one follows has its row in the timeline.
    """
    executed = Counter(attempts)
    faults = [f"attempt {attempt} of {run['id']} ran twice" for attempt, times in executed.items() if times > 1]
    rows = {entry["attempt"]: entry for entry in run["timeline"] if entry["kind"] in EXTRA}
    reasons = []
    for attempt in sorted(executed):
        if attempt == run["attempt"]:
            continue
        row = rows.get(attempt)
        if row is None:
            faults.append(f"attempt {attempt} of {run['id']} was executed and nothing says why another followed: {run}")
        elif len(executed) > 1:
            reasons.append(row.get("code") or row["kind"])
    return reasons, faults

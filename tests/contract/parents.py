"""Good parents for made-up requests: what a path names is there, in one of its states, before it is asked for.

A request of pure chance finds no run, holds no lease and knows no secret, so it would see the server's 404s alone.
`Parents.of(operation, path)` makes what the path needs over the API itself, and returns how to name it.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.contract.stage import PLAIN_URL, PROTOCOL_URL, SECRET

SENDER_HEADER = "webhook-signature"
SENDER_KEY = "the-key-of-the-sender"
SERVED = ("echo", "fail", "held")
"""Tasks that are served."""
KEPT = frozenset({*SERVED, "leased", "stage", "plain", "leases"})
"""Tasks and workers that stay as they are, whatever a case would do to them."""
TRIES = 10


@dataclass(frozen=True, slots=True)
class Named:
    """What a path names, and the headers that are needed to be let in instead of the API token."""

    path: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class Parents:
    """Makes parents on one server, whose workers are on the stage."""

    def __init__(self, url: str, token: str, stage: str, seed: int) -> None:
        self._url, self._stage = url, stage
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["authorization"] = f"Bearer {token}"
        self.random = random.Random(seed)
        self._made: dict[str, str] = {}
        self._kinds: dict[str, Callable[[str, str], Named]] = {
            "/runs/{run_id}/attempts/{attempt}/": self._attempt,
            "/runs/{run_id}": self._run,
            "/operations/{operation_id}": self._operation,
            "/workers/{name}": self._worker,
            "/tasks/{name}/filters/{filter_id}": self._filter,
            "/tasks/{name}": lambda *_: Named({"name": "aside"}),
            "/workflows/{name}": self._workflow,
            "/events/{event_id}": self._event,
            "/rate-limits/{key}": self._rate_limit,
            "/schedules/{name}": self._schedule,
            "/webhooks/{name}": self._webhook,
        }
        worker = {"name": "stage", "url": PROTOCOL_URL, "secret": SECRET}
        assert self._ask("POST", "/workers", worker)["state"] == "ready"
        self._plain("plain", "held")
        self._plain("leases", "leased")

    def of(self, method: str, path: str, *, ended: bool = False) -> Named | None:
        """Return good parameters for a path of the contract; none for one that names nothing."""
        if ended and path.startswith("/runs/{run_id}"):
            return Named({"run_id": self._ended()})
        for begin, make in self._kinds.items():
            if path.startswith(begin):
                return make(method, path)
        return None

    def run(self) -> str:
        """Return the id of a run in one of its states."""
        kinds: list[dict[str, Any]] = [
            {"task": "echo", "delay": 3600},
            {"task": "echo", "input": {"n": 1}},
            {"task": "fail"},
            {"task": "held"},
        ]
        return str(self._ask("POST", "/runs", self.random.choice(kinds))["id"])

    def _ended(self) -> str:
        run = self._ask("POST", "/runs", {"task": "echo"})
        for _ in range(10 * TRIES):
            if run["finished_at"] is not None:
                return str(run["id"])
            run = self._ask("GET", f"/runs/{run['id']}?wait=1")
        raise AssertionError(f"the run has not ended: {run}")

    def _attempt(self, _method: str, _path: str) -> Named:
        for _ in range(TRIES):
            run_id = self._ask("POST", "/runs", {"task": "leased"})["id"]
            answer = self._session.get(f"{self._stage}/taken/{run_id}", timeout=60)
            if answer.status_code == 200:
                found = answer.json()
                lease = {"Authorization": f"Bearer {found['lease_token']}"}
                return Named({"run_id": run_id, "attempt": found["attempt"]}, lease)
            # a case has cancelled it, with many others
        raise AssertionError("no worker was sent what was submitted")

    def _run(self, _method: str, path: str) -> Named:
        if "{attempt}" in path:
            return Named({"run_id": self._ended(), "attempt": 1})
        return Named({"run_id": self._ended() if path.endswith("/replay") else self.run()})

    def _operation(self, _method: str, _path: str) -> Named:
        if "operation" not in self._made:
            asked = {"filter": {"task": "nobody", "state": "queued"}}
            self._made["operation"] = self._ask("POST", "/runs/cancel", asked)["id"]
        return Named({"operation_id": self._made["operation"]})

    def _worker(self, _method: str, path: str) -> Named:
        if path.endswith("/sync") or self.random.random() < 0.5:
            if self.random.random() < 0.5:
                # as new: a worker whose secret a case has rotated does not take the old one again
                self._session.delete(f"{self._url}/workers/aside", timeout=60)
            if self._status("/workers/aside") != 200:
                self._ask("POST", "/workers", {"name": "aside", "url": PROTOCOL_URL, "secret": SECRET})
            return Named({"name": "aside"})
        self._plain("aside-plain", "aside-held")
        return Named({"name": "aside-plain"})

    def _filter(self, method: str, _path: str) -> Named:
        found = self._made.get("filter", "none")
        if self._status(f"/tasks/aside/filters/{found}") != 200:
            found = self._made["filter"] = self._ask("POST", "/tasks/aside/filters", {"expression": "true"})["id"]
        return Named({"name": "aside", "filter_id": found})

    def _workflow(self, method: str, _path: str) -> Named:
        name = f"flow-{self.random.randrange(8)}"
        if method != "PUT" or self.random.random() < 0.5:
            self._ask("PUT", f"/workflows/{name}", {"nodes": [{"name": "echo"}]})
        return Named({"name": name})

    def _event(self, _method: str, _path: str) -> Named:
        return Named({"event_id": self._ask("POST", "/events", {"key": "contract.event"})["id"]})

    def _rate_limit(self, method: str, _path: str) -> Named:
        key = f"limit-{self.random.randrange(8)}"
        if method != "PUT" or self.random.random() < 0.5:
            self._ask("PUT", f"/rate-limits/{key}", {"limit": 5, "duration": 1})
        return Named({"key": key})

    def _schedule(self, _method: str, _path: str) -> Named:
        name = f"schedule-{self.random.randrange(8)}"
        if self._status(f"/schedules/{name}") != 200:
            self._ask("POST", "/schedules", {"name": name, "task": "echo", "expression": "0 3 * * *"})
        return Named({"name": name})

    def _webhook(self, method: str, _path: str) -> Named:
        name = f"hook-{self.random.randrange(8)}"
        if method != "PUT" or self.random.random() < 0.5:
            auth = {"type": "api_key", "header": SENDER_HEADER, "key": SENDER_KEY}
            self._ask("PUT", f"/webhooks/{name}", {"auth": auth, "key": "'contract.hook'"})
        return Named({"name": name}, {SENDER_HEADER: SENDER_KEY} if method == "POST" else {})

    def _plain(self, name: str, task: str) -> None:
        room = {"slots": 10_000, "window": 10_000}
        self._ask(
            "POST", "/workers", {"name": name, "url": PLAIN_URL, "mode": "plain", "tasks": [{"name": task}], **room}
        )

    def _status(self, path: str) -> int:
        return self._session.get(f"{self._url}{path}", timeout=60).status_code

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        answer = self._session.request(method, f"{self._url}{path}", json=body, timeout=60)
        assert answer.status_code < 300, f"{method} {path} {body}: {answer.status_code} {answer.text}"
        return answer.json()

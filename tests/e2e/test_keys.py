"""Signing keys as an operator meets them: rotated under load, looked into after a refusal, tried by curl."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from hurlbat import signing
from tests.e2e.stage import PATIENCE, SECRET, Api, Stage, until
from tests.support import warm
from tests.support.processes import TOKEN

MOUNTS = "tests.e2e.mounts:app"
alone = pytest.mark.parametrize("shared_stage", ["sqlite"], indirect=True)
"""For what no database has a part in."""
Done = subprocess.CompletedProcess[str]
NASTY = (
    "it's \"quoted\" \\ `touch pwned` $(touch pwned) ${HOME}\nnext\r\n\tline\n'EOF'\nHURLBAT\n; rm x # ünïcode 🙂 %s !!"
)


class Turning:
    """A worker of this test's own, with its secret."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.process = stage.processes.app(MOUNTS, HURLBAT_SIGNING_SECRET=SECRET)
        self.url = f"{self.process.url}/mounted/"

    def restart(self, **settings: Any) -> None:
        """Stop it and start it in the same place with other settings."""
        self.process.terminate()
        self.process = self.stage.processes.app(MOUNTS, port=self.process.port, **settings)

    def show(self) -> dict[str, Any]:
        """Return it as the server has it."""
        found: dict[str, Any] = self.stage.api.call("GET", "/workers/turning")
        return found


@pytest.fixture(scope="session")
def the_turning(shared_stage: Stage) -> Turning:
    return Turning(shared_stage)


@pytest.fixture
def turning(stage: Stage, the_turning: Turning) -> Iterator[Turning]:
    """A worker that is registered as `turning`, proven by the secret of all tests, and forgotten after the test."""
    assert stage.api.call("POST", "/workers", spec(the_turning), status=201)["state"] == "ready"
    yield the_turning
    stage.api.send("DELETE", "/workers/turning")


def spec(turning: Turning) -> dict[str, Any]:
    return {"name": "turning", "url": turning.url, "secret": SECRET, "headers": {"x-gateway": "open sesame"}}


@pytest.fixture
def hurlbat(stage: Stage, tmp_path: Path) -> Callable[..., Done]:
    """Call `hurlbat` with arguments; keywords are environment variables."""

    def call(*arguments: str, stdin: str = "", **env: str) -> Done:
        command = [sys.executable, "-m", "hurlbat_app.cli.main", *arguments]
        here = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "200", "HURLBAT_URL": stage.server.url}
        return warm.run(command, here | {"HURLBAT_TOKEN": TOKEN} | env, tmp_path, stdin)

    return call


class Load:
    """Submits runs one after the other until it is left."""

    def __init__(self, url: str) -> None:
        self.ids: list[str] = []
        self._url = url
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._submit)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def more(self) -> None:
        """Return when some more were submitted."""
        count = len(self.ids) + 10
        until(lambda: len(self.ids) >= count, "load")

    def _submit(self) -> None:
        with Api(self._url) as api:
            while not self._over.is_set():
                self.ids.append(api.submit("shout", f"run {len(self.ids)}")["id"])
                self._over.wait(0.02)


def test_a_rotation_under_load_loses_no_run_and_charges_none(stage: Stage, turning: Turning) -> None:
    api = stage.api
    with Load(stage.server.url) as load:
        load.more()
        secret = api.call("POST", "/workers/turning/rotate-secret", {"overlap": 86400})["secret"]
        load.more()
        assert turning.show()["state"] == "ready"
        # a request that is on its way to a server that stops may be cut, which is about restarts and not about keys
        api.call("POST", "/workers/turning/pause")
        until(lambda: turning.show()["in_flight"] == 0, "idle worker")
        turning.restart(HURLBAT_SIGNING_SECRETS=secret)
        assert api.call("POST", "/workers/turning/resume")["state"] == "ready"
        load.more()
        api.call("POST", "/workers/turning/rotate-secret", {"secret": secret, "overlap": 1})
        until(lambda: len(turning.show()["keys"]) == 1, "end of the overlap")
        load.more()
    runs = [api.ended(run_id) for run_id in load.ids]
    assert [(run["state"], run["output"], run["tries"]) for run in runs] == [
        ("completed", f"RUN {n}", 1) for n in range(len(runs))
    ]
    assert (turning.show()["state"], turning.show()["keys"][0]["id"]) == ("ready", signing.key_id(secret))
    assert secret not in stage.server.output
    turning.restart(HURLBAT_SIGNING_SECRET=SECRET)


@alone
def test_a_worker_that_is_left_behind_is_rejected_and_ready_once_it_knows_the_key(
    stage: Stage, turning: Turning, hurlbat: Callable[..., Done]
) -> None:
    done = hurlbat("workers", "rotate", "turning", "--overlap", "1", "--json")
    assert done.returncode == 0, done.stderr
    rotated = json.loads(done.stdout)
    new, old = signing.key_id(rotated["secret"]), signing.key_id(SECRET)
    assert [key["id"] for key in rotated["keys"]] == [new, old]
    until(lambda: turning.show()["state"] == "rejected", "rejection at the end of the overlap")

    problem = turning.show()["problem"]
    assert "the body came as it was sent, so the worker has another secret (it knows 1); signed with" in problem
    assert f"; signed with key {new} (v1 since 20" in problem
    assert f"key {old} was replaced, and signs no more since 20" in problem
    run = stage.api.submit("shout", "wait for me")
    shown = hurlbat("workers", "show", "turning")
    assert f"{new} (v1, since 20" in shown.stdout
    assert f"The keys here: {old}" in turning.process.output
    assert SECRET not in shown.stdout + turning.process.output + stage.server.output

    back = hurlbat("workers", "rotate", "turning", "--secret", "-", "--overlap", "0", stdin=SECRET)
    assert back.returncode == 0, back.stderr
    ended = stage.api.ended(run["id"])
    assert (ended["output"], ended["tries"]) == ("WAIT FOR ME", 1)
    assert hurlbat("workers", "rotate", "turning", "--secret", signing.new_secret(), "--overlap", "0").returncode == 1


@alone
def test_an_ed25519_key_is_published_and_a_worker_needs_no_secret(
    stage: Stage, turning: Turning, hurlbat: Callable[..., Done]
) -> None:
    rotated = json.loads(hurlbat("workers", "rotate", "turning", "--algorithm", "v1a", "--json").stdout)
    public = rotated["keys"][0]["public_key"]
    assert "secret" not in rotated
    assert public in hurlbat("workers", "show", "turning").stdout
    turning.restart(HURLBAT_SIGNING_SECRET=public)
    assert stage.api.call("POST", "/workers/turning/sync")["state"] == "ready"
    assert stage.api.run("shout", "by ed25519")["output"] == "BY ED25519"
    turning.restart(HURLBAT_SIGNING_SECRET=SECRET)


@alone
def test_an_attempt_is_listed_shown_and_sent_again_by_curl_whatever_its_input(
    stage: Stage, turning: Turning, hurlbat: Callable[..., Done], tmp_path: Path
) -> None:
    run = stage.api.run("shout", NASTY)
    assert stage.api.sent(run["id"])["runs"] == 1
    listed = hurlbat("attempts", "list", run["id"])
    assert listed.returncode == 0, listed.stderr
    assert "completed" in listed.stdout
    shown = hurlbat("attempts", "show", run["id"])
    assert shown.returncode == 0, shown.stderr
    assert f"POST {turning.url}" in shown.stdout
    assert "x-gateway: …" in shown.stdout
    assert "open sesame" not in shown.stdout

    made = hurlbat("attempts", "curl", run["id"], "1", HURLBAT_SIGNING_SECRET=SECRET)
    assert made.returncode == 0, made.stderr
    assert "# The values of these headers are hidden; add them by -H: x-gateway" in made.stdout
    (tmp_path / "shell").mkdir()
    done = subprocess.run(["sh"], input=made.stdout.encode(), cwd=tmp_path / "shell", capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    started, result = [json.loads(line) for line in body.splitlines()]
    assert (started["type"], result["output"]) == ("started", NASTY.upper())
    assert result["run_id"] != run["id"]
    assert list((tmp_path / "shell").iterdir()) == []

    other = hurlbat("attempts", "curl", run["id"], "--secret", signing.new_secret(), "--json")
    asked = json.loads(other.stdout)
    answer = httpx.post(
        asked["url"], headers=asked["headers"], content=asked["body"], timeout=PATIENCE, trust_env=False
    )
    assert (answer.status_code, answer.json()["key_ids"]) == (401, asked["headers"]["hurlbat-key-ids"].split())
    there = hurlbat("attempts", "curl", run["id"], "--worker-url", f"{turning.process.url}/routed", "--secret", SECRET)
    assert f"--url {turning.process.url}/routed " in there.stdout


@alone
def test_what_cannot_be_shown_or_signed_is_told(hurlbat: Callable[..., Done]) -> None:
    unknown = "01900000-0000-7000-8000-000000000000"
    for arguments, status, sentence in (
        (("show", unknown), 1, "run_unknown"),
        (("curl", unknown), 2, "give it by --secret, or HURLBAT_SIGNING_SECRET"),
        (("curl", "x", "--secret", "hunter2"), 2, "a signing secret must start with whsec_"),
        (("curl", "x", "--secret", signing.new_key_pair()[1]), 2, "sign with the whsk_ key of the pair"),
    ):
        done = hurlbat("attempts", *arguments)
        assert (done.returncode, sentence in done.stderr) == (status, True), done.stderr
        assert "Traceback" not in done.stderr
        assert "hunter2" not in done.stderr

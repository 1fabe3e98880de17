"""How a worker comes to be known: registered by anyone who has the token, or by itself, wherever it is mounted."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.stage import SECRET, Api, Journal, Stage, start_worker, until
from tests.support.ports import free_port
from tests.support.processes import TOKEN, Processes, Server

MOUNTS = "tests.e2e.mounts:app"


@pytest.fixture(scope="session")
def mounts(shared_stage: Stage) -> Server:
    """An app with the handler in many places."""
    return shared_stage.processes.app(MOUNTS, HURLBAT_SIGNING_SECRET=SECRET)


@pytest.fixture
def forgotten(stage: Stage) -> Iterator[str]:
    """The name of a worker that is forgotten after the test."""
    yield "forgotten"
    stage.api.send("DELETE", "/workers/forgotten")


@pytest.mark.parametrize("path", ["/mounted/", "/outer/hurlbat/", "/routed"])
def test_the_handler_works_wherever_it_is_mounted(stage: Stage, mounts: Server, forgotten: str, path: str) -> None:
    worker = stage.api.register(mounts, forgotten, path=path)

    assert (worker["state"], worker["problem"], worker["tasks"]) == ("ready", None, ["shout"])
    assert stage.api.run("shout", path)["output"] == path.upper()


@pytest.mark.parametrize("path", ["/mounted", "/outer/hurlbat"])
def test_a_mount_without_its_slash_is_rejected_with_what_to_register(
    stage: Stage, mounts: Server, forgotten: str, path: str
) -> None:
    worker = stage.api.register(mounts, forgotten, path=path)

    assert worker["state"] == "rejected"
    assert f"register {mounts.url}{path}/ instead" in worker["problem"]


def test_the_handler_works_behind_a_root_path(stage: Stage, forgotten: str) -> None:
    port = free_port()
    command = ("-m", "uvicorn", MOUNTS, "--port", str(port), "--root-path", "/behind/a/proxy")
    process = stage.processes.python("root-path", *command, HURLBAT_SIGNING_SECRET=SECRET)
    process.answers(f"http://127.0.0.1:{port}/mounted/")
    url = f"http://127.0.0.1:{port}/mounted/"

    worker = stage.api.call("POST", "/workers", {"name": forgotten, "url": url, "secret": SECRET}, status=201)

    assert (worker["state"], worker["problem"]) == ("ready", None)
    assert stage.api.run("shout", "through")["output"] == "THROUGH"
    process.kill()


def test_a_worker_without_a_framework_is_served_alone(stage: Stage, forgotten: str) -> None:
    alone = stage.processes.app("tests.e2e.mounts:alone", HURLBAT_SIGNING_SECRET=SECRET)

    assert stage.api.register(alone, forgotten, path="/")["state"] == "ready"
    assert stage.api.run("shout", "alone")["output"] == "ALONE"
    alone.kill()


def test_a_generated_secret_is_shown_once_and_the_worker_is_proved_by_sync(stage: Stage, forgotten: str) -> None:
    port = free_port()
    spec = {"name": forgotten, "url": f"http://127.0.0.1:{port}/mounted/"}
    pending = stage.api.call("POST", "/workers", spec, status=201)
    assert pending["state"] == "pending"
    assert "secret" not in stage.api.call("GET", f"/workers/{forgotten}")
    worker = stage.processes.app(MOUNTS, port=port, HURLBAT_SIGNING_SECRET=pending["secret"])

    synced = stage.api.call("POST", f"/workers/{forgotten}/sync")

    assert (synced["state"], synced["problem"]) == ("ready", None)
    assert stage.api.run("shout", "proved")["output"] == "PROVED"
    worker.kill()


def test_a_worker_with_another_secret_is_rejected_and_says_why(stage: Stage, mounts: Server, forgotten: str) -> None:
    other = "whsec_YW5vdGhlci1zZWNyZXQtYW5vdGhlci1zZWNyZXQtYWE="
    spec = {"name": forgotten, "url": f"{mounts.url}/mounted/", "secret": other}

    worker = stage.api.call("POST", "/workers", spec, status=201)

    assert worker["state"] == "rejected"
    assert "401" in worker["problem"]
    assert "secret" in worker["problem"]


def test_an_app_registers_itself_once_its_server_is_there(processes: Processes, database_url: str) -> None:
    server_port, port = free_port(), free_port()
    env: dict[str, Any] = {
        "HURLBAT_SIGNING_SECRET": SECRET,
        "HURLBAT_PUBLIC_URL": f"http://127.0.0.1:{port}/mounted/",
        "HURLBAT_WORKER": "by-itself",
        "HURLBAT_URL": f"http://127.0.0.1:{server_port}",
        "HURLBAT_TOKEN": TOKEN,
        "HURLBAT_SLOTS": "7",
    }
    processes.app(MOUNTS, port=port, **env)

    server = processes.serve(database_url, port=server_port)

    with Api(server.url) as api:
        until(lambda: api.send("GET", "/workers/by-itself").status_code == 200, "registration")
        until(lambda: api.call("GET", "/workers/by-itself")["state"] == "ready", "proof")
        assert api.call("GET", "/workers/by-itself")["slots"] == 7
        assert api.run("shout", "myself")["output"] == "MYSELF"


def test_an_app_calls_its_own_tasks_from_async_and_sync_code(stage: Stage) -> None:
    env = {"HURLBAT_URL": stage.server.url, "HURLBAT_TOKEN": TOKEN}
    worker = start_worker(stage.processes, Journal(stage.folder / "callers"), **env)

    with httpx.Client(base_url=worker.url, timeout=90, trust_env=False) as app:
        assert app.get("/hello/Ada").json() == {"greeting": "Hello, Ada!"}
        assert app.get("/hello-sync/Bob").json() == {"greeting": "Hello, Bob!"}
        assert app.get("/sums/50").json() == [n + 1 for n in range(50)]
        later = app.get("/later/40").json()

    assert stage.api.ended(later)["output"] == 41
    worker.kill()

"""`hurlbat dev --worker` as a person uses it: a worker that comes, works, goes, and comes back with another secret."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from hurlbat.signing import key_id, new_secret
from tests.support.ports import free_port
from tests.support.processes import Processes, Server

SECONDS = 90
WORKER = """
import logging
from hurlbat import Backoff, Context, Hurlbat

logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s")
hurlbat = Hurlbat()

@hurlbat.task(retries=1, backoff=Backoff(strategy="fixed", initial=0.1, jitter=False))
async def shaky(input: None, ctx: Context) -> str:
    ctx.log("on the way")
    if ctx.attempt == 1:
        raise ConnectionError("the bank is away")
    return "paid"

app = hurlbat.asgi()
"""


def _until(dev: Server, pattern: str, times: int = 1) -> None:
    dev.until(lambda: len(re.findall(pattern, dev.output, re.MULTILINE)) >= times, repr(pattern), SECONDS)


def _submit(dev: Server, token: str, wait: int = 60) -> dict[str, Any]:
    answer = httpx.post(
        f"{dev.url}/runs?wait={wait}" if wait else f"{dev.url}/runs",
        json={"task": "shaky"},
        headers={"authorization": f"Bearer {token}"},
        timeout=SECONDS * 2,
        trust_env=False,
    )
    run: dict[str, Any] = answer.raise_for_status().json()
    return run


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the server and its worker printed, and how the runs went."""
    folder = tmp_path_factory.mktemp("dev-worker")
    (folder / "worker.py").write_text(WORKER)
    processes = Processes(folder)
    told: dict[str, Any] = {"other": new_secret()}
    try:
        port, server_port = free_port(), free_port()
        url = f"http://127.0.0.1:{port}/hurlbat/"
        command = ["hurlbat_app.cli.main", "dev", "--port", str(server_port), "--worker", url, "--logs"]
        dev = processes.listen(command, server_port, COLUMNS="")  # as wide as what is no terminal
        _until(dev, r"is pending: ")
        told["secret"] = (folder / "hurlbat.db-secret").read_text()
        token = (folder / "hurlbat.db-token").read_text()
        good = processes.app("worker:app", port=port, PYTHONPATH=str(folder), HURLBAT_SIGNING_SECRET=told["secret"])
        _until(dev, r"is ready: serves shaky$")
        told["first"] = _submit(dev, token)
        _until(dev, 'with "paid"$')
        good.terminate()
        _until(dev, r"is away$")
        told["worker"] = good.output

        bad = processes.app("worker:app", port=port, PYTHONPATH=str(folder), HURLBAT_SIGNING_SECRET=told["other"])
        _until(dev, r"is rejected: ")
        told["second"] = _submit(dev, token, wait=0)
        bad.until(
            lambda: bad.output.count(" WARNING ") >= 2, "second warning", SECONDS
        )  # it was proved again and again
        bad.terminate()
        _until(dev, r"is away$", 2)
        processes.app("worker:app", port=port, PYTHONPATH=str(folder), HURLBAT_SIGNING_SECRET=told["secret"])
        _until(dev, 'with "paid"$', 2)
        told["status"] = dev.terminate()
        told["output"] = dev.output
        yield told
    finally:
        processes.close()


def test_it_shows_where_everything_is_and_what_is_needed_there(story: dict[str, Any]) -> None:
    shown = story["output"].partition("· ")[0]

    assert re.search(r"^    server  http://127\.0\.0\.1:\d+  \(.*hurlbat\.db\)$", shown, re.MULTILINE)
    assert re.search(r"^    worker  http://127\.0\.0\.1:\d+/hurlbat/$", shown, re.MULTILINE)
    assert f"\n    where the worker runs\n      export HURLBAT_SIGNING_SECRET={story['secret']}\n" in shown
    assert re.search(
        r"\n    in another terminal\n      export HURLBAT_URL=\S+\n      export HURLBAT_TOKEN=\S+\n"
        r"      hurlbat workers list\n",
        shown,
    )


def test_runs_are_told_while_they_happen_with_what_they_log(story: dict[str, Any]) -> None:
    of_it = [line for line in story["output"].splitlines() if story["first"]["id"] in line]

    assert story["first"]["output"] == "paid"
    assert ["on the way" in line for line in of_it].count(True) == 2
    assert any("↻ shaky" in line and "the bank is away; again in 0.1 s" in line for line in of_it)
    assert re.search(r'✓ shaky .* and 2 attempts with "paid"$', of_it[-1])


def test_no_line_is_a_log_line(story: dict[str, Any]) -> None:
    lines = [line for line in story["output"].splitlines() if line]

    assert [
        line for line in lines if not re.match(r"Hurlbat listens|    |· |! |  \S|\d\d:\d\d:\d\d \S |stopping;", line)
    ] == []
    assert "stopping; runs may go on for 5 s, Ctrl-C again stops at once\n" in story["output"]
    assert story["status"] == 0


def test_why_a_worker_is_rejected_is_said_once_and_wrapped(story: dict[str, Any]) -> None:
    assert story["output"].count("is rejected: ") == 1
    said = story["output"].partition("! worker ")[2].split("\n· ")[0]
    sentence = [line for line in f"! worker {said}".splitlines() if line.startswith(("! ", "  "))]

    assert max(map(len, sentence)) <= 80
    assert "so the worker has another secret (it knows 1)" in " ".join(line.strip() for line in sentence)
    assert key_id(story["secret"]) in said
    assert "clock skew" not in story["output"]  # they have the same clock
    assert "401" not in story["output"].partition(story["second"]["id"])[2]  # nor is it said of each run


def test_the_proofs_of_a_worker_in_order_are_told_as_what_they_are(story: dict[str, Any]) -> None:
    refused = [line for line in story["worker"].splitlines() if "refused with 401" in line]

    assert len(refused) == 3  # one proof, however often it is asked for its tasks
    assert all("INFO" in line and "three of them are its own checks, and nothing is wrong" in line for line in refused)
    assert " ".join(story["output"].split()).count("were the server's own checks") == 1

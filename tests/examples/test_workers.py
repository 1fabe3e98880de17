"""The workers in other languages: a real server pushes real runs to each, and each conforms to the protocol."""

import json
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import pytest

from hurlbat.wire import deliver_body
from hurlbat_app.conform import conform
from tests.e2e.stage import until
from tests.examples.others import (
    KINDS,
    LANGUAGES,
    OLD_SECRET,
    RECEIPT,
    SECRET,
    Stand,
    begin,
    command,
    run,
    signed,
)
from tests.support import warm
from tests.support.ports import free_port
from tests.support.processes import ROOT, Processes

BAD_SECRETS = ("", "whsec_c2hvcnQ=", SECRET.removeprefix("whsec_"), SECRET + "%")

languages = pytest.mark.parametrize("language", LANGUAGES)
each = pytest.mark.parametrize(("language", "kind"), [(language, kind) for language in LANGUAGES for kind in KINDS])


# -- with a server -----------------------------------------------------------------------------------------------------


@languages
def test_a_server_proves_it_and_it_runs_its_tasks(others: Stand, language: str) -> None:
    with others.registered(language, "protocol"):
        shown = others.api.call("GET", f"/workers/{language}")
        assert (shown["state"], shown["problem"], shown["max_batch"]) == ("ready", None, 16)
        assert sorted(shown["tasks"]) == ["conform.echo", "conform.fail", "conform.sleep", "shout"]
        ended = others.api.run("shout", {"text": "grün"})
        assert (ended["state"], ended["output"], ended["tries"]) == (
            "completed",
            "GRÜN",
            1,
        )


@languages
def test_what_fails_is_tried_again_where_it_may_be(others: Stand, language: str) -> None:
    with others.registered(language, "protocol"):
        again = others.api.run("conform.fail", {"message": "no paper", "retryable": True, "retry_after": 0.02})
        never = others.api.run("conform.fail", {"message": "no such order", "retryable": False})
    assert (again["state"], again["tries"], again["error"]["message"]) == ("failed", 4, "no paper")
    assert (never["state"], never["tries"], never["error"]["message"]) == ("failed", 1, "no such order")
    assert {again["error"]["code"], never["error"]["code"]} == {"task_error"}


@languages
def test_what_is_cancelled_stops_and_gives_its_slot_back(others: Stand, language: str) -> None:
    with others.registered(language, "protocol"):
        begun = others.api.submit("conform.sleep", {"seconds": 600})
        others.api.until_state(begun["id"], "running")
        others.api.call("POST", f"/runs/{begun['id']}/cancel")
        assert others.api.ended(begun["id"])["state"] == "cancelled"
        until(lambda: others.api.call("GET", f"/workers/{language}")["in_flight"] == 0, "free slot")


@languages
def test_many_runs_come_in_few_deliveries_and_run_side_by_side(others: Stand, language: str) -> None:
    with others.registered(language, "protocol"):
        inputs = [{"task": "conform.echo", "input": [number, None, 1.5, "ß"]} for number in range(40)]
        ids = [one["id"] for one in others.api.call("POST", "/runs/bulk", {"runs": inputs})["results"]]
        outputs = [others.api.ended(run_id)["output"] for run_id in ids]
        sent = [others.api.sent(run_id)["runs"] for run_id in ids]
    assert outputs == [one["input"] for one in inputs]
    assert 1 < max(sent) <= 16

    sleeper, quick = run("conform.sleep", {"seconds": 600}), run("shout", {"text": "quick"})
    worker = others.workers[language, "protocol"]
    with worker.streaming(sleeper, quick) as lines:
        result = next(line for line in lines if line["type"] == "result")
    assert (result["run_id"], result["output"]) == (quick.run_id, "QUICK")


@languages
def test_a_receipt_is_written_once_it_can_be(others: Stand, language: str) -> None:
    with others.registered(language, "plain") as worker:
        begun = others.api.submit("write-receipt", RECEIPT)  # the folder is not there yet
        until(lambda: others.api.show(begun["id"])["tries"] >= 2, "second try")
        worker.folder.mkdir()
        ended = others.api.ended(begun["id"])
        hopeless = others.api.run("write-receipt", {"order": "../../etc/passwd", "amount": 1})
    assert (ended["state"], ended["output"]) == ("completed", {"receipt": "o-1.txt"})
    assert (worker.folder / "o-1.txt").read_text() == "12.5\n"
    failures = {entry["code"] for entry in ended["timeline"] if entry["kind"] == "retry"}
    assert failures == {"http_error"}
    assert (hopeless["state"], hopeless["tries"], hopeless["error"]["code"]) == ("failed", 1, "http_error")


# -- alone -------------------------------------------------------------------------------------------------------------


@each
def test_it_conforms_to_the_protocol(others: Stand, language: str, kind: str) -> None:
    worker = others.workers[language, kind]
    if kind == "plain":
        worker.folder.mkdir(exist_ok=True)
        given = json.dumps(RECEIPT)
        report = conform(worker.url, SECRET, mode="plain", task="write-receipt", input=given, timeout=60)
    else:
        report = conform(worker.url, [SECRET, OLD_SECRET], timeout=60)
    assert [(finding.check, finding.seen) for finding in report.failed] == []
    assert len(report.passed) >= {"plain": 20, "protocol": 50}[kind]


@languages
def test_a_plain_worker_remembers_what_it_has_done(processes: Processes, tmp_path: Path, language: str) -> None:
    worker = begin(processes, language, "plain", tmp_path)
    order = run("write-receipt", {"order": "slow", "amount": 1})
    body = deliver_body("other", worker.url, "2030-01-31T12:00:00.000Z", [order])
    receipt = tmp_path / "slow.txt"
    os.mkfifo(receipt)  # who writes waits there for a reader
    with ThreadPoolExecutor(2) as pool:
        twice = [pool.submit(worker.post, body, signed(body, order.run_id)) for _ in range(2)]
        refused = next(as_completed(twice)).result()
        assert receipt.read_text() == "1\n"
        written = next(answer for answer in (one.result() for one in twice) if answer is not refused)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert (written.status_code, written.json()) == (200, {"receipt": "slow.txt"})
    receipt.unlink()
    again = worker.post(body, signed(body, order.run_id))
    assert (again.status_code, again.json(), receipt.exists()) == (200, {"receipt": "slow.txt"}, False)


@languages
def test_a_stop_lets_a_receipt_be_written(processes: Processes, tmp_path: Path, language: str) -> None:
    worker = begin(processes, language, "plain", tmp_path, HURLBAT_SIGNING_SECRETS=OLD_SECRET)
    order = run("write-receipt", {"order": "slow", "amount": 1})
    body = deliver_body("other", worker.url, "2030-01-31T12:00:00.000Z", [order])
    os.mkfifo(tmp_path / "slow.txt")
    with ThreadPoolExecutor(2) as pool:
        twice = [pool.submit(worker.post, body, signed(body, order.run_id, secret=OLD_SECRET)) for _ in range(2)]
        assert next(as_completed(twice)).result().status_code == 503  # so the other one is at it
        worker.process.signal(signal.SIGTERM)
        until(lambda: not _is_open(worker.url), "closed port")
        reader = os.open(tmp_path / "slow.txt", os.O_RDONLY | os.O_NONBLOCK)
        assert sorted(answer.result().status_code for answer in twice) == [200, 503]
    assert os.read(reader, 10) == b"1\n"
    os.close(reader)
    assert worker.process.wait() == 0


@languages
def test_a_stop_lets_a_run_end(processes: Processes, tmp_path: Path, language: str) -> None:
    worker = begin(processes, language, "protocol", tmp_path)
    with worker.streaming(run("conform.sleep", {"seconds": 0.5})) as lines:
        assert next(lines)["type"] == "started"
        worker.process.signal(signal.SIGTERM)
        [result] = [line for line in lines if line["type"] == "result"]
    assert result["state"] == "completed"
    assert worker.process.wait() == 0


@each
def test_a_secret_that_cannot_be_is_told_of_at_once(processes: Processes, language: str, kind: str) -> None:
    for secret in BAD_SECRETS:
        given = {"HURLBAT_SIGNING_SECRET": secret, "PORT": str(free_port())}
        process = processes.start("worker", *command(language, kind), **given)
        assert process.wait() == 1
        assert "set HURLBAT_SIGNING_SECRET" in process.output
        assert not secret or secret not in process.output


def _is_open(url: str) -> bool:
    """Tell whether a port takes connections."""
    parts = httpx.URL(url)
    try:
        socket.create_connection((parts.host, parts.port or 80)).close()
    except ConnectionError:
        return False
    return True


# -- measured ----------------------------------------------------------------------------------------------------------


def test_the_bench_measures_a_worker_that_somebody_runs(others: Stand) -> None:
    worker = others.workers["go", "protocol"]
    done = _bench("--worker", worker.url, "--runs", "50", "--clients", "8", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["settings"]["worker"], report["settings"]["task"]) == (0, worker.url, "conform.echo")
    assert report["runs_per_second"] > 0
    assert 0 < report["stored_ms"]["p50"] <= report["stored_ms"]["p99"]
    assert {"start_ms", "duplicates"}.isdisjoint(report)
    assert SECRET not in done.stdout


def test_the_bench_says_why_it_cannot_measure(others: Stand) -> None:
    url = others.workers["go", "protocol"].url
    unserved = _bench("--worker", url, "--task", "resize")
    assert unserved.returncode == 1
    assert "has no task resize, but conform.echo, conform.fail, conform.sleep, shout" in " ".join(
        unserved.stderr.split()
    )
    assert "--secret whsec_" in _bench("--worker", url, HURLBAT_SIGNING_SECRET="").stderr
    assert "leave --scenario or --worker out" in _bench("--worker", url, "--scenario", "keys").stderr


def _bench(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `hurlbat bench` to its end."""
    given = os.environ | {"HURLBAT_SIGNING_SECRET": SECRET} | env
    return warm.run([sys.executable, "-m", "hurlbat_app.cli.main", "bench", *options], given, ROOT, "")

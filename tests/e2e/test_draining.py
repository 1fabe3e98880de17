"""SIGTERM: a server takes the answers that come, gives back what it did not send, and leaves with 0."""

import signal
from pathlib import Path

from tests.e2e.stage import Journal, Stage, assert_no_faults, set_stage, start_plain_worker, until
from tests.support.processes import Processes
from tests.support.stands import UNHURRIED


def test_the_answers_of_running_attempts_are_taken_while_draining(
    own_stage: Stage, database_url: str, tmp_path: Path
) -> None:
    run_id = start_holding(own_stage, tmp_path / "gate")
    own_stage.server.signal(signal.SIGTERM)
    until(lambda: own_stage.api.send("GET", "/health/ready").status_code == 503, "red readiness")
    refused = own_stage.api.call("POST", "/runs", {"task": "add", "input": {"first": 1}}, status=503)

    (tmp_path / "gate").touch()

    assert refused["code"] == "stopping"
    assert own_stage.server.wait() == 0
    own_stage.processes.serve(database_url, port=own_stage.server.port)
    run = own_stage.api.show(run_id)
    assert (run["state"], run["output"], run["attempt"], run["tries"]) == ("completed", "let go", 1, 1)


def test_what_has_not_started_waits_for_the_next_server_and_costs_no_try(
    own_stage: Stage, database_url: str, tmp_path: Path
) -> None:
    plain = Journal(tmp_path / "plain-journal")
    start_plain_worker(own_stage.processes, plain, own_stage.api)
    own_stage.api.call("PATCH", "/workers/plain", {"slots": 8})
    gate = tmp_path / "gate"
    body = {"runs": [{"task": "plain.slow", "input": str(gate)}] * 12}
    ids = [run["id"] for run in own_stage.api.call("POST", "/runs/bulk", body)["results"]]
    until(lambda: len(plain.entries()) == 8, "eight runs at the worker")

    own_stage.server.signal(signal.SIGTERM)
    until(lambda: "draining" in own_stage.server.output, "the drain")
    gate.touch()

    assert own_stage.server.wait() == 0
    own_stage.processes.serve(database_url, port=own_stage.server.port, **UNHURRIED)
    runs = [own_stage.api.ended(run_id) for run_id in ids]
    assert {(run["state"], run["output"], run["attempt"], run["tries"]) for run in runs} == {
        ("completed", "at last", 1, 1)
    }
    assert len(plain.entries()) == 12


def test_a_run_that_goes_on_is_reported_to_the_server_that_comes_back(
    processes: Processes, database_url: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with set_stage(processes, tmp_path, database_url, HURLBAT_DRAIN_SECONDS="0.5") as stage:
        run_id = start_holding(stage, gate)

        assert stage.server.terminate() == 0
        again = processes.serve(database_url, port=stage.server.port, **UNHURRIED)
        assert stage.api.show(run_id)["state"] == "running"
        gate.touch()

        run = stage.api.ended(run_id)
        assert (run["state"], run["output"], run["attempt"], run["tries"]) == ("completed", "let go", 1, 1)
        assert stage.journal.events(run_id) == ["started"]
    assert_no_faults(again)


def test_a_second_signal_ends_a_long_drain_at_once(processes: Processes, database_url: str, tmp_path: Path) -> None:
    with set_stage(processes, tmp_path, database_url, HURLBAT_DRAIN_SECONDS="600") as stage:
        run_id = start_holding(stage, tmp_path / "gate")
        stage.server.signal(signal.SIGTERM)
        until(lambda: stage.api.send("GET", "/health/ready").status_code == 503, "red readiness")

        assert stage.server.terminate() == 0

        processes.serve(database_url, port=stage.server.port, **UNHURRIED)
        (tmp_path / "gate").touch()
        run = stage.api.ended(run_id)
        assert (run["state"], run["attempt"], run["tries"]) == ("completed", 1, 1)


def test_an_idle_server_leaves_at_once(processes: Processes, database_url: str) -> None:
    server = processes.serve(database_url, HURLBAT_DRAIN_SECONDS="600")

    assert server.terminate() == 0

    assert_no_faults(server)


def test_a_worker_that_is_stopped_gives_back_what_does_not_end_in_time(own_stage: Stage, tmp_path: Path) -> None:
    run_id = start_holding(own_stage, tmp_path / "gate")
    own_stage.worker.signal(signal.SIGTERM)
    assert own_stage.api.show(run_id)["state"] == "running"
    (tmp_path / "gate").touch()

    assert own_stage.api.ended(run_id)["output"] == "let go"
    assert own_stage.worker.wait() is not None


def start_holding(stage: Stage, gate: Path) -> str:
    """Return a run that goes on until the gate is there."""
    run_id: str = stage.api.submit("hold", str(gate))["id"]
    until(lambda: stage.journal.events(run_id) == ["started"], "start")
    return run_id

"""`hurlbat doctor` beside a server that works, and where there is nothing to look at."""

import json
import sqlite3
from pathlib import Path

import pytest

from tests.e2e.stage import Stage
from tests.support.postgres import Cluster
from tests.support.processes import SECRET_KEY, Process, Processes


def start_doctor(processes: Processes, url: str, *options: str) -> Process:
    """Start the doctor on a database."""
    command = ("-m", "hurlbat_app.cli.main", "doctor", "--database", url, *options)
    return processes.python("doctor", *command, HURLBAT_SECRET_KEY=SECRET_KEY)


def change(sql: str, url: str, cluster: Cluster) -> None:
    """Change rows behind the server's back."""
    kind, _, path = url.partition(":///")
    if kind.startswith("sqlite"):
        connection = sqlite3.connect(path, timeout=60)
        with connection:
            connection.execute(sql)
        connection.close()
    else:
        cluster.query(sql, url.rpartition("/")[2])


def test_a_server_at_work_is_looked_over_and_goes_on_working(
    own_stage: Stage, database_url: str, postgres_cluster: Cluster
) -> None:
    own_stage.api.submit("add", {"first": 1}, delay=3600)
    before = own_stage.api.run("add", {"first": 1})
    doctor = start_doctor(own_stage.processes, database_url, "--json")
    ended = [own_stage.api.run("add", {"first": 1})]
    while doctor.running:
        ended.append(own_stage.api.run("add", {"first": 1}))

    assert doctor.wait() == 0, doctor.output
    found = json.loads(doctor.output)
    assert (found["findings"], found["violations"]) == ([], 0)
    assert found["runs"] >= 2
    assert [(server["alive"], server["owner"]) for server in found["servers"]] == [(True, True)]
    assert found["waits"][1].startswith("1 run waits for a time; the first is due in 3")
    assert {run["output"] for run in ended} == {2}

    change(f"UPDATE run SET tries = 1, max_attempts = 0 WHERE id = '{before['id']}'", database_url, postgres_cluster)
    told = start_doctor(own_stage.processes, database_url)
    assert told.wait() == 1
    assert f"violation: Run {before['id']} was charged 1 times, and may be 0 times at most;" in told.output
    assert "1 of 1 alive; " in told.output
    assert told.output.endswith("\n1 finding breaks a promise; no warnings.\n")
    assert own_stage.api.run("add", {"first": 1})["output"] == 2


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:///./none.db", "hurlbat: there is no database at ./none.db."),
        ("postgresql://nobody@127.0.0.1:1/none", "hurlbat: PostgreSQL at 127.0.0.1 cannot be reached"),
        ("mysql://localhost/x", "hurlbat: HURLBAT_DATABASE_URL names the unknown kind of database 'mysql'"),
    ],
)
def test_where_it_cannot_look_it_says_why_and_leaves_with_2(
    processes: Processes, tmp_path: Path, url: str, words: str
) -> None:
    doctor = start_doctor(processes, url)
    assert doctor.wait() == 2
    assert doctor.output.startswith(words)
    assert not list(tmp_path.glob("none.db*"))

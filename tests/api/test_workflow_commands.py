"""Workflows at the command line, against a real server."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.api.test_commands import PLAIN_WORKER, Done
from tests.support import warm
from tests.support.processes import TOKEN, Processes

ORDER = {
    "nodes": [
        {"name": "reserve", "task": "echo"},
        {"name": "charge", "task": "break", "parents": ["reserve"], "skip_if": [{"expression": "input.free"}]},
        {
            "name": "ship",
            "task": "echo",
            "parents": ["charge"],
            "wait_for": [{"any": [{"sleep": 60}, {"event": "go"}]}],
        },
    ],
    "on_failure": {"name": "sorry", "task": "echo"},
    "concurrency": [{"key": "input.user"}],
}
GIVEN = '{"user": "u", "free": false}'
Call = Callable[..., Done]


@pytest.fixture
def hurlbat(processes: Processes, made_sqlite_url: str, tmp_path: Path) -> Call:
    """Call `hurlbat`, where a server is and a worker that gives `echo` back and fails `break`."""
    server = processes.serve(made_sqlite_url)
    (tmp_path / "plain_worker.py").write_text(PLAIN_WORKER)
    (tmp_path / "order.json").write_text(json.dumps(ORDER))
    worker = processes.app("plain_worker:app", PYTHONPATH=str(tmp_path)).url + "/"
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HURLBAT_URL": server.url, "HURLBAT_TOKEN": TOKEN}

    def call(*arguments: str, stdin: str = "") -> Done:
        command = [sys.executable, "-m", "hurlbat_app.cli.main", *arguments]
        return warm.run(command, env | {"COLUMNS": "200"}, tmp_path, stdin)

    done = call("workers", "add", "w", worker, "--mode", "plain", "--task", "echo", "--task", "break")
    assert done.returncode == 0, done.stderr
    return call


def as_json(done: Done) -> Any:
    """Return what a command that did well said in JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def said(done: Done) -> list[list[str]]:
    """Return the cells of the lines that a command said which did well; ids and times are left out."""
    assert done.returncode == 0, done.stderr
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", done.stdout)
    return [re.split(r"\s{2,}", re.sub(r"\d+\.\d+ s", "N s", line).strip()) for line in text.splitlines() if line]


def test_a_workflow_is_put_from_a_file_listed_shown_and_deleted(hurlbat: Call) -> None:
    put = hurlbat("workflows", "put", "order", "order.json")
    again = as_json(hurlbat("workflows", "put", "order", "-", "--json", stdin=json.dumps(ORDER)))
    listed = said(hurlbat("workflows", "list"))
    shown = hurlbat("workflows", "show", "order")
    deleted = hurlbat("workflows", "delete", "order")

    assert said(put)[:6] == [
        ["order, version 1"],
        ["NODE", "TASK", "AFTER", "CONDITIONS"],
        ["reserve", "echo", "-", "-"],
        ["charge", "break", "reserve", "skipped if input.free"],
        ["ship", "echo", "charge", "waits for (60 s or event go)"],
        ["sorry", "echo", "all (on_failure)", "-"],
    ]
    assert ["at a time", "1 for each input.user (GROUP_ROUND_ROBIN)"] in said(put)
    assert (again["name"], again["version"]) == ("order", 1)
    assert listed[1] == ["order", "1", "3", "no", "-", "-"]
    assert shown.stdout == put.stdout
    assert said(deleted) == [["order is deleted"]]
    assert said(hurlbat("workflows", "list")) == [
        ["There are no workflows; declare one in an app, or put one from a file."]
    ]


def test_what_is_no_workflow_is_refused_in_a_sentence(hurlbat: Call) -> None:
    circle = {"nodes": [{"name": "a", "parents": ["b"]}, {"name": "b", "parents": ["a"]}]}

    refused = hurlbat("workflows", "put", "order", "-", stdin=json.dumps(circle))
    missing = hurlbat("workflows", "put", "order", "nowhere.json")
    unknown = hurlbat("workflows", "show", "order")

    assert refused.returncode == 2
    assert "a -> b -> a" in refused.stderr
    assert missing.returncode == 2
    assert "nowhere.json cannot be read" in missing.stderr
    assert (unknown.returncode, unknown.stderr) == (1, "hurlbat: there is no workflow order (workflow_unknown).\n")


def test_a_run_of_a_workflow_is_told_with_its_nodes_and_as_a_tree(hurlbat: Call) -> None:
    hurlbat("workflows", "put", "order", "order.json")
    done = hurlbat("run", "order", "--input", GIVEN, "--wait", "--json")
    assert done.returncode == 1, done.stderr
    run = json.loads(done.stdout)["id"]

    shown = said(hurlbat("runs", "show", run))
    tree = said(hurlbat("runs", "tree", run))
    nested = as_json(hurlbat("runs", "tree", run, "--json"))
    nodes = as_json(hurlbat("runs", "list", "--parent", run, "--json"))["items"]
    listed = said(hurlbat("runs", "list", "--parent", run))
    workflows = as_json(hurlbat("runs", "list", "--kind", "workflow", "--json"))["items"]

    assert ["ship", "echo", "cancelled", "ID", "node charge failed"] in shown
    assert ["failed after N s"] in shown
    assert [line[:3] for line in tree] == [
        ["order", "ID", tree[0][2]],
        ["├─ reserve", "echo", "ID"],
        ["├─ charge", "break", "ID"],
        ["├─ ship", "echo", "ID"],
        ["└─ sorry", "echo", "ID"],
    ]
    assert tree[0][2] == "failed after N s"
    assert tree[1][3] == "completed after N s"
    assert tree[3][3] == "cancelled: node charge failed"
    assert [one["node"] for one in nested["below"]] == ["reserve", "charge", "ship", "sorry"]
    assert {one["node"] for one in nodes} == {"reserve", "charge", "ship", "sorry"}
    assert listed[0][:3] == ["ID", "NODE", "TASK"]
    assert [one["id"] for one in workflows] == [run]


def test_a_tree_shows_what_was_not_reached_yet_and_what_waits(hurlbat: Call) -> None:
    hurlbat("workflows", "put", "order", "order.json")
    run = as_json(hurlbat("run", "order", "--input", GIVEN, "--delay", "3600", "--json"))["id"]

    tree = said(hurlbat("runs", "tree", run))

    assert tree == [
        ["order", "ID", "queued"],
        ["├─ reserve", "echo", "waiting"],
        ["├─ charge", "break", "waiting after reserve"],
        ["└─ ship", "echo", "waiting after charge"],
    ]


def test_a_replay_goes_on_from_where_it_is_told_to(hurlbat: Call) -> None:
    hurlbat("workflows", "put", "order", "order.json")
    run = json.loads(hurlbat("run", "order", "--input", '{"user": "u", "free": false}', "--wait", "--json").stdout)[
        "id"
    ]

    def nodes() -> dict[str, str]:
        shown = as_json(hurlbat("runs", "show", run, "--json"))
        return {node["name"]: node["run"] for node in shown["nodes"]}

    before = nodes()
    replayed = hurlbat("runs", "replay", run, "--from", "charge", "--from", "ship")
    watched = hurlbat("runs", "watch", run)
    after = nodes()
    unknown = hurlbat("runs", "replay", run, "--from", "nobody")
    both = hurlbat("runs", "replay", "--task", "order", "--from", "start")

    assert (replayed.returncode, watched.returncode) == (0, 1)
    assert "node charge: failed" in watched.stdout
    assert after["reserve"] == before["reserve"]
    assert after["charge"] != before["charge"]
    assert unknown.returncode == 2
    assert "its nodes are reserve, charge, ship" in unknown.stderr
    assert both.returncode == 2
    assert "--from goes with one run's id" in both.stderr

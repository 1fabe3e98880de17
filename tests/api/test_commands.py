"""The command line, as a person or a script uses it, against a real server."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from hurlbat.signing import new_secret
from hurlbat_app.cli.main import COMMANDS, load
from hurlbat_app.cli.misspelt import unknown_variables
from hurlbat_app.cli.show import print_run
from tests.support import warm
from tests.support.processes import ROOT, TOKEN, Processes, Server

Done = subprocess.CompletedProcess[str]
PLAIN_WORKER = """
import json

async def app(scope, receive, send):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    run = json.loads(body or b'{"data": {"runs": [{"task": "none"}]}}')["data"]["runs"][0]
    status = 422 if run["task"] == "break" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"hurlbat-retry", b"no")]})
    await send({"type": "http.response.body", "body": json.dumps(run.get("input")).encode()})
"""


@pytest.fixture
def hurlbat(tmp_path: Path) -> Callable[..., Done]:
    """Call `hurlbat` with arguments; keywords are environment variables."""

    def call(*arguments: str, stdin: str = "", **env: str) -> Done:
        command = [sys.executable, "-m", "hurlbat_app.cli.main", *arguments]
        inherited = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "COLUMNS": "200"}
        return warm.run(command, inherited | env, tmp_path, stdin)

    return call


@pytest.fixture
def server(processes: Processes, made_sqlite_url: str) -> Server:
    """A server."""
    return processes.serve(made_sqlite_url)


@pytest.fixture
def here(server: Server) -> dict[str, str]:
    """The variables by which the commands find the server."""
    return {"HURLBAT_URL": server.url, "HURLBAT_TOKEN": TOKEN}


@pytest.fixture
def worker(processes: Processes, tmp_path: Path, hurlbat: Callable[..., Done], here: dict[str, str]) -> str:
    """A plain worker, registered as `w`, that gives `echo` back and fails `break`."""
    (tmp_path / "plain_worker.py").write_text(PLAIN_WORKER)
    url = processes.app("plain_worker:app", PYTHONPATH=str(tmp_path)).url + "/"
    done = hurlbat("workers", "add", "w", url, "--mode", "plain", "--task", "echo", "--task", "break", **here)
    assert done.returncode == 0, done.stderr
    return url


def _json(done: Done) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _fails(done: Done, status: int, sentence: str) -> None:
    assert done.returncode == status, done.stdout + done.stderr
    assert re.search(sentence, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


# -- what works --------------------------------------------------------------------------------------------------------


def test_a_run_is_submitted_waited_for_and_told(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    done = hurlbat("run", "echo", "--input", '{"a": 1}', "--wait", **here)

    assert done.returncode == 0, done.stderr
    assert 'submitted with {"a": 1}' in done.stdout
    assert "attempt 1 started on w" in done.stdout
    assert re.search(r"completed after \d+\.\d\d s and 1 attempt", done.stdout)


def test_a_run_that_fails_leaves_with_1(hurlbat: Callable[..., Done], here: dict[str, str], worker: str) -> None:
    done = hurlbat("run", "break", "--wait", **here)

    assert done.returncode == 1
    assert "failed" in done.stdout


def test_a_run_that_is_waited_for_no_longer_goes_on_and_it_is_said_how_to_look(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    done = hurlbat("run", "echo", "--delay", "3600", "--wait", "--timeout", "0.1", "--json", **here)

    run = json.loads(done.stdout)
    assert run["state"] == "queued"
    why, _, rest = done.stderr.partition("\n")
    assert re.fullmatch(r"The run waits\. .*\.", why)
    assert (done.returncode, rest) == (
        5,
        f"hurlbat: the run goes on; look at it with `hurlbat runs show {run['id']}`.\n",
    )


def test_a_queued_run_that_nobody_will_start_says_why(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    run = _json(hurlbat("run", "echo", "--delay", "3600", "--json", **here))["id"]
    assert "o worker" not in hurlbat("runs", "show", run, **here).stdout

    hurlbat("workers", "pause", "w", **here)
    run = _json(hurlbat("run", "echo", "--json", **here))["id"]
    held = hurlbat("runs", "show", run, **here)
    hurlbat("workers", "remove", "w", **here)
    orphaned = hurlbat("runs", "show", run, **here)

    assert "Worker w is paused." in held.stdout
    assert "No registered worker serves task echo." in orphaned.stdout


def test_a_failed_run_shows_where_its_error_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    error = {"type": "ValueError", "message": "no", "stack": "Traceback:\n  in boom\n"}
    ended = {
        "state": "failed",
        "attempt": 1,
        "created_at": "2030-01-01T00:00:00Z",
        "finished_at": "2030-01-01T00:00:01Z",
    }
    entry = {"at": "2030-01-01T00:00:01Z", "kind": "failed", "attempt": 1}

    print_run({"task": "t", "id": "r", "error": error, "timeline": [entry], **ended})

    assert capsys.readouterr().out.splitlines()[1:] == [
        "      1.000 s  failed: ValueError: no",
        "  failed after 1.00 s and 1 attempt",
        "    Traceback:",
        "      in boom",
    ]


def test_tasks_are_listed_shown_paused_and_resumed(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    assert "execution  300 s at most" in hurlbat("tasks", "show", "echo", **here).stdout
    assert "paused     until resumed; its runs are held\n" in hurlbat("tasks", "pause", "echo", **here).stdout
    listed = hurlbat("tasks", "list", **here).stdout.splitlines()
    assert [line.split() for line in listed[1:]] == [["break", "0", "2", "no", "w"], ["echo", "0", "2", "yes", "w"]]
    assert _json(hurlbat("tasks", "resume", "echo", "--json", **here))["paused"] is False
    assert [task["name"] for task in _json(hurlbat("tasks", "list", "--json", **here))["items"]] == ["break", "echo"]
    _fails(hurlbat("tasks", "pause", "nobody", **here), 1, r"\(task_unknown\)")


def test_a_task_is_shown_with_all_its_ways_of_running(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    ways = {
        "on_events": ["order.*", "paid"],
        "filters": [{"expression": "input.n > 1", "scope": "eu"}],
        "crons": [{"expression": "0 3 * * *", "timezone": "Asia/Tokyo"}],
        "debounce": {"key": "input.n", "period": 5, "max_wait": 60},
        "throttle": {"limit": 3, "period": 60},
        "on_failure": "break",
    }
    batch = {"name": "many", "batch_size": 9, "batch_timeout": 2.5}
    gives = [argument for task in ({"name": "echo"} | ways, batch) for argument in ("--task", json.dumps(task))]
    done = hurlbat("workers", "add", "w", worker, "--mode", "plain", "--task", "break", *gives, **here)
    assert done.returncode == 0, done.stderr
    assert hurlbat("tasks", "show", "echo", **here).stdout.splitlines()[-6:] == [
        "  listens    order.*, paid",
        "  filter     input.n > 1, of eu, with {}",
        "  cron       0 3 * * * (Asia/Tokyo) with null",
        "  debounce   trailing, 5 s, 60 s at most, for each input.n",
        "  throttle   3 in 60 s",
        "  on failure a run of break",
    ]
    assert "  batch      9 submits, or those of 2.5 s\n" in hurlbat("tasks", "show", "many", **here).stdout


def test_input_comes_from_a_file_or_from_standard_input(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str, tmp_path: Path
) -> None:
    (tmp_path / "input.json").write_text('{"from": "file"}')

    from_file = _json(hurlbat("run", "echo", "-i", "@input.json", "--wait", "--json", **here))
    from_stdin = _json(hurlbat("run", "echo", "-i", "-", "--wait", "--json", stdin='"é"', **here))

    assert (from_file["output"], from_stdin["output"]) == ({"from": "file"}, "é")


def test_runs_are_listed_shown_cancelled_and_replayed(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    run = _json(hurlbat("run", "echo", "--delay", "3600", "--json", **here))["id"]

    listed = hurlbat("runs", "list", "--state", "queued", **here)
    shown = hurlbat("runs", "show", run, **here)
    cancelled = hurlbat("runs", "cancel", run, "--reason", "enough", **here)
    hurlbat("workers", "pause", "w", **here)  # so that it is not over before it is told
    replayed = hurlbat("runs", "replay", run, **here)

    assert f"{run}  echo  queued" in listed.stdout
    assert "queued, due in " in shown.stdout
    assert cancelled.stdout == f"echo  {run}  cancelled\n"
    assert f"echo  {run}  queued" in replayed.stdout


def test_a_run_is_watched_to_its_end(hurlbat: Callable[..., Done], here: dict[str, str], worker: str) -> None:
    run = _json(hurlbat("run", "echo", "-i", '{"a": 1}', "--delay", "0.3", "--json", **here))

    told = hurlbat("runs", "watch", run["id"], **here)

    assert told.returncode == 0, told.stderr
    lines = told.stdout.splitlines()
    assert lines[0] == f"echo  {run['id']}"
    assert [re.sub(r"^ +[0-9.]+ s  ", "", line) for line in lines[1:4]] == [
        'submitted with {"a": 1}',
        "waits for its time, in 0.3 s",
        "attempt 1 started on w",
    ]
    assert lines[4].endswith('completed with {"a": 1}')
    assert lines[5].startswith("  completed after ")
    failed = _json(hurlbat("run", "break", "--json", **here))
    told = hurlbat("runs", "watch", failed["id"], "--json", **here)
    shown = [json.loads(line) for line in told.stdout.splitlines()]
    assert (told.returncode, [entry["kind"] for entry in shown[:-1]]) == (1, ["created", "started", "failed"])
    assert (shown[-1]["id"], shown[-1]["state"]) == (failed["id"], "failed")


def test_a_run_that_waits_for_its_time_is_listed_and_moved(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    run = _json(hurlbat("run", "echo", "--delay", "3600", "--json", **here))

    assert [one["id"] for one in _json(hurlbat("runs", "list", "--delayed", "--json", **here))["items"]] == [run["id"]]
    heads, shown = hurlbat("runs", "list", "--delayed", **here).stdout.splitlines()
    assert heads.split() == ["ID", "TASK", "STATE", "DUE", "CREATED"]
    assert shown.split() == [run["id"], "echo", "queued", run["due_at"], run["created_at"]]
    before = ("--created-before", run["created_at"])
    assert _json(hurlbat("runs", "list", "--delayed", *before, "--json", **here))["items"] == []
    assert _json(hurlbat("runs", "move", run["id"], "--priority", "7", "--json", **here))["priority"] == 7
    assert hurlbat("runs", "move", run["id"], "--delay", "0", **here).returncode == 0
    assert hurlbat("runs", "watch", run["id"], **here).returncode == 0
    again = hurlbat("runs", "move", run["id"], "--delay", "0", **here)
    assert (again.returncode, "run_finished" in again.stderr) == (1, True)
    assert hurlbat("runs", "move", run["id"], **here).returncode == 2


def test_many_runs_are_cancelled_and_replayed_by_what_they_have_in_common(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    for _ in range(2):
        hurlbat("run", "echo", "--delay", "3600", **here)
    hurlbat("run", "break", "--wait", **here)
    many = ("runs", "cancel", "--task", "echo", "--state", "queued", "--state", "running")

    dry = hurlbat(*many, "--dry-run", **here)
    unsure = hurlbat(*many, **here)
    done = hurlbat(*many, "--yes", "--reason", "enough", **here)
    nothing = hurlbat(*many, "--yes", **here)
    counted = _json(hurlbat("runs", "replay", "--task", "break", "--dry-run", "--json", **here))
    replayed = _json(hurlbat("runs", "replay", "--task", "break", "--yes", "--json", **here))

    assert (dry.returncode, dry.stdout) == (0, "2 runs would be cancelled.\n")
    _fails(unsure, 2, "^hurlbat: 2 runs would be cancelled; say --yes to do it without being asked.\n$")
    assert (done.returncode, done.stdout) == (0, "2 runs are cancelled.\n")
    assert (nothing.returncode, nothing.stdout) == (0, "There are no such runs.\n")
    assert counted == {"matched": 1}
    assert (replayed["kind"], replayed["state"], replayed["done"]) == ("replay", "done", 1)


def test_workers_are_listed_shown_paused_resumed_proved_and_removed(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    assert f"w     unverified  plain  0        100    {worker}" in hurlbat("workers", "list", **here).stdout
    assert "tasks      echo, break" in hurlbat("workers", "show", "w", **here).stdout
    assert "8 of 100 open, pinned at 8\n" in hurlbat("workers", "update", "w", "--window", "8", **here).stdout
    assert _json(hurlbat("workers", "update", "w", "--window", "auto", "--slots", "9", "--json", **here))["slots"] == 9
    _fails(
        hurlbat("workers", "update", "w", "--window", "10", **here), 2, r"at most .* slots, 9 \(window_above_slots\)"
    )
    assert "paused" in hurlbat("workers", "pause", "w", **here).stdout
    assert _json(hurlbat("workers", "resume", "w", "--json", **here))["state"] == "unverified"
    assert hurlbat("workers", "sync", "w", **here).returncode == 0
    assert hurlbat("workers", "remove", "w", **here).stdout == "w is removed\n"
    assert "There are no workers" in hurlbat("workers", "list", **here).stdout


def test_events_are_pushed_listed_shown_and_replayed_and_chosen_by_filters(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    task = json.dumps({"name": "echo", "on_events": ["order.*"]})
    hurlbat("workers", "add", "w", worker, "--mode", "plain", "--task", task, **here)
    added = hurlbat("tasks", "filters", "add", "echo", "-e", "input.n > payload.n", "--payload", '{"n": 1}', **here)
    filter_id = added.stdout.split(" ")[0]

    pushed = _json(hurlbat("events", "push", "order.paid", "-p", "-", "--id", "a/b", "--json", stdin='{"n":2}', **here))
    run = pushed["starts"][0]["run"]
    again = hurlbat("events", "push", "order.paid", "-p", '{"n":2}', "--id", "a/b", **here).stdout
    assert again.splitlines()[1] == "  it was there already; this started nothing"
    assert hurlbat("events", "show", "a/b", **here).stdout.splitlines() == [
        "order.paid  a/b",
        f'  pushed at {pushed["created_at"]} with {{"n": 2}}',
        f"  echo started by input.n > payload.n: {run}",
    ]
    quiet = hurlbat("events", "push", "order.paid", "--payload", '{"n":1}', "--scope", "eu", **here).stdout
    assert re.fullmatch(r"order.paid  \S+  of eu\n  echo filtered by input.n > payload.n\n", quiet)
    unheard = hurlbat("events", "push", "else", "--metadata", "{}", **here).stdout
    assert unheard.splitlines()[1:] == ["  no task listens to it; nodes of workflows that wait for it were told"]
    assert "order.paid  " in (again := hurlbat("events", "replay", "a/b", **here).stdout)
    assert "  again, of a/b\n  echo started by" in again
    assert hurlbat("events", "list", "--key", "order.paid", **here).stdout.count("order.paid") == 3
    assert "There are more: --cursor" in hurlbat("events", "list", "--limit", "1", **here).stdout
    _fails(hurlbat("events", "push", "", **here), 2, r"key must be 1 to 256 characters.* \(member_invalid\)")
    _fails(hurlbat("events", "show", "nothing", **here), 1, r"\(event_unknown\)")

    assert '{"n": 1}' in hurlbat("tasks", "filters", "list", "echo", **here).stdout
    assert hurlbat("tasks", "filters", "remove", "echo", filter_id, **here).stdout == f"{filter_id} is removed\n"
    assert "every event will do" in hurlbat("tasks", "filters", "list", "echo", **here).stdout


def test_schedules_are_made_changed_listed_paused_triggered_asked_for_their_times_and_deleted(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    made = ("create", "echo", "--name", "s", "--cron", "30 6 * * *", "--timezone", "Asia/Tokyo", "-i", '{"n":1.0}')
    shown = hurlbat("schedules", *made, "--overlap", "skip", **here).stdout.splitlines()
    assert shown[:3] == ["s", "  task       echo", "  when       30 6 * * * (Asia/Tokyo)"]
    assert '  input      {"n": 1.0}' in shown
    assert "overlap    cancel\n" in hurlbat("schedules", "update", "s", "--overlap", "cancel", **here).stdout
    tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%S}"
    once = hurlbat("schedules", "create", "echo", "--run-at", f"{tomorrow}Z", "--json", **here)
    assert f"once, {tomorrow}.000Z" in hurlbat("schedules", "show", _json(once)["name"], **here).stdout
    times = hurlbat("schedules", "next", "s", "--count", "2", **here).stdout.split()
    assert [time[10:] for time in times] == ["T21:30:00.000Z"] * 2
    assert hurlbat("schedules", "preview", "30 21 * * *", "--count", "2", **here).stdout.split() == times
    assert "next       paused\n" in hurlbat("schedules", "pause", "s", **here).stdout
    assert "It fires no more" in hurlbat("schedules", "next", "s", **here).stdout
    listed = hurlbat("schedules", "list", "--paused", **here).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [["NAME", "TASK"], ["s", "echo"]]
    run = _json(hurlbat("schedules", "trigger", "s", "--json", **here))["id"]
    assert f"started, by hand  {run}" in hurlbat("schedules", "fires", "s", **here).stdout
    assert _json(hurlbat("schedules", "resume", "s", "--json", **here))["paused"] is False
    assert "There are more: --cursor" in hurlbat("schedules", "list", "--limit", "1", **here).stdout
    _fails(hurlbat("schedules", "preview", "0 0 30 2 *", **here), 2, r"never fires.* \(cron_invalid\)")
    _fails(hurlbat("schedules", "update", "s", **here), 2, r"say what to change")
    assert hurlbat("schedules", "delete", "s", **here).stdout == "s is deleted\n"
    _fails(hurlbat("schedules", "show", "s", **here), 1, r"\(schedule_unknown\)")


def test_rate_limits_are_set_listed_shown_paused_resumed_and_deleted(
    hurlbat: Callable[..., Done], here: dict[str, str]
) -> None:
    assert _json(hurlbat("rate-limits", "set", "cdn", "10", "0.5", "--json", **here))["duration"] == 0.5
    assert "limit      10 in 0.5 s\n" in hurlbat("rate-limits", "pause", "cdn", **here).stdout
    assert "paused     until resumed\n" in hurlbat("rate-limits", "show", "cdn", **here).stdout
    assert hurlbat("rate-limits", "pause", "a/b c", "--dynamic", **here).stdout == "a/b c\n  paused     until resumed\n"
    assert hurlbat("rate-limits", "list", **here).stdout.splitlines() == [
        "KEY  LIMIT        USED  WAITING  PAUSED",
        "cdn  10 in 0.5 s  0     0        until resumed",
    ]
    assert "a/b c  -      -     -        until resumed" in hurlbat("rate-limits", "list", "--dynamic", **here).stdout
    assert _json(hurlbat("rate-limits", "resume", "cdn", "--json", **here))["paused"] is False
    _fails(hurlbat("rate-limits", "set", "cdn", "1", "0", **here), 2, r"duration must be .* \(member_invalid\)")
    assert hurlbat("rate-limits", "delete", "cdn", **here).stdout == "cdn is deleted\n"
    _fails(hurlbat("rate-limits", "delete", "cdn", **here), 1, r"\(rate_limit_unknown\)")


def test_webhooks_are_put_listed_shown_and_deleted(hurlbat: Callable[..., Done], here: dict[str, str]) -> None:
    signed = ("--auth", "hmac", "--header", "X-Sig", "--encoding", "base64", "--secret", "-")
    more = ("--key", "input.type", "--rate", "10/0.5", "--max-bytes", "1000")
    put = _json(hurlbat("webhooks", "put", "shop", *signed, *more, "--json", stdin="new one\nold one\n", **here))
    assert (put["auth"]["secret_count"], put["auth"]["header"], put["auth"]["encoding"]) == (2, "x-sig", "base64")
    assert (put["key"], put["rate"], put["max_bytes"]) == ("input.type", {"limit": 10, "duration": 0.5}, 1000)
    hurlbat("webhooks", "put", "basic", "--auth", "basic", "--username", "ada", "--secret", "pass", **here)

    shown = hurlbat("webhooks", "show", "shop", **here).stdout
    assert f"url        {here['HURLBAT_URL']}/webhooks/shop\n" in shown
    assert "auth       hmac, 2 secrets, algorithm sha256, encoding base64, header x-sig\n" in shown
    assert "rate       10 in 0.5 s\n" in shown
    kept = _json(hurlbat("webhooks", "put", "shop", "--scope", "webhook.name", "--json", **here))
    assert (kept["auth"], kept["key"], kept["scope"]) == (put["auth"], None, "webhook.name")
    assert hurlbat("webhooks", "list", **here).stdout.splitlines() == [
        "NAME   AUTH   KEY            SCOPE         RATE",
        "basic  basic  webhook.basic  -             -",
        "shop   hmac   webhook.shop   webhook.name  -",
    ]
    _fails(hurlbat("webhooks", "put", "x", "--auth", "github", **here), 2, r"auth.secret")
    _fails(hurlbat("webhooks", "put", "x", "--secret", "abc", **here), 2, "--auth")
    _fails(hurlbat("webhooks", "put", "x", "--rate", "often", **here), 2, "--rate")
    assert hurlbat("webhooks", "delete", "shop", **here).stdout == "shop is deleted\n"
    _fails(hurlbat("webhooks", "show", "shop", **here), 1, r"\(webhook_unknown\)")


def test_the_token_may_stand_in_an_env_file(hurlbat: Callable[..., Done], server: Server, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"HURLBAT_URL={server.url}\nHURLBAT_API_TOKEN={TOKEN}\n")

    assert _json(hurlbat("workers", "list", "--json")) == {"items": [], "next_cursor": None}


def test_a_database_is_migrated_and_once_more_is_fine(hurlbat: Callable[..., Done], sqlite_url: str) -> None:
    for _ in range(2):
        assert _json(hurlbat("migrate", "--database", sqlite_url, "--json")) == {"migrated": True}


def test_help_names_every_command_without_loading_it() -> None:
    code = "import sys; from hurlbat_app.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass\n"
    code += "print([m for m in ('httpx', 'starlette', 'sqlalchemy', 'uvicorn', 'pydantic') if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert [name for name in COMMANDS if name not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_each_says_of_itself(name: str) -> None:
    place, said = COMMANDS[name]
    module, _, attribute = place.partition(":")
    found = getattr(import_module(module), attribute)

    own = found.info.help if isinstance(found, typer.Typer) else found.__doc__
    assert isinstance(own, str)
    assert " ".join(own.split()).startswith(said.removesuffix(".")), own
    assert callable(load(place).make_context)


# -- what does not -----------------------------------------------------------------------------------------------------


def test_a_server_that_is_not_there_is_told_in_a_sentence(hurlbat: Callable[..., Done], free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"

    _fails(hurlbat("runs", "list", "--url", url), 3, f"^hurlbat: no server was reached at {url} .*hurlbat serve.*\n$")


def test_a_bad_token_is_told_in_a_sentence(hurlbat: Callable[..., Done], server: Server) -> None:
    _fails(
        hurlbat("runs", "list", HURLBAT_URL=server.url),
        4,
        "^hurlbat: the server wants a token, and none was given. Set HURLBAT_TOKEN ",
    )
    _fails(hurlbat("runs", "list", "--token", "x" * 20, HURLBAT_URL=server.url), 4, "HURLBAT_TOKEN")
    torn = hurlbat("runs", "list", "--token", "secret-one\nsecret-two", HURLBAT_URL=server.url)
    _fails(torn, 2, "the token .* has a space, a line break")
    assert "secret" not in torn.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "t", "--input", "{"], "--input is not JSON: .* at character 1"),
        (["run", "t", "--input", "@nowhere.json"], "nowhere.json cannot be read: No such file"),
        (["run", "t", "--input", "Ada"], """; a text is given as '"Ada"'.\n$"""),
        (["runs", "move", "id"], "say what to change: --run-at, --delay or --priority"),
        (["schedules", "create", "t"], "say when: --cron, .*, or --run-at, to fire once"),
        (["run", "t", "--metadata", "[1,]"], "--metadata is not JSON"),
        (["run", "t", "--url", "ftp://x"], "'ftp://x' is not a URL"),
        (["run", "t", "--timeout", "1"], "--timeout says how long to --wait"),
        (["workers", "add", "w", "http://x", "--mode", "plain"], "name each with --task"),
        (["workers", "add", "w", "http://x", "--task", "t"], "--task is for --mode plain"),
        (["dev", "--secret", "sesame"], "--secret \\(HURLBAT_SIGNING_SECRET\\): .*whsec_"),
        (["workers", "update", "w", "--window", "most"], "--window takes a number or auto, and 'most' is neither"),
        (["workers", "update", "w"], "say what to change"),
        (["workers", "add", "w", "http://x", "--label", "a"], "--label takes name=value, and 'a' is none"),
        (["dev", "--worker", "x"], "--worker takes a URL such as"),
        (["run"], "Missing argument"),
        (["runs", "cancel"], "give a run's id, or say which runs: --task"),
        (["runs", "replay", "id", "--task", "t"], "give a run's id, or say by options .*not both"),
        (["runs", "cancel", "id", "--dry-run"], "--dry-run goes with --task"),
        (["serve", "--database", "mysql://h/d"], "HURLBAT_DATABASE_URL names the unknown kind of database 'mysql'"),
        (["migrate", "--database", "mysql://h/d"], "HURLBAT_DATABASE_URL names the unknown kind of database 'mysql'"),
    ],
)
def test_bad_input_is_told_in_a_sentence(hurlbat: Callable[..., Done], arguments: list[str], sentence: str) -> None:
    _fails(hurlbat(*arguments), 2, sentence)


def test_what_the_server_refuses_is_told_with_its_code(hurlbat: Callable[..., Done], here: dict[str, str]) -> None:
    _fails(hurlbat("run", "nobody", **here), 2, r"^hurlbat: there is no task nobody.* \(task_unknown\)\.\n$")
    _fails(hurlbat("runs", "show", "../workers", **here), 1, r"\(run_unknown\)|\(path_not_found\)")
    _fails(hurlbat("workers", "show", "nobody", **here), 1, r"\(worker_unknown\)")


def test_adding_a_worker_fails_when_it_is_rejected(
    hurlbat: Callable[..., Done], here: dict[str, str], worker: str
) -> None:
    done = hurlbat("workers", "add", "other", worker, "--secret", new_secret(), **here)

    assert done.returncode == 1
    assert "state      rejected: " in done.stdout


def test_something_that_is_no_hurlbat_is_told_so(hurlbat: Callable[..., Done], processes: Processes) -> None:
    other = processes.python("other", "-m", "http.server", "0", "--bind", "127.0.0.1")
    other.until(lambda: re.search(r"port \d+ ", other.output) is not None, "port")
    [port] = re.findall(r"port (\d+) ", other.output)

    _fails(hurlbat("runs", "list", "--url", f"http://127.0.0.1:{port}"), 3, "does not look like a Hurlbat server")


def test_all_mistakes_in_the_settings_are_told_at_once(hurlbat: Callable[..., Done]) -> None:
    done = hurlbat("serve", HURLBAT_PORT="web", HURLBAT_LEASE="1", HURLBAT_API_TOKEN="sesame")

    _fails(done, 2, "HURLBAT_PORT .*\n.*HURLBAT_API_TOKEN .*\n.*HURLBAT_LEASE ")
    assert "sesame" not in done.stderr


def test_without_the_server_s_parts_the_command_says_how_to_get_them() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"hurlbat": "hurlbat_app.cli.entry:run"}
    code = "import sys; sys.modules['typer'] = None; from hurlbat_app.cli.entry import run; run()"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hurlbat: the command line needs the server's parts: pip install 'hurlbat[server]'\n"


def test_a_misspelt_setting_is_told_with_the_one_that_may_be_meant(
    hurlbat: Callable[..., Done], sqlite_url: str
) -> None:
    done = hurlbat("migrate", "--json", HURLBAT_DATABASE_URL=sqlite_url, HURLBAT_LOG_LEVLE="debug")

    assert _json(done) == {"migrated": True}
    assert "HURLBAT_LOG_LEVLE is no setting and changes nothing; is HURLBAT_LOG_LEVEL meant?" in done.stderr
    _fails(hurlbat("serve", HURLBAT_PROT="1", HURLBAT_PORT="web"), 2, "HURLBAT_PORT .*\n.*HURLBAT_PROT is no setting")


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HURLBAT_TOKEN", "HURLBAT_SIGNING_SECRET", "HURLBAT_GRACE", "hurlbat_port", "HURLBAT_CHAOS_SEED"),
        *("HURLBAT_SERVICE_HOST", "HURLBAT_PORT_8420_TCP_ADDR"),
    ],
)
def test_variables_of_the_app_of_tests_and_of_kubernetes_are_no_mistakes(name: str) -> None:
    assert unknown_variables({name: "x"}) == []

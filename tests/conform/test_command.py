"""`hurlbat conform` as people and their CI call it, against the SDK's worker in a process of its own."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from hurlbat.signing import new_key_pair, new_secret
from hurlbat_app.cli.conform import conform_command
from hurlbat_app.cli.failure import Failure
from hurlbat_app.cli.main import app
from hurlbat_app.conform import CHECKS, GROUPS
from tests.conform.plain_worker import PlainHandler
from tests.conform.sloppy import SECRET, Sloppy
from tests.docs.pages import blocks
from tests.support.ports import free_port
from tests.support.processes import ROOT, Processes

PAGE = ROOT / "docs" / "conform.md"
NEW, OLD = new_secret(), new_secret()
NEVER_202 = {"reports.complete", "reports.token", "reports.heartbeats", "reports.over"}
PATH = "/below/hurlbat/"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The origin of an app with the SDK's worker, below uvicorn on IPv6; its secret is being rotated."""
    processes = Processes(tmp_path_factory.mktemp("conform"))
    port = free_port()
    command = [
        "uvicorn",
        "tests.conform.sdk_worker:app",
        "--host",
        "::1",
        "--port",
        str(port),
        "--log-level",
        "warning",
    ]
    started = processes.listen(command, port, HURLBAT_SIGNING_SECRET=f"{NEW},{OLD}", HURLBAT_WORKER="conform")
    started.answers(f"http://[::1]:{port}{PATH}")
    yield f"http://[::1]:{port}"
    processes.close()


def conform(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["conform", *arguments], env=env)


def told(*arguments: str, **env: str) -> Any:
    """Return the one object that `--json` prints."""
    done = conform(*arguments, "--json", **env)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    report = json.loads(done.stdout)
    assert report["conforms"] == (done.exit_code == 0) == (report["failed"] == 0)
    assert report["passed"] + report["failed"] + report["skipped"] == len(report["checks"])
    return report


def of(report: Any, outcome: str) -> set[str]:
    return {check["check"] for check in report["checks"] if check["outcome"] == outcome}


def refusal(*arguments: str, **env: str) -> str:
    done = conform(*arguments, **env)
    assert isinstance(done.exception, Failure), done.output
    assert done.exception.status == 2
    return str(done.exception)


def test_the_sdk_s_worker_is_all_green_on_ipv6_below_a_path_while_its_secret_rotates(worker: str) -> None:
    report = told(worker + PATH, HURLBAT_SIGNING_SECRETS=f"{NEW},{OLD}")

    assert [check for check in report["checks"] if check["outcome"] == "failed"] == []
    assert of(report, "skipped") == NEVER_202
    assert of(report, "passed") == {check.id for check in CHECKS if "protocol" in check.modes} - NEVER_202
    assert report["sdk"].startswith("hurlbat-python/")
    assert report["url"] == worker + PATH


def test_people_are_told_of_every_check_and_at_the_end_how_many(worker: str) -> None:
    done = conform(
        worker + PATH, "--secret", OLD, "--only", "signatures", "--only", "rotation", "--skip", "rotation.last"
    )

    assert done.exit_code == 0
    assert (
        "passed  signatures.old                A request that was signed ten minutes ago is refused with 401.\n"
        in done.stdout
    )
    assert "skipped rotation.each                 Each of the secrets that were given is good alone.\n" in done.stdout
    assert "              Only one secret was given.\n" in done.stdout
    assert re.search(r"\n\n22 passed, 0 failed, 1 skipped, in \d+\.\d s\.\n$", done.stdout)
    assert "rotation.last" not in done.stdout
    assert "reachable" not in done.stdout


def test_a_task_of_one_s_own_takes_the_place_of_the_echo(worker: str) -> None:
    own = ("--task", "shout", "--input", '"hello"')
    report = told(worker + PATH, "--secret", NEW, *own, "--only", "delivery.result", "--only", "streams.lines")
    wrong = told(worker + PATH, "--secret", NEW, "--task", "shuot", "--only", "delivery", "--only", "streams")

    assert of(report, "passed") == {"delivery.result", "streams.lines"}
    assert [check["seen"] for check in report["checks"]] == ["shout has completed", "2 lines: started, result"]
    assert of(wrong, "failed") == {"delivery.result"}
    assert "the worker serves no task shuot" in json.dumps(wrong)


def test_what_a_worker_does_not_serve_is_skipped_with_a_sentence() -> None:
    with Sloppy("only-own-task") as worker:
        report = told(worker.url, "--secret", SECRET, "--skip", "sizes.too-large")
        own = told(worker.url, "--secret", SECRET, "--task", "own.task", "--skip", "sizes.too-large")

    assert (of(report, "failed"), of(own, "failed")) == (set(), set())
    reasons = {check["check"]: check["seen"] for check in report["checks"] if check["outcome"] == "skipped"}
    nothing = "the worker's manifest has no conform.echo, and --task NAME --input JSON names no other task"
    assert reasons["delivery.result"] == nothing
    assert reasons["cancel.stopped"] == "the worker's manifest has no conform.sleep"
    assert {"delivery.result", "delivery.mark", "streams.type", "streams.lines"} <= of(own, "passed")


def test_a_failure_says_what_was_seen_why_it_matters_and_what_to_do() -> None:
    with Sloppy("takes-the-future") as worker:
        done = conform(worker.url, "--secret", SECRET, "--only", "signatures.ahead")

    assert done.exit_code == 1
    assert done.stdout.startswith(
        "FAILED  signatures.ahead              A request that was signed ten minutes ahead is refused with 401.\n"
        "        seen  A request that was signed ten minutes ahead was let in: it was answered 200.\n"
        "        why   A request for later could be kept and sent when its time has come.\n"
        "        fix   Refuse a webhook-timestamp that is more than five minutes from your clock, in either\n"
    )


def test_an_address_that_does_not_answer_is_one_failure_and_a_sentence() -> None:
    port = free_port()
    done = conform(f"http://127.0.0.1:{port}/", "--secret", SECRET)

    assert done.exit_code == 1
    assert f"There is no connection to http://127.0.0.1:{port}/: connection refused." in done.stdout
    assert "0 passed, 1 failed" in done.stdout
    assert "Nothing more could be looked at after reachable.answers." in done.stdout
    assert len(done.stdout.splitlines()) == 6


@pytest.mark.parametrize(
    ("faults", "path", "options", "check", "sentence"),
    [
        ("", "/elsewhere", (), "reachable.answers", "a signed POST was answered 404: nothing here"),
        ("redirects", "/", (), "reachable.no-redirect", "it answers 307 and sends on to /elsewhere/"),
        ("login-page", "/", (), "reachable.mark", "it answered 200 without hurlbat-worker and with no manifest"),
        ("", "/", ("--secret", NEW), "signatures.good", "a well signed request was answered 401"),
        ("checks-target", "/", ("--worker", "other"), "signatures.good", "a well signed request was answered 403"),
        ("speaks-no-http", "/", (), "reachable.answers", "the answer is not good HTTP"),
        ("hangs", "/", ("--timeout", "0.5"), "reachable.answers", "there was no whole answer within 0.5 s"),
        ("dies", "/", (), "manifest.unknown-type", "the worker does not take connections any more"),
    ],
)
def test_what_is_hopeless_stops_the_rest(
    faults: str, path: str, options: tuple[str, ...], check: str, sentence: str
) -> None:
    with Sloppy(faults) as worker:
        report = told(worker.url.rstrip("/") + path, "--secret", SECRET, *options)

    assert (report["stopped"], report["failed"]) == (check, 1)
    [failure] = [one for one in report["checks"] if one["outcome"] == "failed"]
    assert failure["seen"].startswith(sentence)


def test_a_hostile_worker_is_told_of_like_any_other() -> None:
    with Sloppy("is-hostile") as worker:
        done = conform(worker.url, "--secret", SECRET)
    with Sloppy("is-a-bomb", "compresses") as bomb:
        report = told(bomb.url, "--secret", SECRET)

    assert done.exit_code == 1
    assert "a well signed request was answered 401: ]0;owned" in done.stdout.lower().replace("\ufffd", "")
    assert not set("\x1b\x07") & set(done.stdout)
    assert [one["seen"] for one in report["checks"] if one["outcome"] == "failed"] == [
        "the answer has more than 33,554,432 bytes"
    ]


def test_a_plain_worker_is_looked_at_by_its_own_checks() -> None:
    with Sloppy(handler=PlainHandler) as worker:
        report = told(worker.url, "--secret", SECRET, "--mode", "plain")
    with Sloppy("knows-one-task", handler=PlainHandler) as worker:
        own = told(worker.url, "--secret", SECRET, "--mode", "plain", "--task", "own.task", "--input", "[1]")

    assert (of(report, "failed"), of(own, "failed")) == (set(), set())
    assert of(report, "skipped") == {"rotation.each", *NEVER_202}
    assert [one["seen"] for one in own["checks"] if one["check"] == "delivery.completes"] == [
        "200; the output is the JSON [1]"
    ]
    assert {"failures.no-retry", "failures.retry-words", "failures.same-id"} <= of(report, "passed") & of(
        own, "skipped"
    )


def test_a_pair_of_keys_signs_as_well(worker: str) -> None:
    private, _ = new_key_pair()
    report = told(worker + PATH, "--secret", f"{private},{NEW}", "--only", "signatures.good", "--only", "rotation.each")

    assert of(report, "passed") == {"signatures.good"}
    assert "signed by secret 1 of the 2 alone" in json.dumps(report)


def test_extra_headers_are_sent_with_every_request() -> None:
    with Sloppy("wants-a-header") as worker:
        without = told(worker.url, "--secret", SECRET, "--only", "reachable")
        report = told(worker.url, "--secret", SECRET, "--only", "reachable", "--header", "x-pass=open=sesame")

    assert (without["conforms"], report["conforms"]) == (False, True)


def test_the_list_says_of_every_check_why_it_matters() -> None:
    done = conform("--list")
    listed = json.loads(conform("--list", "--json", "--only", "cancel").stdout)["checks"]

    assert done.exit_code == 0
    assert all(f"{check.id:<30}{check.says}" in done.stdout for check in CHECKS)
    assert [check["check"] for check in listed] == ["cancel.stopped", "cancel.ends", "cancel.unknown"]
    assert all(check["why"] and check["fix"] and check["modes"] == ["protocol"] for check in listed)


def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where no .env is
    url = "http://127.0.0.1:9/"
    assert refusal() == "give the URL of a worker, or --list to see what is looked at."
    assert refusal("ftp://here", "--secret", NEW) == "'ftp://here' is not a URL with http:// or https:// and a host."
    assert refusal("http://[::1", "--secret", NEW) == "'http://[::1' is not a URL with http:// or https:// and a host."
    assert refusal(url) == "give the worker's signing secret: --secret, or HURLBAT_SIGNING_SECRET."
    assert refusal(url, "--secret", "sesame").startswith("--secret: a signing secret must start with whsec_")
    assert refusal(url, "--secret", new_key_pair()[1]) == "a whpk_ key can only verify; give the whsk_ key of the pair."
    assert refusal(url, "--secret", NEW, "--only", "singatures").startswith(
        "--only takes a group (reachable, signatures, "
    )
    assert refusal(url, "--secret", NEW, "--input", "1") == "--input is the input of a task; name it with --task."
    assert refusal(url, "--secret", NEW, "--task", "a", "--input", "{").startswith("--input is not JSON: ")
    assert refusal(url, "--secret", NEW, "--header", "x") == "--header takes name=value, and 'x' is none."
    assert refusal(url, "--secret", NEW, "--header", "x y=1").startswith("--header 'x y' is no name of a header")
    assert refusal(url, "--secret", NEW, "--worker", "a b").startswith("--worker 'a b' is not a name")
    assert refusal(url, "--secret", NEW, "--task", 'a"b').startswith("--task 'a\"b' is not a name")


def test_a_secret_is_never_printed(worker: str) -> None:
    done = conform(worker + PATH, "--secret", new_secret(), "--json")
    assert "whsec_" not in done.output
    assert done.exit_code == 1


def test_every_check_is_told_in_full_and_belongs_to_a_group() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert {check.group for check in CHECKS} == set(GROUPS)
    for check in CHECKS:
        assert check.says.endswith("."), check.id
        assert check.why.rstrip().endswith("."), check.id
        assert check.fix.rstrip().endswith("."), check.id
        earlier = [one.id for one in CHECKS[: CHECKS.index(check)]]
        assert set(check.after) <= set(earlier), check.id


def test_the_command_has_its_options_in_its_help() -> None:
    assert conform_command.__doc__
    shown = conform("--help", COLUMNS="200").stdout
    for option in ("--secret", "--mode", "--worker", "--task", "--input", "--header", "--timeout", "--only", "--skip"):
        assert option in shown


def test_the_page_tells_every_check_as_the_command_does() -> None:
    catalogue = PAGE.read_text().split("\n## What is looked at\n")[1]
    rows = re.findall(r"^\| `([\w.-]+)` \| (.+?)(?: \*\(plain workers\)\*)? \| (.+) \|$", catalogue, re.MULTILINE)

    assert rows == [(check.id, check.says, check.why) for group in GROUPS for check in CHECKS if check.group == group]
    assert re.findall(r"^### (\w+)$", catalogue, re.MULTILINE) == list(GROUPS)


def test_the_page_shows_what_the_command_prints() -> None:
    with Sloppy("first-signature-only") as worker:
        done = conform(worker.url, "--secret", SECRET, "--only", "rotation.last")

    [shown] = [block.text for block in blocks(PAGE, "text")]
    assert done.stdout.startswith(shown)

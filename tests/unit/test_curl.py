"""The curl command of an attempt: what it sends, what it hides, and that no shell sees into it."""

import json
import subprocess
from typing import Any

import pytest

from hurlbat import signing
from hurlbat.errors import ConfigError
from hurlbat.messages import read_message
from hurlbat_app.cli.attempts import printable
from hurlbat_app.cli.curl import LEASE_TOKEN, curl_of

SECRET, OTHER = signing.new_secret(), signing.new_secret()
NOW = 1_700_000_000
RUN = "0199a3c0-0000-7000-8000-00000000000a"
NASTY = [
    'it\'s "quoted" \\ and `ticked`',
    "$(touch pwned) ${HOME} $HOME !! !x %s \\n",
    "a\nb\r\n\tc\u2028d\x00e\x1b[31m",
    "HURLBAT\nHURLBAT",
    "' ; rm -rf / #",
    "Grüße 🙂 日本 \ud800",
    "@/etc/passwd",
    "-H",
    "",
]


def attempt(input: Any = None, **sent: Any) -> dict[str, Any]:
    """Return an attempt as the API shows it."""
    run = {
        "run_id": RUN,
        "task": "bill",
        "attempt": 2,
        "max_attempts": 3,
        "input": input,
        "metadata": {},
        "execution_timeout": 30.0,
        "lease_token": "…",
        "report_url": f"https://me/runs/{RUN}/attempts/2",
    }
    headers = {
        "user-agent": "Hurlbat/0.1",
        "x-api-key": "…",
        "content-type": "application/json",
        "traceparent": "00-a-b-01",
        "webhook-id": "0199a3c0-0000-7000-8000-0000000000ff",
        "webhook-signature": "…",
        "hurlbat-key-ids": signing.key_id(SECRET),
    }
    data = {"worker": "w", "url": "https://w.example/hurlbat/", "heartbeat": 5.0, "runs": [run]}
    request = {
        "url": "https://w.example/hurlbat/",
        "headers": headers,
        "key_ids": [signing.key_id(SECRET)],
        "body": {"type": "deliver", "timestamp": "2026-01-01T00:00:00.000Z", "data": data},
    }
    return {"run_id": RUN, "attempt": 2, "request": request | sent}


def test_the_message_is_that_of_the_attempt_for_another_run_and_is_signed_now() -> None:
    made = curl_of(attempt({"n": 1}), [SECRET, OTHER], NOW)
    [delivered] = read_message(made.body.encode()).deliveries
    assert (delivered.task, delivered.attempt, delivered.input, delivered.lease_token) == (
        "bill",
        2,
        {"n": 1},
        LEASE_TOKEN,
    )
    assert RUN not in made.body
    assert made.run_id == delivered.run_id
    assert delivered.report_url == f"https://me/runs/{made.run_id}/attempts/2"
    for key in (SECRET, OTHER):
        assert signing.verify([key], made.headers, made.body.encode(), NOW)
    assert made.headers["hurlbat-key-ids"].split() == [signing.key_id(SECRET), signing.key_id(OTHER)]
    assert curl_of(attempt(), [SECRET], NOW).run_id != made.run_id


def test_another_url_is_also_the_one_in_the_message() -> None:
    made = curl_of(attempt(), [SECRET], NOW, "http://127.0.0.1:8000/hurlbat/")
    assert made.url == read_message(made.body.encode()).url == "http://127.0.0.1:8000/hurlbat/"
    for wrong in ("ftp://x", "nothing", "http://", "http://x/\n-o/etc", "http://x/ü"):
        with pytest.raises(ConfigError, match="--worker-url"):
            curl_of(attempt(), [SECRET], NOW, wrong)


def test_a_plain_worker_s_message_is_named_by_the_run() -> None:
    request = attempt()["request"]
    plain = attempt(headers=request["headers"] | {"webhook-id": RUN})
    made = curl_of(plain, [SECRET], NOW)
    assert made.headers["webhook-id"] == made.run_id
    made = curl_of(attempt(), [SECRET], NOW)
    assert made.headers["webhook-id"] != made.run_id


def test_hidden_headers_and_another_secret_are_told_in_comments() -> None:
    lines = curl_of(attempt(), [SECRET], NOW).command().splitlines()
    assert "# The values of these headers are hidden; add them by -H: x-api-key" in lines
    assert f"# Signed by key {signing.key_id(SECRET)}; a worker takes it until 2023-11-14T22:18:20Z." in lines
    assert not any("another secret" in line for line in lines)
    lines = curl_of(attempt(), [OTHER], NOW).command().splitlines()
    assert any(line.endswith("the server has another secret.") for line in lines if line.startswith("#"))
    assert "…" not in "\n".join(lines)


@pytest.mark.parametrize("input", NASTY)
def test_a_shell_gives_curl_exactly_what_was_signed(tmp_path: Any, input: str) -> None:
    made = curl_of(attempt({input: input}), [SECRET], NOW, "http://127.0.0.1/a'b?q=$(touch%20pwned)&x=[1-9]{a,b};y")
    fake = tmp_path / "curl"
    fake.write_text('#!/bin/sh\nfor one in "$@"; do printf "%s\\0" "$one"; done > arguments\ncat > body\n')
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    done = subprocess.run(["sh"], input=made.command() + "\n", text=True, env=env, cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")
    arguments = (tmp_path / "arguments").read_text().split("\0")
    assert (tmp_path / "body").read_text() == made.body
    assert [arguments[n + 1] for n, one in enumerate(arguments) if one == "--url"] == [made.url]
    told = [arguments[n + 1] for n, one in enumerate(arguments) if one == "-H"]
    assert told == [f"{name}: {value}" for name, value in made.headers.items()]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["arguments", "body", "curl"]
    assert json.loads(made.body)["data"]["runs"][0]["input"] == {input: input}


def test_what_a_worker_says_does_not_control_a_terminal() -> None:
    assert printable("a\x1b[31m\x9b\u202eb\nc\td…") == "a\ufffd[31m\ufffd\ufffdb\nc\td…"

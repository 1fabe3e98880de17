"""The page on webhooks: its commands are run as they are printed, and what each sender sends becomes what is told."""

import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from hurlbat.signing import new_secret
from hurlbat_app.api.webhooks import MAX_RATE, MAX_SECONDS, MIN_SECONDS
from hurlbat_dispatcher.expressions import MAX_SOURCE
from hurlbat_dispatcher.incoming.auth import MAX_SECRET, MAX_SECRETS
from hurlbat_dispatcher.incoming.body import MAX_FIELDS
from hurlbat_dispatcher.incoming.making import MAX_EVENT_ID
from hurlbat_dispatcher.incoming.verify import TOLERANCE_SECONDS
from tests.docs.pages import blocks
from tests.support import warm
from tests.support.processes import ROOT, TOKEN, Processes
from tests.support.senders import by_api_key, by_basic, by_github, by_hmac, by_slack, by_standard, by_stripe

PAGE = ROOT / "docs" / "webhooks.md"
NAMES = ("HELLO_KEY", "GITHUB_SECRET", "NEW_SECRET", "STRIPE_SECRET", "SLACK_SECRET", "SHOPIFY_SECRET")
SECRETS = {name: f"the value of {name}" for name in (*NAMES, "GITLAB_TOKEN", "LEGACY_PASSWORD")} | {
    "STANDARD_SECRET": new_secret()
}
COMMANDS = [
    line for block in blocks(PAGE, "sh") for line in block.text.replace("\\\n", " ").splitlines() if "$NEW" not in line
]


@pytest.fixture
def api(processes: Processes, made_sqlite_url: str, tmp_path: Path) -> httpx.Client:
    """A client of a server on which the recipes of the page have been followed."""
    server = processes.serve(made_sqlite_url)
    env = SECRETS | {"HURLBAT_URL": server.url, "HURLBAT_TOKEN": TOKEN}
    for line in COMMANDS:
        told = re.sub(r"\$(\w+)", lambda found: env[found[1]], line)
        command = [sys.executable, "-m", "hurlbat_app.cli.main"]
        program, *arguments = shlex.split(told)
        if program == "curl":
            answer = subprocess.run([program, *arguments], capture_output=True, text=True, check=True).stdout
            assert json.loads(answer).keys() == {"event"}
        else:
            done = warm.run([*command, *arguments], env | {"HOME": str(tmp_path), "PATH": os.defpath}, tmp_path, "")
            assert done.returncode == 0, line + done.stderr
    headers = {"authorization": f"Bearer {TOKEN}"}
    return httpx.Client(base_url=server.url, headers=headers, timeout=60, trust_env=False)


def test_what_the_senders_send_becomes_the_events_that_are_told(api: httpx.Client) -> None:
    now, secrets = time.time(), SECRETS
    shopify = by_hmac("x-shopify-hmac-sha256", encoding="base64")
    body: dict[str, Any] = {
        "id": "evt_1",
        "event_id": "Ev1",
        "type": "user.created",
        "object_kind": "push",
        "repository": {"full_name": "ada/engine"},
        "event": {"type": "app_mention"},
    }
    text = json.dumps(body).encode()
    deliveries = {
        "github": by_github(secrets["GITHUB_SECRET"], text) | {"x-github-event": "push", "x-github-delivery": "g1"},
        "stripe": by_stripe(secrets["STRIPE_SECRET"], text, now),
        "slack": by_slack(secrets["SLACK_SECRET"], text, now),
        "accounts": by_standard(secrets["STANDARD_SECRET"], text, now),
        "shopify": shopify(secrets["SHOPIFY_SECRET"], text, now)
        | {"x-shopify-topic": "orders/create", "x-shopify-webhook-id": "s1"},
        "gitlab": by_api_key(secrets["GITLAB_TOKEN"], text, header="x-gitlab-token") | {"x-gitlab-event-uuid": "l1"},
        "legacy": by_basic(secrets["LEGACY_PASSWORD"], text, username="legacy"),
    }
    with httpx.Client(base_url=api.base_url, timeout=60, trust_env=False) as sender, api:
        for name, headers in deliveries.items():
            answer = sender.post(f"/webhooks/{name}", content=text, headers=headers)
            assert answer.status_code == 201, name + answer.text
        for command in (b"command=%2Fdeploy&text=now", b"payload=%7B%22type%22%3A%22block_actions%22%7D"):
            form = {"content-type": "application/x-www-form-urlencoded"}
            signed = by_slack(secrets["SLACK_SECRET"], command, now)
            assert sender.post("/webhooks/slack", content=command, headers=form | signed).status_code == 201
        events = api.get("/events").json()["items"]

    told = [(one["key"], one["scope"], one["id"] if "~" in one["id"] else None) for one in reversed(events)]
    assert told == [
        ("webhook.hello", None, None),
        ("github.push", "ada/engine", "github~g1"),
        ("stripe.user.created", None, "stripe~evt_1"),
        ("slack.app_mention", None, "slack~Ev1"),
        ("accounts.user.created", None, "accounts~msg_1"),
        ("shopify.orders/create", None, "shopify~s1"),
        ("gitlab.push", None, "gitlab~l1"),
        ("webhook.legacy", None, None),
        ("slack.command", None, None),
        ("slack.block_actions", None, None),
    ]
    assert [one["metadata"]["webhook"] for one in reversed(events)][:3] == ["hello", "github", "stripe"]


def test_the_numbers_are_those_that_hold() -> None:
    page = PAGE.read_text()

    for number in (
        f"within {TOLERANCE_SECONDS} s",
        f"1 to {MAX_RATE:,} deliveries in {MIN_SECONDS} to {MAX_SECONDS:,} s",
        f"Up to {MAX_SECRETS} secrets",
        f"{MAX_SECRETS} at a time, of {MAX_SECRET} characters",
        f"at most {MAX_FIELDS:,} fields",
        f"{MAX_SOURCE} characters",
        f"({MAX_EVENT_ID} characters)",
    ):
        assert number in page


def test_the_body_that_is_shown_is_in_the_contract() -> None:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no stubs

    from hurlbat_app.api.contract import contract

    [shown] = blocks(PAGE, "json")
    schema = contract() | {"$ref": "#/components/schemas/WebhookSpec"}
    assert list(Draft202012Validator(schema).iter_errors(json.loads(shown.text))) == []

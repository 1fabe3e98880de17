"""The page about events: its commands are answered as it says, its policies are good, its numbers are the code's."""

import re
from typing import Any

import httpx
import pytest

from hurlbat.policy import TaskPolicy
from hurlbat_dispatcher.domain.events import MAX_TEXT
from hurlbat_dispatcher.events import MAX_BULK
from hurlbat_dispatcher.filters import MAX_FILTERS, MAX_PAYLOAD
from hurlbat_dispatcher.keys import check_policy
from tests.api.conftest import WORKER_URL, api, engine, settings, worker
from tests.docs.pages import blocks
from tests.support.processes import ROOT

pytestmark = pytest.mark.anyio
__all__ = ["api", "engine", "settings", "worker"]

PAGE = ROOT / "docs" / "events.md"
COMMAND = re.compile(r"""api (?:-X (\w+) )?"\$HURLBAT_URL([^"]+)"(?: -d '(.+)')?""")


async def test_every_command_is_answered_as_the_page_says(api: httpx.AsyncClient) -> None:
    tasks = [{"name": "review", "on_events": ["order.*"]}]
    await api.post("/workers", json={"name": "plain", "url": WORKER_URL, "mode": "plain", "tasks": tasks})
    answers: list[Any] = []
    made = ""
    for line in "".join(block.text for block in blocks(PAGE, "sh")).splitlines():
        match = COMMAND.fullmatch(line)
        assert match is not None, line
        method, path, body = match.groups()
        verb = method or ("GET" if body is None else "POST")
        answer = await api.request(verb, path.replace("$FILTER", made), content=body)
        assert answer.is_success, answer.text
        if path == "/tasks/review/filters" and body is not None:
            made = answer.json()["id"]
        answers.append(answer.json() if answer.content else None)

    event, bulk, first, listed, shown, changed, removed, events, again, replayed = answers
    assert [start["outcome"] for start in event["starts"]] == ["started"]
    assert [one.get("field") for one in bulk["results"]] == [None, "events[1].key"]
    assert listed["items"] == [first] == [shown]
    assert (changed["expression"], changed["scope"], changed["payload"]) == (first["expression"], None, {"least": 2000})
    assert removed is None
    assert [one["id"] for one in events["items"]] == ["order-1042-paid"]
    assert (again, replayed["replay_of"]) == (event, "order-1042-paid")


def test_every_policy_of_the_page_is_a_good_one() -> None:
    policies = [TaskPolicy.model_validate_json(block.text) for block in blocks(PAGE, "json") if '"name"' in block.text]
    for policy in policies:
        check_policy(policy)
    assert [policy.name for policy in policies] == ["send-receipt", "alert"]


def test_the_limits_of_the_page_are_those_of_the_code() -> None:
    said = PAGE.read_text().split("## Limits")[1].replace(",", "")
    assert f"1 to {MAX_TEXT} characters, no control".replace(",", "") in said
    assert f"| events in one request | {MAX_BULK} |" in said
    assert f"| 16 {MAX_FILTERS} |" in said
    assert f"| 512 characters {MAX_PAYLOAD} characters |" in said

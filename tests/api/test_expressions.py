"""`POST /expressions/check` and `hurlbat expressions check`: an expression that is wrong is an answer, not an error."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import warm
from tests.support.processes import TOKEN, Processes

pytestmark = pytest.mark.anyio


async def _check(api: httpx.AsyncClient, body: Any) -> dict[str, Any]:
    answer = await api.post("/expressions/check", json=body)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


async def test_what_comes_of_an_expression_is_answered(api: httpx.AsyncClient) -> None:
    assert await _check(api, {"expression": "input.user_id", "kind": "key", "input": {"user_id": 7}}) == {
        "valid": True,
        "evaluated": True,
        "type": "int",
        "value": 7,
        "key": "7",
        "reads": ["input"],
        "error": None,
    }


async def test_an_expression_that_is_wrong_is_an_answer_with_its_place(api: httpx.AsyncClient) -> None:
    assert await _check(api, {"expression": "input.a == inptu.b"}) == {
        "valid": False,
        "evaluated": False,
        "type": None,
        "value": None,
        "key": None,
        "reads": [],
        "error": {
            "code": "expression_invalid",
            "message": "there is no variable inptu (there are input, metadata and run); put texts in quotes",
            "position": 12,
        },
    }


@pytest.mark.parametrize(
    ("body", "valid", "evaluated", "code"),
    [
        ({"expression": "input.a"}, True, False, None),
        ({"expression": "input.a", "input": None}, True, False, "expression_failed"),
        ({"expression": "input", "input": None, "kind": "key"}, True, True, None),
        ({"expression": "input.a", "input": {}}, True, False, "expression_failed"),
        ({"expression": "metadata.a", "metadata": None}, True, False, "expression_failed"),
        ({"expression": "run.id + run.task", "run": {"task": "a"}}, True, True, None),
        ({"expression": "input.a", "input": {"a": [1]}, "kind": "key"}, True, True, "key_wrong_type"),
        ({"expression": "input.a", "input": {"a": "x" * 300}, "kind": "key"}, True, True, "key_too_long"),
        ({"expression": "'5'", "kind": "number"}, False, False, "number_wrong_type"),
        ({"expression": "input.a", "input": {"a": 2**70}, "kind": "number"}, True, True, None),
        ({"expression": "input.a", "input": {"a": 1}, "kind": "filter"}, True, True, "filter_wrong_type"),
        ({"expression": "run.id", "kind": "filter"}, False, False, "expression_invalid"),
        ({"expression": "payload.a == 1", "kind": "filter"}, True, False, "expression_failed"),
        (
            {"expression": "payload.a && event.key == 'k'", "kind": "filter"}
            | {"payload": {"a": True}, "event": {"key": "k"}},
            True,
            True,
            None,
        ),
        ({"expression": 'duration("1h")', "kind": "duration"}, True, True, None),
        ({"expression": ""}, False, False, "expression_invalid"),
        ({"expression": "(" * 600}, False, False, "expression_invalid"),
        ({"expression": "0.0 / 0.0", "kind": None}, True, True, None),
    ],
)
async def test_each_way_to_go_wrong_has_its_code(
    api: httpx.AsyncClient, body: dict[str, Any], valid: bool, evaluated: bool, code: str | None
) -> None:
    said = await _check(api, body)
    assert (said["valid"], said["evaluated"], (said["error"] or {}).get("code")) == (valid, evaluated, code)


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ("{}", "member_missing", "expression"),
        ('{"expression": 7}', "member_invalid", "expression"),
        ('{"expression": "1", "kind": "colour"}', "member_invalid", "kind"),
        ('{"expression": "1", "kind": ["key"]}', "member_invalid", "kind"),
        ('{"expression": "1", "metadata": []}', "member_invalid", "metadata"),
        ('{"expression": "1", "run": "r1"}', "member_invalid", "run"),
        ('{"expression": "1", "colour": {}}', "member_unknown", "colour"),
        ('{"expression": "1", "payload": {}}', "member_invalid", "payload"),
        ('{"expression": "1", "kind": "key", "event": {}}', "member_invalid", "event"),
        ('{"expression": "true", "kind": "filter", "run": {}}', "member_invalid", "run"),
        ('{"expression": "\\ud800"}', "json_invalid", None),
    ],
)
async def test_a_request_that_is_none_is_refused(
    api: httpx.AsyncClient, body: str, code: str, field: str | None
) -> None:
    answer = await api.post("/expressions/check", content=body)
    assert (answer.status_code, answer.json()["code"], answer.json().get("field")) == (422, code, field)


async def test_a_check_needs_the_token_and_no_more_than_the_largest_body(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    assert (await stranger.post("/expressions/check", json={"expression": "1"})).status_code == 401
    large = {"expression": "input", "input": "x" * 200_000}
    assert (await api.post("/expressions/check", json=large)).status_code == 413


# -- the command -------------------------------------------------------------------------------------------------------


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def check(processes: Processes, made_sqlite_url: str, tmp_path: Path) -> Callable[..., Done]:
    """Call `hurlbat expressions check` against a real server."""
    env = {"PATH": "/usr/bin:/bin", "HURLBAT_URL": processes.serve(made_sqlite_url).url, "HURLBAT_TOKEN": TOKEN}

    def call(*arguments: str) -> Done:
        command = [sys.executable, "-m", "hurlbat_app.cli.main", "expressions", "check", *arguments]
        return warm.run(command, env, tmp_path, "")

    return call


def test_the_command_says_what_comes_of_it_and_points_to_what_is_wrong(check: Callable[..., Done]) -> None:
    done = check("input.user_id", "--kind", "key", "--input", '{"user_id": 7}')
    assert (done.returncode, done.stdout) == (0, "7 (int)\nkey: 7\n"), done.stderr
    done = check("run.task + metadata.none", "--run", '{"task": "a"}', "--metadata", '{"a": "b"}', "--json")
    assert (done.returncode, json.loads(done.stdout)["error"]["code"]) == (1, "expression_failed")
    done = check("1 + inptu.a")
    sentence, line, mark = done.stderr.splitlines()
    assert (done.returncode, line, mark) == (1, "  1 + inptu.a", "      ^")
    assert sentence.endswith("put texts in quotes (expression_invalid).")

"""How wide what the commands print is: sentences keep to the terminal, words and tables stay whole."""

import json
from typing import Any

import pytest

from hurlbat_app.cli.attempts import attempts
from hurlbat_app.cli.show import print_columns, print_run, print_worker
from hurlbat_app.cli.wrapping import NARROWEST, wrapped

SENTENCE = (
    "the worker answered 401 to a signed request: the body came as it was sent, so the worker has another secret (it "
    "knows 1); signed with key 3ba24a64 (v1 since 2026-11-22T14:51:52.037Z)"
)
WORKER: dict[str, Any] = {
    "name": "app",
    "url": "https://app.example.com/hurlbat/",
    "state": "rejected",
    "problem": SENTENCE,
    "mode": "protocol",
    "in_flight": 0,
    "window": 1,
    "slots": 100,
    "pinned": None,
    "tasks": ["welcome"],
    "last_seen_at": None,
    "labels": {},
    "keys": [],
}


def _said(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(("columns", "width"), [("", 80), ("0", 80), ("50", 50), ("200", 200), ("3", NARROWEST)])
def test_a_sentence_is_as_wide_as_the_terminal_and_else_80(
    monkeypatch: pytest.MonkeyPatch, columns: str, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    text = "a word " * 100

    lines = wrapped(text, 2).splitlines()

    assert width - len("a word ") < max(map(len, lines)) <= width
    assert all(line.startswith("  ") for line in lines[1:])
    assert _said(" ".join(lines)) == text.strip()


def test_no_word_is_broken_and_lines_stay_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    long = "https://app.example.com/" + "a-b/" * 20

    assert wrapped(f"see {long} there\nand more\n\n  indented", 1) == f"see\n {long}\n there\nand more\n\n  indented"


def test_a_worker_is_shown_with_its_problem_wrapped_and_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "")
    print_worker(WORKER)

    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert _said(shown).count(SENTENCE) == 1
    assert f"\n{' ' * 13}came as it was sent" in shown  # below the value, not below its name


def test_a_run_is_told_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "")
    at = "2030-01-31T12:00:00.000Z"
    held = {"at": at, "kind": "held", "attempt": 1, "message": SENTENCE}
    run = {"id": "r", "task": "t", "state": "cancelled", "attempt": 1, "tries": 0, "input": None, "error": None}
    print_run(run | {"created_at": at, "finished_at": at, "timeline": [held]})

    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert f"held ({SENTENCE})" in _said(shown)
    assert shown.endswith("  cancelled after 0.00 s and 1 attempt (not charged)\n")


def test_what_stands_below_a_row_is_wrapped_and_the_row_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_columns(("n", "name"), [(12, "x" * 60), (3, None)], nothing="", below=[SENTENCE, ""])

    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[1], lines[-1]) == ("N   NAME", f"12  {'x' * 60}", "3   -")
    assert all(line.startswith("    ") and len(line) <= 40 for line in lines[2:-1])
    assert _said(" ".join(lines[2:-1])) == SENTENCE


class Served:
    """A server that knows one attempt."""

    def __init__(self, answer: dict[str, Any]) -> None:
        self._answer = answer

    def __call__(self, *_: object) -> "Served":
        return self

    def get(self, path: str, *_: object) -> "Served":
        self.path = path
        return self

    @property
    def text(self) -> str:
        """The answer."""
        return json.dumps(self._answer)

    def json(self) -> Any:
        """The answer."""
        return self._answer


def _call(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], *arguments: str) -> str:
    """Call `hurlbat attempts` where the server answers so, in a pipe."""
    from typer.testing import CliRunner

    monkeypatch.setattr("hurlbat_app.cli.attempts.Remote", Served(answer))
    done = CliRunner().invoke(attempts, arguments, env={"COLUMNS": ""})
    assert done.exit_code == 0, done.output
    return done.output


def _attempt(number: int, sentence: str, **more: Any) -> dict[str, Any]:
    at = "2030-01-31T12:00:00.000Z"
    plain = {"run_id": "r", "task": "t", "attempt": number, "worker": "app", "state": "put_back", "charged": False}
    return plain | {"sentence": sentence, "started_at": at, "finished_at": at} | more


def test_attempts_are_listed_with_a_sentence_below_each_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [_attempt(3, SENTENCE), _attempt(2, SENTENCE), _attempt(1, "Nothing was sent.\x1b[2J")]

    shown = _call(monkeypatch, {"items": items, "next_cursor": None}, "list", "r")

    assert max(map(len, shown.splitlines())) <= 80
    assert _said(shown).count(SENTENCE) == 1
    assert shown.splitlines()[-4:] == [
        "2        put_back  no       app     2030-01-31T12:00:00.000Z",
        "         The same.",
        "1        put_back  no       app     2030-01-31T12:00:00.000Z",
        "         Nothing was sent.\ufffd[2J",
    ]


@pytest.mark.parametrize(
    ("media", "cut", "whole"),
    [
        ("application/problem+json", False, False),
        ("application/json; charset=utf-8", False, False),
        ("application/problem+json", True, True),
        ("application/x-ndjson", False, True),
        ("text/html", False, True),
    ],
)
def test_an_answer_in_json_is_shown_by_its_members_and_any_other_as_it_came(
    monkeypatch: pytest.MonkeyPatch, media: str, cut: bool, whole: bool
) -> None:
    body = json.dumps({"code": "signature_refused", "detail": SENTENCE})
    response = {"status": 401, "headers": {"content-type": media}, "body": body, "bytes": len(body), "cut": cut}

    shown = _call(monkeypatch, _attempt(1, SENTENCE, request=None, response=response, timings=None), "show", "r", "1")

    assert _said(shown.partition("\n401")[0]).count(SENTENCE) == 1
    assert shown.endswith(f"\n{body}\n") is whole
    assert ('\n{\n  "code": "signature_refused",\n  "detail": "the worker' in shown) is not whole
    if not whole:
        assert max(map(len, shown.splitlines())) <= 80
        assert _said(shown).count(SENTENCE) == 2  # what the server makes of it, and what the worker said

"""What the command line does while a server works on many runs."""

import io
import json
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
import typer

from hurlbat_app.cli import bulk
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.remote import Remote

BEGUN = {"id": "o", "kind": "cancel", "state": "running", "matched": 3, "done": 0, "skipped": 0}
DONE = BEGUN | {"state": "done", "done": 2, "skipped": 1}


class Away(Remote):
    """A server that counts three runs, begins, and then says these things, one after the other."""

    def __init__(self, *then: Any) -> None:
        self.then = list(then)
        self.posted: list[Any] = []

    def post(self, path: str, body: str | None = None, *_: Any, **__: Any) -> httpx.Response:
        """Count, or begin."""
        asked = json.loads(body or "")
        self.posted.append((path, asked))
        return httpx.Response(200, json={"matched": 3} if asked.get("dry_run") else BEGUN)

    def get(self, *_: Any, **__: Any) -> httpx.Response:
        """Say the next thing."""
        said = self.then.pop(0)
        if isinstance(said, Failure):
            raise said
        return httpx.Response(200, json=said)


class Person(io.StringIO):
    """Somebody at a keyboard."""

    def isatty(self) -> bool:
        """Be one."""
        return True


def asked(**more: Any) -> bulk.Asked:
    return bulk.Asked(**({"kind": "cancel", "filter": {"task": "t"}, "reason": None, "dry_run": False} | more))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "POLL_SECONDS", 0)


def test_a_server_that_is_away_for_a_while_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    away = Failure("no server was reached", Exit.NOT_REACHED)

    bulk.do_to_many(Away(BEGUN, away, away, DONE), asked(yes=True, as_json=False))

    assert capsys.readouterr().out == "2 runs are cancelled, 1 skipped.\n"


@pytest.mark.parametrize(("status", "seconds"), [(Exit.NOT_REACHED, -1.0), (Exit.NOT_ALLOWED, 60.0)])
def test_but_not_for_ever_nor_without_a_token(monkeypatch: pytest.MonkeyPatch, status: Exit, seconds: float) -> None:
    monkeypatch.setattr(bulk, "AWAY_SECONDS", seconds)

    with pytest.raises(Failure):
        bulk.do_to_many(Away(Failure("no", status)), asked(yes=True, as_json=True))


@pytest.mark.parametrize(("answer", "kinds"), [("y", [True, None]), ("n", [True])])
def test_a_person_is_asked_first(monkeypatch: pytest.MonkeyPatch, answer: str, kinds: Sequence[bool | None]) -> None:
    monkeypatch.setattr("sys.stdin", Person(f"{answer}\n"))
    server = Away(DONE)

    if answer == "y":
        bulk.do_to_many(server, asked(yes=False, as_json=False))
    else:
        with pytest.raises(typer.Abort):
            bulk.do_to_many(server, asked(yes=False, as_json=False))

    assert [said.get("dry_run") for _, said in server.posted] == kinds

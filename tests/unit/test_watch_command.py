"""`hurlbat runs watch` goes on where it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from hurlbat_app.cli import watching
from hurlbat_app.cli.failure import Exit, Failure
from hurlbat_app.cli.remote import Remote
from hurlbat_app.cli.watching import Event, events

LINES = [
    *(": nothing new", "", "id: 1", "event: created", 'data: {"kind":"created"}', ""),
    *("id: 2", "event: log", "data: {", 'data:"kind":"log"}', "", "id: 3", "event: end"),
]


def test_a_stream_is_read_event_by_event_and_what_is_cut_short_is_none() -> None:
    assert list(events(LINES)) == [Event(1, "created", {"kind": "created"}), Event(2, "log", {"kind": "log"})]


class Lossy:
    """A server that tells one more event each time, and then is lost."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.asked: list[str] = []

    @contextmanager
    def stream(self, _: str, headers: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Tell the next event, then break off or end."""
        self.asked.append(headers["last-event-id"])
        at = int(headers["last-event-id"])
        if len(self.asked) % 3 == 2:
            raise Failure("it is away", Exit.NOT_REACHED)
        yield iter([f"id: {at + 1}", f"event: {self.kinds[at]}", "data: {}", ""])
        if len(self.asked) % 3 == 0:
            raise Failure("it broke off", Exit.NOT_REACHED)


def test_a_lost_connection_is_made_again_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "AGAIN_SECONDS", 0.0)
    server: Any = Lossy(["created", "started", "completed", "end"])

    followed = list(watching._followed(server, "/runs/x/events"))

    assert [event.kind for event in followed] == ["created", "started", "completed", "end"]
    assert server.asked == ["0", "1", "1", "2", "3", "3"]


def test_a_server_that_stays_away_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(watching, "MOST_FAILURES", 3)
    for status, left, tries in ((503, Exit.NOT_REACHED, 4), (404, Exit.REFUSED, 1)):
        asked: list[Any] = []

        def answer(request: httpx.Request, status: int = status, asked: list[Any] = asked) -> httpx.Response:
            asked.append(request)
            return httpx.Response(status, json={"detail": "no", "code": "c"})

        remote = Remote("http://hurlbat.test", "a-token-of-the-tests")
        remote._http = httpx.Client(transport=httpx.MockTransport(answer))
        with pytest.raises(Failure) as failed:
            list(watching._followed(remote, "/runs/x/events"))
        assert (failed.value.status, len(asked)) == (left, tries)

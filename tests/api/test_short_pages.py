"""Where few of very many are meant, pages are short: over HTTP their cursors go on, and commands by themselves."""

from collections.abc import Mapping
from itertools import count
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from hurlbat_app.cli import paging
from hurlbat_app.cli.paging import listed, print_more
from hurlbat_app.cli.remote import Remote
from hurlbat_dispatcher import pages

pytestmark = pytest.mark.anyio


async def test_a_list_of_few_of_many_goes_on_by_its_cursors_to_the_end(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, rows in {"FIRST_LOOK": 2, "NEXT_LOOK": 3, "MOST_LOOKS": 2}.items():
        monkeypatch.setattr(pages, name, rows)
    done = (await api.post("/runs?wait=60", json={"task": "echo"})).json()
    assert done["state"] == "completed"
    later = {"runs": [{"task": "echo", "delay": 3600}] * 24}
    assert (await api.post("/runs/bulk", json=later)).status_code == 200
    found, sizes, query = [], [], {"state": "completed", "limit": "1"}
    while True:
        page = (await api.get("/runs", params=query)).json()
        found += [run["id"] for run in page["items"]]
        sizes.append(len(page["items"]))
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert found == [done["id"]]
    assert sizes[0] == 0


@pytest.mark.parametrize("kind", ["runs", "events"])
async def test_a_page_of_what_is_large_ends_early(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(pages, "MOST_BYTES", 10_000)
    monkeypatch.setattr(pages, "AT_ONCE", 3)
    made = []
    for size in (10, 4_000, 4_000, 4_000, 20_000, 20_000, 10, 10):
        large = "x" * size
        body = {"task": "echo", "input": large, "delay": 3600} if kind == "runs" else {"key": "k", "payload": large}
        made.append((await api.post(f"/{kind}", json=body)).json()["id"])
    found, query = [], {"limit": "6"}
    while True:
        page = (await api.get(f"/{kind}", params=query)).json()
        found.append([one["id"] for one in page["items"]])
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert [one for some in found for one in some] == made[::-1]
    assert [len(some) for some in found] == [2, 1, 1, 2, 2]


# -- commands ----------------------------------------------------------------------------------------------------------


class Server(Remote):
    """Answers with pages, the last one again and again."""

    def __init__(self, *pages: Mapping[str, Any]) -> None:
        self.pages = list(pages)
        self.asked: list[Mapping[str, Any] | None] = []

    def get(self, path: str, query: Mapping[str, Any] | None = None, *, timeout: float = 1) -> httpx.Response:
        """Answer with the next page."""
        assert (path, timeout) == ("/runs", 1)
        self.asked.append(query)
        return httpx.Response(200, json=self.pages.pop(0) if len(self.pages) > 1 else self.pages[0])


def _page(items: str, cursor: str | None) -> dict[str, Any]:
    return {"items": list(items), "next_cursor": cursor}


def test_a_command_goes_on_until_it_has_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(_page("", "c1"), _page("ab", "c2"), _page("c", "c3"))
    page = listed(server, "/runs", {"state": "completed", "cursor": None}, 3)
    assert page == _page("abc", "c3")
    assert server.asked == [
        {"state": "completed", "cursor": None, "limit": 3},
        {"state": "completed", "cursor": "c1", "limit": 3},
        {"state": "completed", "cursor": "c2", "limit": 1},
    ]
    print_more(page, 3)
    assert capsys.readouterr().out == "There are more: --cursor c3\n"


def test_a_command_ends_where_the_list_does(capsys: pytest.CaptureFixture[str]) -> None:
    page = listed(Server(_page("", "c1"), _page("a", None)), "/runs", {}, 3)
    assert page == _page("a", None)
    print_more(page, 3)
    assert capsys.readouterr().out == ""


def test_a_command_that_has_looked_for_long_says_how_to_go_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count(step=2)
    monkeypatch.setattr(paging, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    server = Server(_page("", "far"))
    page = listed(server, "/runs", {}, 3)
    assert (page, len(server.asked)) == (_page("", "far"), 3)
    print_more(page, 3)
    assert capsys.readouterr().out == "Very many were looked at, and not all yet. To go on: --cursor far\n"

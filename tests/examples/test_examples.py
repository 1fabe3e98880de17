"""The examples, each as its README starts it: the app under uvicorn beside a real server, where it registers itself."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.stage import SECRET, Api, Object, assert_no_faults, until
from tests.support.ports import free_port
from tests.support.processes import ROOT, TOKEN, Processes, Server
from tests.support.stands import UNHURRIED

EXAMPLES = sorted(path.parent.name for path in (ROOT / "examples").glob("*/README.md"))
LIMIT, SECONDS = 10, 10.0
WINDOW = 1.0
"""Seconds in which the service takes so many calls: a call may come later than its run has started."""


@dataclass(frozen=True)
class Shown:
    """An example that runs, and the server that it is registered with."""

    app: Server
    api: Api

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(method, f"{self.app.url}{path}", json=body, timeout=60, trust_env=False)
        assert answer.is_success, answer.text
        return answer.json()

    def states(self, run: Object) -> dict[str, str]:
        return {node["name"]: node["state"] for node in run["nodes"]}


@pytest.fixture
def start(processes: Processes, made_sqlite_url: str) -> Iterator[Any]:
    """Starts an example beside a server; the server's log must hold no fault at the end."""
    server = processes.serve(made_sqlite_url, **UNHURRIED)
    with ExitStack() as stack:
        api = stack.enter_context(Api(server.url))

        def begin(name: str, **env: str) -> Shown:
            port = free_port()
            settings = {
                "HURLBAT_URL": server.url,
                "HURLBAT_TOKEN": TOKEN,
                "HURLBAT_SIGNING_SECRET": SECRET,
                "HURLBAT_PUBLIC_URL": f"http://127.0.0.1:{port}/hurlbat/",
                "HURLBAT_WORKER": name,
            }
            target: str = f"examples.{name}.main:app"
            given: dict[str, Any] = settings | env
            app = processes.app(target, port=port, **given)
            until(lambda: api.send("GET", f"/workers/{name}").json().get("state") == "ready", "registration")
            return Shown(app, api)

        yield begin
    assert_no_faults(server)


def test_an_order_is_shipped_and_a_declined_one_gives_back_what_it_had_reserved(start: Any) -> None:
    shop: Shown = start("orders")

    good, again = (shop.ask("POST", "/orders", {"id": "o-1", "count": 2})["run"] for _ in range(2))
    bad = shop.ask("POST", "/orders", {"id": "o-2", "card": "4000 0000 0000 0002"})["run"]
    greedy = shop.ask("POST", "/orders", {"id": "o-3", "count": 9})["run"]

    shipped, declined, sold_out = (shop.api.ended(run_id) for run_id in (good, bad, greedy))
    assert again == good
    assert shipped["output"] == {"ship": "2 x mug for o-1 are on their way"}
    assert shop.states(shipped)["charge"] == "completed"
    assert declined["error"]["message"].endswith("the card that ends in 0002 was declined")
    assert shop.states(declined) == {
        "reserve": "completed",
        "charge": "failed",
        "ship": "cancelled",
        "release": "completed",
    }
    assert (sold_out["error"]["node"], shop.states(sold_out)["charge"]) == ("reserve", "cancelled")
    assert shop.ask("GET", "/stock") == {"mug": 3, "shirt": 2}
    assert shop.ask("GET", f"/orders/{good}")["state"] == "completed"


def test_of_many_orders_no_more_are_shipped_than_there_are_goods(start: Any) -> None:
    shop: Shown = start("orders")
    with ThreadPoolExecutor(8) as pool:
        orders = [{"id": f"o-{n}", "item": "shirt"} for n in range(6)]
        ids = [answer["run"] for answer in pool.map(lambda order: shop.ask("POST", "/orders", order), orders)]

    states = [shop.api.ended(run_id, 120)["state"] for run_id in ids]

    assert (states.count("completed"), states.count("failed")) == (2, 4)
    assert shop.ask("GET", "/stock")["shirt"] == 0


def test_a_document_is_read_page_by_page_and_put_together_again(start: Any) -> None:
    archive: Shown = start("documents")
    pages = ["a duck and a duck" if n != 17 else "a sm#dge" for n in range(1, 41)]

    report = archive.ask("POST", "/documents", {"title": "Ducks", "text": "\f".join(pages)})

    assert report == {
        "title": "DUCKS (40 pages)",
        "pages": 40,
        "words": 39 * 5,
        "unreadable": [17],
        "most_common": "a",
    }
    children = list(archive.api.listed(task="read_page"))
    assert sorted(child["child_key"] for child in children) == sorted(f"page:{n}" for n in range(40))
    [run] = archive.api.listed(task="document")
    assert {child["root"] for child in children} == {run["id"]}


def test_the_service_refuses_no_call(start: Any, processes: Processes) -> None:
    limits: dict[str, Any] = {"WEATHER_LIMIT": str(LIMIT)}
    service = processes.app("examples.weather.service:app", **limits, WEATHER_WINDOW=str(WINDOW))
    agency: Shown = start("weather", **limits, WEATHER_SECONDS=str(SECONDS), WEATHER_URL=service.url)
    cities = [f"city-{n}" for n in range(LIMIT + LIMIT // 2)]

    ids = agency.ask("POST", "/trips", cities)["runs"]
    runs = [agency.api.ended(run_id, 120) for run_id in ids]

    assert {run["state"] for run in runs} == {"completed"}
    counted = httpx.get(f"{service.url}/counted", timeout=60, trust_env=False).json()
    assert counted == {"answered": len(cities), "refused": 0}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_readme_starts_what_is_there(name: str) -> None:
    text = (ROOT / "examples" / name / "README.md").read_text()
    started = re.findall(r"uvicorn (examples\.[\w.]+):app", text)

    assert f"examples.{name}.main" in started
    assert [module for module in started if not Path(ROOT, *module.split(".")).with_suffix(".py").exists()] == []

"""`/docs`: the contract as a page that loads nothing else."""

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # it has no stubs
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from hurlbat_app.api.contract import contract
from hurlbat_app.reference import reference
from hurlbat_app.reference.document import Document
from hurlbat_app.reference.page import render
from hurlbat_app.reference.samples import Samples
from tests.api.contract import METHODS

pytestmark = pytest.mark.anyio

VOID = frozenset({"meta", "input", "link", "br", "hr"})
PHRASING = frozenset({"p", "h1", "h2", "h3", "h4", "summary", "label", "dt", "code", "span", "a", "strong", "em"})
BLOCKS = frozenset({"p", "dl", "ul", "ol", "div", "pre", "section", "article", "details", "h1", "h2", "h3", "h4"})
PARENTS = {"li": {"ul", "ol"}, "dt": {"dl"}, "dd": {"dl"}, "summary": {"details"}}


class Read(HTMLParser):
    """Reads a page strictly: what is opened is closed, in its order, where it may stand."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.opened: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.words: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert self.opened == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert self.opened or tag == "html", f"<{tag}> outside of the document"
        assert tag not in ("script", "iframe", "img", "object", "embed", "base", "form"), tag
        inside = self.opened[-1] if self.opened else None
        assert not (inside in PHRASING and tag in BLOCKS), f"<{tag}> in <{inside}> at {self.getpos()}"
        if tag in PARENTS:
            assert inside in PARENTS[tag], f"<{tag}> in <{inside}> at {self.getpos()}"
        for name, value in attributes:
            assert name not in ("style", "src", "srcset", "action", "ping"), name
            assert not name.startswith("on"), name
            if name == "id":
                self.ids[value or ""] += 1
            if name in ("href", "for", "aria-labelledby"):
                self.links.append(value if name == "href" and value else f"#{value}")
        if tag not in VOID:
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.opened and self.opened[-1] == "style":
            self.style += data
        else:
            self.words.append(data)


@pytest.fixture(scope="module")
def page() -> Read:
    return Read(reference().html.decode())


def test_what_is_linked_is_on_the_page_and_nothing_is_anywhere_else(page: Read) -> None:
    assert [link for link in page.links if not link.startswith("#")] == []
    assert {link[1:] for link in page.links} - page.ids.keys() == set()
    assert [one for one, count in page.ids.items() if count > 1] == []
    assert re.search(r"url\(|@import|https?:", page.style) is None


def test_every_operation_message_component_and_member_is_on_the_page(page: Read) -> None:
    names = {word.strip() for word in page.words}
    for part in ("paths", "webhooks"):
        for path, item in contract()[part].items():
            for method in METHODS & item.keys():
                assert item[method]["operationId"] in page.ids
                assert item[method]["summary"] in names
                assert part == "webhooks" or path in names
                assert set(item[method]["responses"]) <= names
    components = contract()["components"]
    assert {f"schema-{name}" for name in components["schemas"]} <= page.ids.keys()
    assert {f"answer-{name}" for name in components["responses"]} <= page.ids.keys()
    assert {f"auth-{name}" for name in components["securitySchemes"]} <= page.ids.keys()
    assert {one["name"] for one in components["parameters"].values()} <= names
    members = {name for schema in components["schemas"].values() for name in schema.get("properties", {})}
    assert members <= names


def test_every_example_of_the_contract_is_on_the_page(page: Read) -> None:
    examples = contract()["components"]["examples"]
    shown = {word for word in page.words if word.startswith(("{", "["))}

    for name, example in examples.items():
        assert json.dumps(example["value"], indent=2, ensure_ascii=False) in shown, name


def test_an_example_that_is_made_up_is_what_its_schema_allows() -> None:
    samples = Samples(Document(contract()))
    registry: Registry[Any] = Registry().with_resource("urn:contract", DRAFT202012.create_resource(contract()))

    for name, schema in contract()["components"]["schemas"].items():
        validator = Draft202012Validator({"$ref": f"urn:contract#/components/schemas/{name}"}, registry=registry)
        wrong = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(samples.of(schema))]
        assert wrong == [], (name, samples.of(schema))


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a **word** <b onclick=x>", "[x](javascript:alert(1))"])
def test_a_description_brings_no_html_of_its_own(text: str) -> None:
    described: Mapping[str, Any] = {
        "info": {"title": text, "version": "1", "summary": text, "description": text},
        "paths": {
            f"/{text}": {"get": {"operationId": "x", "summary": text, "description": text, "responses": {}}},
        },
    }

    Read(render(described).html.decode())


async def test_the_page_is_open_and_lets_a_browser_load_nothing_but_its_own_style(
    stranger: httpx.AsyncClient, page: Read
) -> None:
    answer = await stranger.get("/docs")

    assert (answer.status_code, answer.content) == (200, reference().html)
    digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    policy = dict(one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("identity", None),
        ("gzip;q=0", None),
        ("br, gzip; q=0.0, zstd", None),
    ],
)
async def test_the_page_is_compressed_for_who_takes_it(
    stranger: httpx.AsyncClient, accepted: str, encoding: str | None
) -> None:
    answer = await stranger.get("/docs", headers={"accept-encoding": accepted})

    assert (answer.headers.get("content-encoding"), answer.content) == (encoding, reference().html)
    assert answer.headers["vary"] == "accept-encoding"


async def test_the_page_takes_no_parameters(stranger: httpx.AsyncClient) -> None:
    assert (await stranger.get("/docs?theme=dark")).status_code == 422

"""The page: everything in the contract, in its order, rendered once."""

import base64
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from hurlbat_app.api.contract import contract
from hurlbat_app.reference.document import Document, Node, anchor, line, link, prose
from hurlbat_app.reference.samples import Samples, written
from hurlbat_app.reference.shapes import Shape, Shapes

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_PLACES = ("path", "query", "header", "cookie")


@dataclass(frozen=True, slots=True)
class Page:
    """The page, as it is and compressed, and the policy that lets a browser load nothing else with it."""

    html: bytes
    gzipped: bytes
    policy: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter or a header."""

    name: str
    place: str
    required: bool
    shape: Shape


@dataclass(frozen=True, slots=True)
class Content:
    """A body: its media type, shape and examples. `inside` is the shape of what `shape` only links to."""

    media: str
    shape: Shape | None
    inside: Shape | None
    examples: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response. One that several operations share has a place of its own, and is linked."""

    status: str
    description: Markup
    headers: Sequence[Parameter]
    contents: Sequence[Content]
    shared: Markup | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """An operation, or a message of the push protocol."""

    id: str
    method: str
    path: str
    summary: str
    description: Markup
    doors: Sequence[Markup]
    parameters: Sequence[Parameter]
    body: Sequence[Content]
    body_required: bool
    body_description: Markup
    answers: Sequence[Answer]
    refusals: Sequence[Answer]
    deprecated: bool


@dataclass(frozen=True, slots=True)
class Group:
    """A tag and its calls."""

    id: str
    name: str
    description: Markup
    calls: Sequence[Call]


@dataclass(frozen=True, slots=True)
class Named:
    """A component with a place of its own."""

    id: str
    name: str
    shape: Shape
    examples: Sequence[tuple[str, str]] = ()


@cache
def reference() -> Page:
    """Return the reference of this server's contract."""
    return render(contract())


def render(described: Mapping[str, Any]) -> Page:
    """Return the reference of a contract, an OpenAPI 3.1 document."""
    loader = PackageLoader("hurlbat_app.reference")
    environment = Environment(
        loader=loader, autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = environment.get_template("style.css").render()
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    text = environment.get_template("page.html").render(style=Markup(style), **_Reader(described).read())
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    html = text.encode()
    return Page(html, gzip.compress(html, mtime=0), policy)


class _Reader:
    """Makes what the template shows of a contract."""

    def __init__(self, described: Mapping[str, Any]) -> None:
        self._contract = described
        self._document = Document(described)
        self._shapes, self._samples = Shapes(self._document), Samples(self._document)

    def read(self) -> dict[str, Any]:
        """Return what the template names."""
        info = self._contract["info"]
        return {
            "info": info,
            "introduction": prose(info.get("description")),
            "servers": [(one["url"], line(one.get("description"))) for one in self._contract.get("servers", ())],
            "groups": self._groups("paths"),
            "messages": self._groups("webhooks"),
            "doors": [
                (anchor("securitySchemes", name), name, _scheme(one), prose(one.get("description")))
                for name, one in self._document.components("securitySchemes").items()
            ],
            "shared": [
                (anchor("responses", name), name, self._answer("", one))
                for name, one in self._document.components("responses").items()
            ],
            "schemas": [self._schema(name, one) for name, one in self._document.components("schemas").items()],
        }

    def _groups(self, part: str) -> list[Group]:
        calls: dict[str, list[Call]] = {}
        for path, method, operation, item in self._document.calls(part):
            tag = operation.get("tags", ["other"])[0]
            calls.setdefault(tag, []).append(self._call(path, method, operation, item))
        told = {one["name"]: one.get("description") for one in self._contract.get("tags", ())}
        order = [name for name in told if name in calls] + [name for name in calls if name not in told]
        return [Group(anchor("tags", name), name, prose(told.get(name)), calls[name]) for name in order]

    def _call(self, path: str, method: str, operation: Node, item: Node) -> Call:
        body = self._document.follow(operation.get("requestBody", {})).node
        security = operation.get("security", self._contract.get("security", ()))
        answers = [self._answer(status, one) for status, one in operation["responses"].items()]
        parameters = [self._parameter(one) for one in (*item.get("parameters", ()), *operation.get("parameters", ()))]
        return Call(
            id=anchor("operations", operation["operationId"]),
            method=method.upper(),
            path=path,
            summary=operation.get("summary", ""),
            description=prose(operation.get("description")),
            doors=[link("securitySchemes", name) for one in security for name in one],
            parameters=sorted(parameters, key=lambda one: _PLACES.index(one.place)),
            body=self._contents(body),
            body_required=body.get("required", False),
            body_description=prose(body.get("description")),
            answers=[one for one in answers if not _is_refusal(one)],
            refusals=[one for one in answers if _is_refusal(one)],
            deprecated=operation.get("deprecated", False),
        )

    def _parameter(self, node: Node) -> Parameter:
        one = self._document.follow(node).node
        return self._named(one["name"], one["in"], one)

    def _named(self, name: str, place: str, one: Node) -> Parameter:
        schema = dict(one.get("schema", {}))
        if "description" in one:
            schema["description"] = one["description"]
        elif "$ref" in schema:
            schema["description"] = self._document.follow(schema).node.get("description")
        return Parameter(name, place, one.get("required", False), self._shapes.of(schema))

    def _answer(self, status: str, node: Node) -> Answer:
        found = self._document.follow(node)
        headers = [
            self._named(name, "header", self._document.follow(one).node)
            for name, one in found.node.get("headers", {}).items()
        ]
        shared = link("responses", found.name) if found.kind == "responses" else None
        return Answer(status, prose(found.node.get("description")), headers, self._contents(found.node), shared)

    def _contents(self, node: Node) -> list[Content]:
        return [self._content(media, one) for media, one in node.get("content", {}).items()]

    def _content(self, media: str, one: Node) -> Content:
        schema = one.get("schema")
        if not schema:
            return Content(media, None, None, self._samples.shown(one))
        inside = self._shapes.of(self._document.follow(schema).node) if "$ref" in schema else None
        return Content(media, self._shapes.of(schema), inside, self._samples.shown(one))

    def _schema(self, name: str, schema: Node) -> Named:
        samples = [] if schema.get("enum") else [("example", written(self._samples.of(schema)))]
        return Named(anchor("schemas", name), name, self._shapes.of(schema), samples)


def _is_refusal(answer: Answer) -> bool:
    return answer.shared is not None and not answer.status.startswith("2")


def _scheme(one: Node) -> str:
    if one["type"] == "http":
        return f"HTTP {one['scheme']}: Authorization: {one['scheme'].capitalize()} …"
    return f"{one['in']} {one['name']}"

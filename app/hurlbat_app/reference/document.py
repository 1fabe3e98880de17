"""Find one's way in an OpenAPI document: references, names, anchors, and descriptions as HTML."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_markdown: Final = MarkdownIt("commonmark", {"html": False}).enable("table")

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference leads to: the thing, and the kind and name of its component, if it is one."""

    node: Node
    kind: str = ""
    name: str = ""

    @property
    def anchor(self) -> str:
        """The id of its place on the page."""
        return anchor(self.kind, self.name)


class Document:
    """An OpenAPI document."""

    def __init__(self, contract: Mapping[str, Any]) -> None:
        self.contract = contract

    def follow(self, node: Node) -> Found:
        """Return what a node refers to, with what stands beside the reference; or the node itself."""
        kind = name = ""
        while "$ref" in node:
            steps = node["$ref"].removeprefix("#/").split("/")
            beside = {key: value for key, value in node.items() if key != "$ref"}
            target: Any = self.contract
            for step in steps:
                target = target[step.replace("~1", "/").replace("~0", "~")]
            if not name:
                kind, name = steps[-2], steps[-1]
            node = {**target, **beside}
        return Found(node, kind, name)

    def calls(self, part: str) -> Iterator[tuple[str, str, Node, Node]]:
        """Go through `paths` or `webhooks`: path or name, method, the operation, and the item that it stands in."""
        for path, item in self.contract.get(part, {}).items():
            for method in item:
                if method in METHODS:
                    yield path, method, item[method], item

    def components(self, kind: str) -> Mapping[str, Node]:
        """Return the components of a kind."""
        found: Mapping[str, Node] = self.contract.get("components", {}).get(kind, {})
        return found


def anchor(kind: str, name: str) -> str:
    """Return the id of a component, a tag or an operation on the page."""
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return f"{_KINDS[kind]}{plain}"


_KINDS: Final = {
    "operations": "",
    "tags": "tag-",
    "schemas": "schema-",
    "responses": "answer-",
    "securitySchemes": "auth-",
    "parameters": "parameter-",
    "headers": "header-",
}


def prose(text: str | None) -> Markup:
    """Return a description, which is CommonMark, as HTML. HTML within it is shown as text."""
    return Markup(_markdown.render(text)) if text else Markup()


def line(text: str | None) -> Markup:
    """Return a description of one line as HTML without a paragraph around it."""
    return Markup(_markdown.renderInline(text)) if text else Markup()


def code(value: Any) -> Markup:
    """Return a JSON value as code."""
    return Markup("<code>{}</code>").format(json.dumps(value, ensure_ascii=False))


def link(kind: str, name: str) -> Markup:
    """Return a link to the place of a component."""
    return Markup('<a href="#{}">{}</a>').format(anchor(kind, name), escape(name))

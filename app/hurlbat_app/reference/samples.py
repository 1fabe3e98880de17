"""Make an example of a schema that brings none: its own examples and defaults first, else the plainest value."""

import json
from collections.abc import Mapping
from typing import Any, Final

from hurlbat_app.reference.document import Document, Node

_FORMATS: Final = {
    "uuid": "0199a3c0-7d54-7b3e-8a51-5b1c7d2f9e10",
    "date-time": "2027-01-31T12:00:00Z",
}
_PLAIN: Final[Mapping[str, Any]] = {"string": "text", "boolean": True, "null": None, "integer": 1, "number": 1}
_DEEP: Final = 12


class Samples:
    """Makes examples by the schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def shown(self, content: Node) -> list[tuple[str, str]]:
        """Return the examples of a body: what each is called, and its text."""
        named = content.get("examples", {})
        found = [(name, self._document.follow(example).node) for name, example in named.items()]
        if found:
            return [(str(example.get("summary", name)), written(example["value"])) for name, example in found]
        if "example" in content:
            return [("example", written(content["example"]))]
        schema = content.get("schema")
        return [("example", written(self.of(schema)))] if schema else []

    def of(self, schema: Node, depth: int = 0) -> Any:
        """Return a value that the schema allows."""
        node = self._document.follow(schema).node
        for key in ("const", "default"):
            if node.get(key) is not None:
                return node[key]
        if node.get("examples"):
            return node["examples"][0]
        if node.get("enum"):
            return node["enum"][0]
        alternatives = node.get("oneOf") or node.get("anyOf")
        if alternatives and "properties" not in node:
            return self.of(alternatives[0], depth + 1)
        kinds = node.get("type", "object" if "properties" in node else "null")
        kind = kinds if isinstance(kinds, str) else kinds[0]
        if kind == "object":
            return self._object(node, depth)
        if kind == "array":
            few = depth < _DEEP and "items" in node and (node.get("minItems") or depth < 2)
            return [self.of(node["items"], depth + 1)] if few else []
        if kind == "string":
            return _FORMATS.get(node.get("format", ""), "a" * max(0, node.get("minLength", 0) - 4) + _PLAIN["string"])
        if kind in ("integer", "number"):
            return node["minimum"] if node.get("minimum", 0) > 1 else min(1, node.get("maximum", 1))
        return _PLAIN[kind]

    def _object(self, node: Node, depth: int) -> dict[str, Any]:
        members = node.get("properties", {})
        names = set(node.get("required", ()))
        for alternative in (*(node.get("anyOf") or node.get("oneOf") or ())[:1], node.get("else", {})):
            names |= set(alternative.get("required", ()))
        names |= set(list(members)[: max(0, node.get("minProperties", 0) - len(names))])
        return {name: self.of(inner, depth + 1) for name, inner in members.items() if name in names}


def written(value: Any) -> str:
    """Return an example as it is printed; text stands as it is."""
    return value.rstrip("\n") if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)

"""Say a JSON Schema in words: its type with links to what it names, its bounds, its members."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from hurlbat_app.reference.document import Document, Node, code, link, prose

_OBJECT: Final = frozenset({"properties", "additionalProperties", "propertyNames"})
_BOUNDS: Final = {
    "minimum": "at least {}",
    "exclusiveMinimum": "more than {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
}
_SIZES: Final = {"Length": "characters", "Items": "items", "Properties": "members"}
_OR: Final = Markup(" or ")


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema as the page shows it. `cases` are shapes of which it is one."""

    type: Markup
    description: Markup
    rules: tuple[Markup, ...] = ()
    members: "tuple[Member, ...]" = ()
    cases: "tuple[Shape, ...]" = ()

    @property
    def has_inside(self) -> bool:
        """Whether there is more to show than one line."""
        return bool(self.members or self.cases)


@dataclass(frozen=True, slots=True)
class Member:
    """A member of an object."""

    name: str
    required: bool
    shape: Shape


class Shapes:
    """Makes shapes of the schemas of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def of(self, schema: Node) -> Shape:
        """Return the shape of a schema. One that is a component of its own is linked, not shown again."""
        description = prose(schema.get("description"))
        if "$ref" in schema:
            return Shape(self._type(schema), description, self._rules(schema))
        inner = self._inside(schema)
        cases: tuple[Shape, ...] = ()
        alternatives = [one for one in _alternatives(inner) if one != {"type": "null"}]
        if any(self._has_members(one) for one in alternatives):
            cases = tuple(self.of(one) for one in alternatives if "type" in one or "$ref" in one)
        return Shape(self._type(schema), description, self._rules(schema), self._members(inner), cases)

    def _inside(self, schema: Node) -> Node:
        """Return the schema whose members are shown: that of the items of a list, of the values of a map."""
        while "$ref" not in schema:
            if "items" in schema:
                schema = schema["items"]
            elif isinstance(schema.get("additionalProperties"), dict) and "properties" not in schema:
                schema = schema["additionalProperties"]
            else:
                break
        return schema

    def _has_members(self, schema: Node) -> bool:
        inner = self._inside(schema)
        return "$ref" not in inner and bool(inner.get("properties"))

    def _members(self, schema: Node) -> tuple[Member, ...]:
        if "$ref" in schema:
            return ()
        required = frozenset(schema.get("required", ()))
        return tuple(
            Member(name, name in required, self.of(inner)) for name, inner in schema.get("properties", {}).items()
        )

    def _type(self, schema: Node) -> Markup:
        if "$ref" in schema:
            found = self._document.follow(schema)
            return link(found.kind, found.name)
        if "const" in schema:
            return code(schema["const"])
        if "enum" in schema:
            return Markup(" | ").join(code(value) for value in schema["enum"])
        alternatives = _alternatives(schema)
        if alternatives and "properties" not in schema:
            words = [self._type(one) for one in alternatives if "type" in one or "$ref" in one or "const" in one]
            return _OR.join(words) if words else Markup("any JSON")
        kinds = schema.get("type")
        if kinds is None:
            return Markup("object") if _OBJECT & schema.keys() else Markup("any JSON")
        return _OR.join(self._kind(kind, schema) for kind in ([kinds] if isinstance(kinds, str) else kinds))

    def _kind(self, kind: str, schema: Node) -> Markup:
        if kind == "array" and "items" in schema:
            return Markup("list of ") + self._type(schema["items"])
        values = schema.get("additionalProperties")
        if kind == "object" and isinstance(values, dict) and "properties" not in schema:
            return Markup("map to ") + self._type(values)
        if kind == "string" and "format" in schema:
            return Markup("string ({})").format(schema["format"])
        return Markup(kind)

    def _rules(self, schema: Node) -> tuple[Markup, ...]:
        found = [Markup(words).format(f"{schema[key]:,}") for key, words in _BOUNDS.items() if key in schema]
        found += [Markup(size) for size in _sizes(schema)]
        if "pattern" in schema:
            found.append(Markup("matches <code>{}</code>").format(schema["pattern"]))
        if schema.get("uniqueItems"):
            found.append(Markup("no item twice"))
        if schema.get("additionalProperties") is False and "properties" in schema:
            found.append(Markup("no other members"))
        if "default" in schema:
            found.append(Markup("default ") + code(schema["default"]))
        found += [Markup("e.g. ") + code(value) for value in schema.get("examples", ())[:1] if _is_short(value)]
        return tuple(found)


def _sizes(schema: Node) -> Iterator[str]:
    for key, what in _SIZES.items():
        least, most = schema.get(f"min{key}", 0), schema.get(f"max{key}")
        if most is None:
            if least:
                yield f"at least {least:,} {what if least > 1 else what[:-1]}"
        elif least == most:
            yield f"{most:,} {what}"
        else:
            yield f"{least:,} to {most:,} {what}" if least else f"at most {most:,} {what}"


def _alternatives(schema: Node) -> tuple[Node, ...]:
    found: Iterable[Any] = schema.get("oneOf") or schema.get("anyOf") or ()
    return tuple(found)


def _is_short(value: Any) -> bool:
    return len(code(value)) < 100

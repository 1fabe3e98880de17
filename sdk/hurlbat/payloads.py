"""Turn inputs and outputs into JSON text and back, by their declared types.

Typed values follow their pydantic type; untyped ones must be JSON as it is: no NaN, no infinities, no lone surrogates.
What is plain goes without pydantic, which makes no difference but that it need not be loaded.
"""

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from hurlbat import jsontext
from hurlbat.errors import PayloadError
from hurlbat.plain import NotPlain, plain_of, text_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class Form:
    """How the values of a declared type are JSON. Raises `TaskInvalid` for what JSON cannot hold; `whose` begins it."""

    def __init__(self, declared: Any, whose: str) -> None:
        self.declared = declared
        self.plain = plain_of(declared)
        self._whose = whose
        if self.plain is None:
            _ = self.adapter

    @cached_property
    def adapter(self) -> "TypeAdapter[Any]":
        """Reads and writes what is not plain."""
        from hurlbat.adapters import adapter_of

        return adapter_of(self.declared, self._whose)

    def name(self, mode: str) -> str:
        """Tell it from others: the same in every process, and another where its schema of this mode is another."""
        return json.dumps(self.schema(mode)) if self.plain is None else self.plain.name

    def schema(self, mode: str) -> dict[str, Any] | None:
        """Return its JSON Schema for the manifest, or None where it has none."""
        from hurlbat.adapters import schema_of

        return schema_of(self.adapter, mode)

    def read(self, value: Any, *, what: str = "input") -> Any:
        """Return a JSON value as the type has it. Raises `PayloadError` with the fields that were refused."""
        if self.plain is not None:
            try:
                return self.plain.read(value)
            except NotPlain:
                pass
        from hurlbat.adapters import dumped, loaded

        # as JSON and not as a Python value: strict models read a date from a string only so
        return loaded(dumped(value, None), self.adapter, what)


def encode(value: Any, form: Form | None = None, *, what: str, limit: int | None = None) -> str:
    """Return the JSON text of a value, of at most `limit` bytes. `what` names it in the `PayloadError` otherwise."""
    if value is None:
        return "null"
    data = _data(value, form, what)
    if limit is not None and len(data) > limit:
        raise PayloadError(f"the {what} has {len(data):,} bytes, more than {limit:,}")
    if b"NaN" in data or b"Infinity" in data or data.count(b"[") + data.count(b"{") > jsontext.MAX_DEPTH:
        try:
            jsontext.parse(data)
        except jsontext.JsonTextError as error:
            raise PayloadError(f"the {what} cannot be JSON: {error.message}") from error
    return data.decode()


def _data(value: Any, form: Form | None, what: str) -> bytes:
    plain = None if form is None else form.plain
    if form is None or plain is not None:
        try:
            return text_of(value, plain).encode()
        except (NotPlain, UnicodeEncodeError):  # the latter for half of a surrogate pair
            pass
    from hurlbat.adapters import dumped

    try:
        return dumped(value, None if form is None else form.adapter)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise PayloadError(f"the {what} cannot be JSON: {error}") from error


def decode(text: str | bytes, form: Form | None = None, *, what: str = "input") -> Any:
    """Return the value of JSON text as its type has it. Raises `PayloadError` with the fields that were refused."""
    if form is None:
        return jsontext.parse(text)
    if form.plain is not None:
        try:
            return form.plain.read(jsontext.parse(text))
        except (NotPlain, jsontext.JsonTextError):
            pass
    from hurlbat.adapters import loaded

    return loaded(text, form.adapter, what)


def printable(text: str) -> str:
    """Return the text with lone surrogates replaced, so that every JSON reader takes it."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()

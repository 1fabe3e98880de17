"""Read the body of a webhook that was verified: JSON, or a form."""

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from hurlbat.jsontext import JsonTextError, parse
from hurlbat_dispatcher.errors import Invalid, UnsupportedMedia

MAX_FIELDS: Final = 1_000
"""Fields of a form."""
FORM: Final = "application/x-www-form-urlencoded"
PAYLOAD: Final = "payload"
"""The field of a form in which GitHub and Slack send JSON."""

_SHOWN: Final = 64


class Body(NamedTuple):
    """A body as JSON: the value, and its text, which is the very one that came where that was JSON."""

    value: Any
    text: str


def read_body(headers: Mapping[str, str], body: bytes, *, payload_is_json: bool = False) -> Body:
    """Return a body as JSON; an empty one is `{}`. Raises `Invalid`, `UnsupportedMedia`.

    A form is an object of texts, and of lists of texts for fields that come more than once. With `payload_is_json` its
    field `payload` is JSON. What is called a form and begins as JSON does, as no form can, is JSON: many tools call
    all that they send so.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMedia("encoding_unsupported", "send the body without Content-Encoding")
    if not body:
        return Body({}, "{}")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM and not body.lstrip().startswith((b"{", b"[")):
        return _form(body, payload_is_json)
    if kind in ("", FORM, "application/json", "text/json") or (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        return _json(body)
    raise UnsupportedMedia("media_unsupported", f"send JSON (application/json) or a form ({FORM}), not {kind[:_SHOWN]}")


def _json(body: bytes) -> Body:
    try:
        text = body.decode()
        return Body(parse(text), text.strip(" \t\r\n"))
    except UnicodeDecodeError as error:
        raise _bad_json("the text is not UTF-8", error.start) from None
    except JsonTextError as error:
        raise _bad_json(error.message, error.position) from error


def _form(body: bytes, payload_is_json: bool) -> Body:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Invalid("form_invalid", f"the form is not percent-encoded UTF-8 of at most {MAX_FIELDS} fields") from None
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name not in found:
            found[name] = text
        elif isinstance(found[name], list):
            found[name].append(text)
        else:
            found[name] = [found[name], text]
    if payload_is_json and isinstance(found.get(PAYLOAD), str):
        try:
            found[PAYLOAD] = parse(found[PAYLOAD])
        except JsonTextError as error:
            raise Invalid(
                "json_invalid",
                f"the field payload of the form: {error.message}, at character {error.position}",
                field=PAYLOAD,
                position=error.position,
            ) from error
    return Body(found, json.dumps(found, ensure_ascii=False, separators=(",", ":")))


def _bad_json(sentence: str, position: int) -> Invalid:
    return Invalid("json_invalid", f"{sentence}, at character {position}", position=position)

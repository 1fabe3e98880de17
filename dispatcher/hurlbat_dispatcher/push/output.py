"""Makes a run's output of whatever a plain worker answers."""

import json

from hurlbat.jsontext import JsonTextError, parse


def plain_output(body: bytes) -> str:
    """Return a body as raw JSON: JSON as it came, other text as a string, nothing as null."""
    text = body.decode("utf-8", "replace").strip()
    if not text:
        return "null"
    try:
        parse(text)
    except JsonTextError:
        return json.dumps(text, ensure_ascii=False)
    return text

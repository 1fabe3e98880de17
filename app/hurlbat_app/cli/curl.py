"""Make a curl command of an attempt: the same message, for another run, signed now.

The shell must not see into it: arguments are quoted, and the body stands in a here-document of ASCII JSON on one line,
which nothing expands. Its newline is signed as well.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from hurlbat.errors import ConfigError
from hurlbat.signing import HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, TOLERANCE_SECONDS, key_id, sign
from hurlbat.wire import HEADER_KEY_IDS

HIDDEN: Final = "…"
LEASE_TOKEN: Final = "not-a-lease-token"
"""In the place of the token, so that no server takes a report for the true run."""
_KEPT: Final = ("content-type", "accept", "accept-encoding", "user-agent")
_END: Final = "HURLBAT"


@dataclass(frozen=True, slots=True)
class Curl:
    """A request that is ready to be sent."""

    url: str
    headers: Mapping[str, str]
    body: str = field(repr=False)
    run_id: str
    hidden: tuple[str, ...]
    """Names of the headers whose values are not known here."""
    notes: tuple[str, ...]

    def command(self) -> str:
        """Return it for a shell, with what is to be known of it in comments before it."""
        words = ["curl -sS -i -N --globoff --url " + shlex.quote(self.url)]
        words += ["  -H " + shlex.quote(f"{name}: {value}") for name, value in self.headers.items()]
        words.append(f"  --data-binary @- <<'{_END}'")
        comments = "".join(f"# {note}\n" for note in self.notes)
        return comments + " \\\n".join(words) + f"\n{self.body}{_END}"

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "run_id": self.run_id,
            "url": self.url,
            "headers": dict(self.headers),
            "body": self.body,
            "hidden_headers": list(self.hidden),
            "command": self.command(),
        }


def curl_of(attempt: Mapping[str, Any], keys: Sequence[str], now: int, worker_url: str | None = None) -> Curl:
    """Return the request of an attempt, as the API shows it, signed by these keys now (seconds since the epoch).

    Raises `ConfigError` for a `worker_url` that is none.
    """
    sent: Mapping[str, Any] = attempt["request"]
    url = _url(worker_url or sent["url"])
    run_id = str(uuid4())
    plain = sent["headers"].get(HEADER_ID) == attempt["run_id"]
    message_id = run_id if plain else str(uuid4())
    body = _body(sent["body"], attempt["run_id"], run_id, url, now)
    names = [key_id(key) for key in keys]
    headers = {name: sent["headers"][name] for name in _KEPT if sent["headers"].get(name, HIDDEN) != HIDDEN} | {
        HEADER_ID: message_id,
        HEADER_TIMESTAMP: str(now),
        HEADER_SIGNATURE: sign(keys, message_id, now, body.encode()),
        HEADER_KEY_IDS: " ".join(names),
    }
    hidden = tuple(sorted(one for one, value in sent["headers"].items() if value == HIDDEN and one not in headers))
    return Curl(url, headers, body, run_id, hidden, _notes(attempt, run_id, now, names, hidden))


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isascii() or not text.isprintable():
        raise ConfigError(f"--worker-url {text!r} is not a URL with http:// or https:// and a host")
    return text


def _body(message: Mapping[str, Any], true_id: str, run_id: str, url: str, now: int) -> str:
    """Return the message for another run, with the newline that ends a here-document."""
    runs = [
        run
        | {
            "run_id": run_id,
            "lease_token": LEASE_TOKEN,
            "report_url": str(run.get("report_url", "")).replace(true_id, run_id),
        }
        for run in message["data"]["runs"]
        if run["run_id"] == true_id
    ]
    timestamp = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%S}.000Z"
    made = dict(message) | {"timestamp": timestamp, "data": message["data"] | {"url": url, "runs": runs}}
    return json.dumps(made, separators=(",", ":")) + "\n"


def _notes(
    attempt: Mapping[str, Any], run_id: str, now: int, names: Sequence[str], hidden: Sequence[str]
) -> tuple[str, ...]:
    until = f"{datetime.fromtimestamp(now + TOLERANCE_SECONDS, UTC):%Y-%m-%dT%H:%M:%SZ}"
    notes = [
        f"Attempt {attempt['attempt']} of run {attempt['run_id']}, as run {run_id}, of which the server knows nothing.",
        f"Signed by key {' '.join(names)}; a worker takes it until {until}.",
    ]
    theirs = attempt["request"].get("key_ids") or []
    if theirs and not set(theirs) & set(names):
        notes.append(f"The attempt itself was signed by key {' '.join(theirs)}: the server has another secret.")
    if hidden:
        notes.append(f"The values of these headers are hidden; add them by -H: {' '.join(hidden)}")
    return tuple("".join(one if one.isprintable() else " " for one in note) for note in notes)

"""Say why a request was refused with 401, so that whoever reads it knows which end to mend.

What is told to the other side is what came from there, and how many keys are known here: no secret, no name of a key,
nothing by which the next guess would be better. The log of this process names its keys as well.
"""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from hurlbat import outside
from hurlbat.errors import SignatureError
from hurlbat.signing import HEADER_SIGNATURE, HEADER_TIMESTAMP, algorithm_of, key_id
from hurlbat.wire import HEADER_KEY_IDS

QUIET_SECONDS: Final = 10.0
"""After a warning the next ones are only counted for so long: anybody may send what is refused."""
STRANGER: Final = (
    "a request that does not say that it is from a server was refused with 401, as it must be (when a server proves "
    "this worker, three of them are its own checks, and nothing is wrong)"
)
"""Which of them are a server's own is not to be told here: a worker that can might refuse these, and take others."""
MAX_NAMED: Final = 8
"""Versions and key ids of a request that are repeated to it."""

_KEY_ID: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)
_VERSION: Final = re.compile(r"v[0-9][0-9a-z]{0,2}", re.ASCII)
_SECONDS: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_LENGTH: Final = re.compile(r"[0-9]{1,15}", re.ASCII)
_HINTS: Final = {
    "v1": "no key here checks v1 signatures: they take a whsec_ secret",
    "v1a": "no key here checks v1a signatures: they take the whpk_ key that the server shows of this worker",
}

logger = logging.getLogger("hurlbat")


class Refusals:
    """The requests that one worker refuses, as its callers and its log are told of them."""

    def __init__(self, monotonic: Callable[[], float] = outside.monotonic) -> None:
        self._monotonic = monotonic
        self._quiet_until = 0.0
        self._untold = 0

    def members(
        self, error: SignatureError, headers: Mapping[str, str], body: bytes, now: float, keys: Sequence[str]
    ) -> dict[str, Any]:
        """Return the members of the problem that answers such a request, `detail` among them, and log it.

        `headers` has lower-case names, `now` is in seconds since the epoch. `clock_skew` is our clock minus the
        request's timestamp in seconds, None where there is none; `body_bytes` and `body_sha256` are of the body as it
        came; `content_length` is there where it says another length, `hint` where the keys are of the wrong kind.
        """
        facts = _facts(headers, body, now, keys)
        hints = [_HINTS[one] for one in facts["signature_versions"] if one in _HINTS]
        if keys and hints and not {algorithm_of(key) for key in keys}.intersection(facts["signature_versions"]):
            facts["hint"] = "; ".join(hints)
        told = facts | {"detail": f"{str(error).removesuffix('.')}. {_sentence(facts)}"}
        self._log(told, keys)
        return told

    def _log(self, told: Mapping[str, Any], keys: Sequence[str]) -> None:
        ours = " ".join(map(key_id, keys)) or "none"
        if not told["key_ids"]:  # what the net is full of, and what a server sends to see that it is refused
            logger.info("%s: %s. The keys here: %s", STRANGER, told["detail"], ours)
            return
        now = self._monotonic()
        if now < self._quiet_until:
            self._untold += 1
            return
        self._quiet_until = now + QUIET_SECONDS
        more, self._untold = (f" ({self._untold} more were refused before)" if self._untold else ""), 0
        logger.warning("a request was refused with 401: %s. The keys here: %s%s", told["detail"], ours, more)


def _facts(headers: Mapping[str, str], body: bytes, now: float, keys: Sequence[str]) -> dict[str, Any]:
    timestamp = headers.get(HEADER_TIMESTAMP, "")
    declared = headers.get("content-length", "")
    given = headers.get(HEADER_SIGNATURE, "")[:4096].split(" ")
    versions = dict.fromkeys(version for version in (one.partition(",")[0] for one in given))
    named = headers.get(HEADER_KEY_IDS, "")[:256].split(" ")
    facts: dict[str, Any] = {
        "clock_skew": round(now - int(timestamp), 1) if _SECONDS.fullmatch(timestamp) else None,
        "body_bytes": len(body),
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "signature_versions": [one for one in versions if _VERSION.fullmatch(one)][:MAX_NAMED],
        "key_ids": [one for one in named if _KEY_ID.fullmatch(one)][:MAX_NAMED],
        "known_keys": len(keys),
    }
    if _LENGTH.fullmatch(declared) and int(declared) != len(body):
        facts["content_length"] = int(declared)
    return facts


def _sentence(facts: Mapping[str, Any]) -> str:
    versions, skew = facts["signature_versions"], facts["clock_skew"]
    length = f"{facts['body_bytes']} bytes"
    if "content_length" in facts:
        length += f" where content-length says {facts['content_length']}"
    signed = f"signatures {' '.join(versions)}" if versions else "no signature"
    named = f" by key {' '.join(facts['key_ids'])}" if facts["key_ids"] else ""
    parts = [f"Here came {length}, SHA-256 {facts['body_sha256']}, {signed}{named}"]
    if skew is not None:
        parts.append(f"clock skew {skew:+} s (this clock minus the request's timestamp)")
    parts.append(f"{facts['known_keys']} key{'' if facts['known_keys'] == 1 else 's'} known here")
    return "; ".join([*parts, facts["hint"]] if "hint" in facts else parts)

"""Tell whether a request was sent by who a webhook belongs to, by its headers and the exact bytes of its body.

Every sender has a form of its own; all but two are an HMAC of the body, some with a time that is signed along:

    standard  webhook-signature          v1,<base64 of SHA-256 of "id.timestamp.body"> …
    github    X-Hub-Signature-256        sha256=<hex of SHA-256 of the body>
    stripe    Stripe-Signature           t=<timestamp>,v1=<hex of SHA-256 of "timestamp.body">,…
    slack     X-Slack-Signature          v0=<hex of SHA-256 of "v0:timestamp:body">
    hmac      some header                some prefix, algorithm and encoding, of the body

Nothing here tells by how long it takes which secret, or how much of one, was right; and a request to a webhook that is
not there costs what a badly signed one does (`refuse`).
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from hurlbat.errors import SignatureError, SignatureWrong
from hurlbat.signing import verify as verify_standard
from hurlbat_dispatcher.incoming.auth import (
    ApiKeyAuth,
    Auth,
    BasicAuth,
    GithubAuth,
    HmacAuth,
    SlackAuth,
    StandardAuth,
    StripeAuth,
)

TOLERANCE_SECONDS: Final = 300
"""How far the time that is signed along may be from ours, on either side."""

_MAX_SIGNATURES: Final = 64
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}", re.ASCII)
_STANDARD: Final = ("id", "timestamp", "signature")
_GITHUB: Final = ("x-hub-signature-256", "sha256", "hex", "sha256=")


class Claim(NamedTuple):
    """What a request says for itself.

    `signatures`, as bytes of their text, should be what the algorithm makes of `head` and the body. `header` is where
    they stand. `timestamp` is the time that is signed along, None where there is none.
    """

    header: str
    signatures: tuple[bytes, ...]
    head: bytes = b""
    timestamp: str | None = None
    algorithm: str = "sha256"
    encoding: str = "hex"


def why_refused(auth: Auth, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Return why a request is not taken for the sender's, for our own log; None when it is his.

    `headers` have lower-case names, and texts as HTTP has them (ISO 8859-1); `now` is in seconds. Whatever they hold,
    nothing is raised.
    """
    match auth:
        case StandardAuth():
            return _standard(auth, headers, body, now)
        case BasicAuth():
            return _basic(auth, headers, body)
        case ApiKeyAuth():
            return _api_key(auth, headers, body)
        case _:
            return _signed(auth, _claim(auth, headers), body, now)


def why_refused_by_head(auth: Auth, headers: Mapping[str, str], now: float) -> str | None:
    """Return why a request is not taken whatever its body is, for our own log; None when that is for the body to show.

    Who sends a name or a key along is known by these: then None says that it is the sender (`is_known_by_head`).
    """
    match auth:
        case BasicAuth():
            return _basic(auth, headers, b"")
        case ApiKeyAuth():
            return _api_key(auth, headers, b"")
        case StandardAuth():
            return _standard_by_head(auth, headers, now)
        case _:
            claim = _claim(auth, headers)
            if not claim.signatures:
                return f"there is no signature in the header {claim.header}"
            return None if claim.timestamp is None else _late(claim.timestamp, now)


def is_known_by_head(auth: Auth) -> bool:
    """Tell whether the sender proves himself by the head of a request alone."""
    return isinstance(auth, BasicAuth | ApiKeyAuth)


def refuse(body: bytes) -> None:
    """Spend the time that it takes to check one signature of a body."""
    refusal()(body)


def refusal() -> Callable[[bytes], object]:
    """Return what takes a body in, a piece at a time, and spends that time by the end of it."""
    return hmac.new(b"nobody's secret", digestmod="sha256").update


# -- HMAC of the body --------------------------------------------------------------------------------------------------


def _signed(auth: Auth, claim: Claim, body: bytes, now: float) -> str | None:
    # everything is worked out before anything is said, and `|=` leaves no early way out
    good = False
    for secret in auth.secrets:
        expected = _expected(secret, claim, body)
        for signature in claim.signatures:
            good |= hmac.compare_digest(signature, expected)
    if not claim.signatures:
        return f"there is no signature in the header {claim.header}"
    if not good:
        return f"the signature in the header {claim.header} is not by the secret, or the body was changed on the way"
    return None if claim.timestamp is None else _late(claim.timestamp, now)


def _claim(auth: Auth, headers: Mapping[str, str]) -> Claim:
    match auth:
        case GithubAuth():
            return _plain(headers, *_GITHUB)
        case HmacAuth():
            return _plain(headers, auth.header, auth.algorithm, auth.encoding, auth.prefix)
        case StripeAuth():
            return _stripe(headers)
        case SlackAuth():
            return _slack(headers)
        case _:
            raise TypeError(f"{type(auth).__name__} is no way of authentication")


def _expected(secret: str, claim: Claim, body: bytes) -> bytes:
    signing = hmac.new(secret.encode(), claim.head, claim.algorithm)
    signing.update(body)
    if claim.encoding == "base64":
        return base64.b64encode(signing.digest())
    return signing.hexdigest().encode()


def _plain(headers: Mapping[str, str], header: str, algorithm: str, encoding: str, prefix: str) -> Claim:
    given = headers.get(header, "")
    found = given[len(prefix) :] if given.startswith(prefix) else ""
    text = found.lower() if encoding == "hex" else found
    return Claim(header, (_bytes(text),) if text else (), algorithm=algorithm, encoding=encoding)


def _stripe(headers: Mapping[str, str]) -> Claim:
    header = "stripe-signature"
    parts = [part.strip().partition("=") for part in headers.get(header, "").split(",", _MAX_SIGNATURES)]
    timestamp = next((value for name, _, value in parts if name == "t"), "")
    signatures = tuple(_bytes(value) for name, _, value in parts if name == "v1" and value)
    return Claim(header, signatures, _bytes(f"{timestamp}."), timestamp)


def _slack(headers: Mapping[str, str]) -> Claim:
    header = "x-slack-signature"
    timestamp = headers.get("x-slack-request-timestamp", "")
    version, _, signature = headers.get(header, "").partition("=")
    signatures = (_bytes(signature),) if version == "v0" and signature else ()
    return Claim(header, signatures, _bytes(f"v0:{timestamp}:"), timestamp)


def _late(timestamp: str, now: float) -> str | None:
    if not _TIMESTAMP.fullmatch(timestamp):
        return "its timestamp is not a number of seconds since the epoch"
    skew = now - int(timestamp)
    if abs(skew) <= TOLERANCE_SECONDS:
        return None
    side = "behind" if skew > 0 else "ahead of"
    return f"its timestamp is {abs(skew):.0f} s {side} our clock, and {TOLERANCE_SECONDS} s are allowed"


# -- Standard Webhooks, and credentials that are sent as they are ------------------------------------------------------


def _standard(auth: Auth, headers: Mapping[str, str], body: bytes, now: float) -> str | None:
    """Check by Standard Webhooks; some senders name the headers `svix-`, as those of its first service are."""
    try:
        verify_standard(auth.secrets, _named(headers), body, now, TOLERANCE_SECONDS)
    except SignatureError as error:
        if not isinstance(error, SignatureWrong):
            refuse(body)  # it was refused before a signature was looked at
        return str(error)
    return None


def _standard_by_head(auth: Auth, headers: Mapping[str, str], now: float) -> str | None:
    try:
        verify_standard(auth.secrets, _named(headers), b"", now, TOLERANCE_SECONDS)
    except SignatureWrong:  # of another body than none
        return None
    except SignatureError as error:
        return str(error)
    return None


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {f"webhook-{one}": headers.get(f"webhook-{one}") or headers.get(f"svix-{one}", "") for one in _STANDARD}


def _basic(auth: BasicAuth, headers: Mapping[str, str], body: bytes) -> str | None:
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(_bytes(encoded.strip()), validate=True) if scheme.lower() == "basic" else b""
    except ValueError:
        given = b""
    return _same(auth, [f"{auth.username}:{password}".encode() for password in auth.secrets], given, body)


def _api_key(auth: ApiKeyAuth, headers: Mapping[str, str], body: bytes) -> str | None:
    return _same(auth, [key.encode() for key in auth.secrets], _bytes(headers.get(auth.header, "")), body)


def _same(auth: Auth, wanted: list[bytes], given: bytes, body: bytes) -> str | None:
    """Compare by digests, which are all of one length."""
    refuse(body)
    digest = hashlib.sha256(given).digest()
    good = False
    for one in wanted:
        good |= hmac.compare_digest(digest, hashlib.sha256(one).digest())
    return None if good else f"the {auth.secret_name} is missing or wrong"


def _bytes(text: str) -> bytes:
    """Return the bytes that a header's text came as."""
    return text.encode("latin-1", "replace")

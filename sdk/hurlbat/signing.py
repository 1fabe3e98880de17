"""Sign and verify by Standard Webhooks (https://www.standardwebhooks.com), on the exact bytes that travel.

A signature covers `id.timestamp.body` and nothing else: no URL, no header. Secrets are `whsec_` and base64 of 24 to 64
bytes (HMAC-SHA256, `v1`); a pair of `whsk_` and `whpk_` keys gives Ed25519 signatures (`v1a`) that a receiver can check
without being able to make them. While a key rotates, a message is signed by all keys, and one good signature is enough.
"""

import base64
import binascii
import hashlib
import hmac
import importlib.util
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from hurlbat.errors import SecretInvalid, SignatureMissing, SignatureWrong, TimestampRefused

HEADER_ID: Final = "webhook-id"
HEADER_TIMESTAMP: Final = "webhook-timestamp"
HEADER_SIGNATURE: Final = "webhook-signature"
TOLERANCE_SECONDS: Final = 300
SECRET_BYTES: Final = 32

_MAX_SIGNATURES: Final = 64
_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)
_MESSAGE_ID = re.compile(r"[!-\-/-~]{1,256}")  # visible ASCII but for the dot, which separates what is signed


def new_secret() -> str:
    """Return a new `whsec_` secret of 32 random bytes."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def new_key_pair() -> tuple[str, str]:
    """Return a new Ed25519 pair: (`whsk_` to sign with, `whpk_` to verify with). Needs `cryptography`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    both = private.private_bytes_raw() + public
    return "whsk_" + base64.b64encode(both).decode(), "whpk_" + base64.b64encode(public).decode()


def check_key(key: str) -> None:
    """Raise `SecretInvalid`, with a sentence that does not contain the key, unless it can sign or verify."""
    prefix, raw = _decode(key)
    if prefix == "whsec_" and not 24 <= len(raw) <= 64:
        raise SecretInvalid(f"a whsec_ secret must hold 24 to 64 bytes, this one holds {len(raw)}")
    if prefix == "whsk_" and len(raw) not in (32, 64):
        raise SecretInvalid(f"a whsk_ key must hold 32 or 64 bytes, this one holds {len(raw)}")
    if prefix == "whpk_" and len(raw) != 32:
        raise SecretInvalid(f"a whpk_ key must hold 32 bytes, this one holds {len(raw)}")


def key_id(key: str) -> str:
    """Return the name by which people tell keys apart: 8 hexadecimal digits that say nothing of the secret.

    They begin the SHA-256 of `hurlbat key id:` and the bytes of a `whsec_` secret, or the 32 public bytes of an Ed25519
    key, so that both ends of a pair have one id; that of a `whsk_` key needs `cryptography`. Raises `SecretInvalid`.
    """
    prefix, raw = _decode(key)
    named = _public(raw) if prefix == "whsk_" else raw
    return hashlib.sha256(b"hurlbat key id:" + named).hexdigest()[:8]


def algorithm_of(key: str) -> str:
    """Return the version of the signatures that a key makes or checks: `v1` or `v1a`."""
    return "v1" if key.startswith("whsec_") else "v1a"


def public_key(key: str) -> str | None:
    """Return the `whpk_` end of an Ed25519 pair, None for a secret that both ends share. Raises `SecretInvalid`.

    It lets a receiver check signatures and make none, so it may be shown. Needs `cryptography`.
    """
    prefix, raw = _decode(key)
    if prefix == "whsec_":
        return None
    return "whpk_" + base64.b64encode(_public(raw) if prefix == "whsk_" else raw).decode()


def can_verify(key: str) -> bool:
    """Return whether this installation can check signatures by a good key: Ed25519 needs `cryptography`."""
    return key.startswith("whsec_") or importlib.util.find_spec("cryptography") is not None


def sign(keys: Sequence[str], message_id: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`: one signature for each key, newest first, with spaces between.

    `timestamp` is in whole seconds since the epoch. Raises `SecretInvalid` for a key that cannot sign, ValueError for
    an id that is not visible ASCII without dots.
    """
    if not _MESSAGE_ID.fullmatch(message_id):
        raise ValueError("a message id must be 1 to 256 visible ASCII characters without a dot")
    if not keys:
        raise SecretInvalid("there is no key to sign with")
    content = b"%s.%d.%s" % (message_id.encode(), timestamp, body)
    return " ".join([_sign(key, content) for key in keys])


def verify(
    keys: Sequence[str], headers: Mapping[str, str], body: bytes, now: float, tolerance: float = TOLERANCE_SECONDS
) -> str:
    """Return the message's id if one of its signatures is by one of the keys and its timestamp is near `now`.

    `headers` has lower-case names. Raises `SignatureMissing`, `TimestampRefused` or `SignatureWrong`, whose messages
    are safe to send back; whatever the headers hold, nothing else is raised.
    """
    message_id = headers.get(HEADER_ID, "")
    timestamp = headers.get(HEADER_TIMESTAMP, "")
    given = headers.get(HEADER_SIGNATURE, "")
    absent = [name for name in (HEADER_ID, HEADER_TIMESTAMP, HEADER_SIGNATURE) if not headers.get(name)]
    if absent:
        raise SignatureMissing(f"the request is not signed: {' and '.join(absent)} missing")
    if not _MESSAGE_ID.fullmatch(message_id):
        raise SignatureMissing(f"{HEADER_ID} is not 1 to 256 visible ASCII characters without a dot")
    _check_timestamp(timestamp, now, tolerance)
    content = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    candidates = [part.partition(",") for part in given.split(" ", _MAX_SIGNATURES)[:_MAX_SIGNATURES]]
    # `|=` and no early way out: how long this takes does not tell which key or signature was nearly right
    good = False
    for key in keys:
        prefix, raw = _decode(key)
        if prefix == "whsec_":
            expected = _hmac(raw, content)
            for version, _, signature in candidates:
                if version == "v1":
                    good |= hmac.compare_digest(signature.encode("utf-8", "replace"), expected)
        else:
            for version, _, signature in candidates:
                if version == "v1a":
                    good |= _verify_ed25519(prefix, raw, content, signature)
    if not good:
        raise SignatureWrong(
            "no signature matches: either the secret here is not the one that signs, or something on the way changed "
            "the body (a middleware that parses and re-serialises JSON does)"
        )
    return message_id


def _check_timestamp(timestamp: str, now: float, tolerance: float) -> None:
    if not _TIMESTAMP.fullmatch(timestamp):
        raise TimestampRefused(f"{HEADER_TIMESTAMP} is not a number of seconds since the epoch (1 to 12 digits)")
    skew = now - int(timestamp)
    if abs(skew) > tolerance:
        side = "behind" if skew > 0 else "ahead of"
        raise TimestampRefused(
            f"the timestamp is {abs(skew):.0f} s {side} this clock, more than the {tolerance:g} s that are allowed: "
            "the request is a repeat of an old one, or one of the two clocks is wrong",
            skew,
        )


def _sign(key: str, content: bytes) -> str:
    prefix, raw = _decode(key)
    if prefix == "whsec_":
        return "v1," + _hmac(raw, content).decode()
    if prefix == "whpk_":
        raise SecretInvalid("a whpk_ key can only verify; sign with the whsk_ key of the pair")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return "v1a," + base64.b64encode(Ed25519PrivateKey.from_private_bytes(raw[:32]).sign(content)).decode()


def _public(raw: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key().public_bytes_raw()


def _hmac(raw: bytes, content: bytes) -> bytes:
    return binascii.b2a_base64(hmac.digest(raw, content, "sha256"), newline=False)


def _verify_ed25519(prefix: str, raw: bytes, content: bytes, signature: str) -> bool:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    except ImportError:
        return False
    try:
        decoded = base64.b64decode(signature, validate=True)
        if prefix == "whpk_":
            public = Ed25519PublicKey.from_public_bytes(raw)
        else:
            public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key()
        public.verify(decoded, content)
    except (ValueError, InvalidSignature):  # binascii.Error is a ValueError
        return False
    return True


def _decode(key: str) -> tuple[str, bytes]:
    prefix = key[: key.find("_") + 1]
    if prefix not in ("whsec_", "whsk_", "whpk_"):
        raise SecretInvalid("a signing secret must start with whsec_ (or whsk_, whpk_ for Ed25519)")
    try:
        return prefix, base64.b64decode(key[len(prefix) :], validate=True)
    except ValueError as error:
        raise SecretInvalid(f"what follows {prefix} is not base64") from error

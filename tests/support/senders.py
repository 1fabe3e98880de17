"""What other people's services send, signed as they document it and by nothing of ours."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime

from standardwebhooks.webhooks import Webhook

Sender = Callable[[str, bytes, float], dict[str, str]]
"""Makes the headers of a delivery, of its secret, its body, and the time in seconds."""


def by_github(secret: str, body: bytes, now: float = 0) -> dict[str, str]:
    return {"x-hub-signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}


def by_stripe(secret: str, body: bytes, now: float) -> dict[str, str]:
    signature = hmac.new(secret.encode(), f"{int(now)}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={int(now)},v0=ab,v1={signature}"}


def by_slack(secret: str, body: bytes, now: float) -> dict[str, str]:
    signature = hmac.new(secret.encode(), f"v0:{int(now)}:".encode() + body, hashlib.sha256).hexdigest()
    return {"x-slack-signature": f"v0={signature}", "x-slack-request-timestamp": str(int(now))}


def by_standard(secret: str, body: bytes, now: float, message: str = "msg_1") -> dict[str, str]:
    signature = Webhook(secret).sign(message, datetime.fromtimestamp(now, UTC), body.decode())
    return {"webhook-id": message, "webhook-timestamp": str(int(now)), "webhook-signature": signature}


def by_basic(secret: str, body: bytes, now: float = 0, username: str = "ada") -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{username}:{secret}".encode()).decode()}


def by_api_key(secret: str, body: bytes, now: float = 0, header: str = "x-api-key") -> dict[str, str]:
    return {header: secret.encode().decode("latin-1")}


def by_hmac(header: str, algorithm: str = "sha256", encoding: str = "hex", prefix: str = "") -> Sender:
    """Return one who signs the body in a header of his own."""

    def made(secret: str, body: bytes, now: float) -> dict[str, str]:
        digest = hmac.new(secret.encode(), body, algorithm).digest()
        return {header: prefix + (digest.hex() if encoding == "hex" else base64.b64encode(digest).decode())}

    return made

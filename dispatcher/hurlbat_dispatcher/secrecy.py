"""Keys and tokens: workers' secrets at rest, lease tokens, digests of API tokens."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class WrongKey(Exception):
    """What is stored was encrypted with a key that this server was not given."""


_WRONG = (
    "HURLBAT_SECRET_KEY is not the key that the stored secrets were encrypted with; add the old key behind the new one"
)


class Vault:
    """Encrypts what is stored, with the newest of the server's keys; reads what any of them encrypted."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._newest = Fernet(keys[0])
        self._fernet = MultiFernet([Fernet(key) for key in keys])
        self.lease_key = hashlib.sha256(b"hurlbat lease token\0" + keys[-1].encode()).digest()

    def lock(self, value: Any) -> str:
        """Return the JSON value, encrypted."""
        return self._fernet.encrypt(json.dumps(value).encode()).decode()

    def unlock(self, text: str) -> Any:
        """Return the value. Raises `WrongKey`."""
        try:
            return json.loads(self._fernet.decrypt(text.encode()))
        except InvalidToken:
            raise WrongKey(_WRONG) from None

    def renew(self, text: str) -> str:
        """Return the same, encrypted with the newest key; what is so already is left alone. Raises `WrongKey`."""
        with suppress(InvalidToken):
            self._newest.decrypt(text.encode())
            return text
        try:
            return self._fernet.rotate(text.encode()).decode()
        except InvalidToken:
            raise WrongKey(_WRONG) from None


def key_beside(database_file: str) -> str:
    """Return the key kept beside an SQLite file, made there once with mode 0600: whole, or not at all."""
    path = Path(f"{database_file}.key")
    if not path.exists():
        fresh = Path(f"{path}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(Fernet.generate_key().decode())
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return path.read_text().strip()


class LeaseTokens:
    """Makes the token that proves the right to report on one attempt. Nothing is stored: it is a keyed digest."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, run_id: str, attempt: int) -> str:
        """Return the token of an attempt: 48 hexadecimal digits of keyed BLAKE2b (RFC 7693)."""
        return hashlib.blake2b(f"{run_id}:{attempt}".encode(), key=self._key, digest_size=24).hexdigest()

    def proves(self, token: str, run_id: str, attempt: int) -> bool:
        """Tell whether the token is this attempt's."""
        return hmac.compare_digest(token.encode(errors="replace"), self.of(run_id, attempt).encode())


def new_token() -> str:
    """Return a new API token."""
    return f"hb_{secrets.token_urlsafe(32)}"


def digest_of(token: str) -> str:
    """Return what is stored of an API token."""
    return hashlib.sha256(token.encode()).hexdigest()

"""Read this package's settings from the environment, in this one place."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from hurlbat import signing
from hurlbat.errors import ConfigError, SecretInvalid
from hurlbat.wire import NAME_PATTERN

DEFAULT_URL = "http://127.0.0.1:8420"
_VARIABLES = {
    "url": ("HURLBAT_URL",),
    "token": ("HURLBAT_TOKEN", "HURLBAT_API_TOKEN"),
    "signing_secret": ("HURLBAT_SIGNING_SECRETS", "HURLBAT_SIGNING_SECRET"),
    "worker": ("HURLBAT_WORKER",),
    "public_url": ("HURLBAT_PUBLIC_URL",),
    "slots": ("HURLBAT_SLOTS",),
    "threads": ("HURLBAT_THREADS",),
    "grace": ("HURLBAT_GRACE",),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What an app says of itself and of its server. Durations are in seconds."""

    url: str = DEFAULT_URL
    """Where the server is."""
    token: str | None = field(default=None, repr=False)
    """The bearer token for the server's API."""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Signing secrets, newest first; several while one rotates."""
    worker: str | None = None
    """This worker's name. If set, a delivery for another name is refused."""
    public_url: str | None = None
    """Where the server reaches this worker; `lifespan` registers it. If set, a delivery for another URL is refused."""
    slots: int = 100
    """How many attempts the server may have running here at once."""
    threads: int = 32
    """How many sync functions run at once."""
    grace: float = 10.0
    """How long running tasks may go on when the app stops."""

    @property
    def worker_name(self) -> str:
        """The name to register by: `worker`, else host and port of `public_url`."""
        return self.worker or re.sub(r"[^A-Za-z0-9_.:-]", "-", urlsplit(self.public_url or "").netloc)[:128]


def read_settings(arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings: an argument that is not None, else its variable, else the default. Raises `ConfigError`."""
    environ = os.environ if environ is None else environ
    known: dict[str, Any] = {}
    for name, variables in _VARIABLES.items():
        given = arguments.get(name)
        source = f"{name}="
        found = {variable: environ[variable].strip() for variable in variables if environ.get(variable, "").strip()}
        if given is None and name == "signing_secret":  # the one variable adds to the other
            keys = [key for variable, text in found.items() for key in _keys(text, variable)]
            known["keys"] = tuple(dict.fromkeys(keys))
            continue
        if given is None and found:
            source, given = next(iter(found.items()))
        if given is not None:
            known.update(_read(name, given, source))
    return Settings(**known)


def _read(name: str, given: Any, source: str) -> dict[str, Any]:
    match name:
        case "url" | "public_url":
            return {name: _url(str(given), source)}
        case "signing_secret":
            return {"keys": tuple(dict.fromkeys(_keys(given, source)))}
        case "worker":
            if not re.fullmatch(NAME_PATTERN, str(given)):
                raise ConfigError(f"{source} {given!r} is not a name of 1 to 128 letters, digits and _ . : -")
            return {name: str(given)}
        case "slots" | "threads":
            return {name: int(_number(given, source, 1, 10_000))}
        case "grace":
            return {name: _number(given, source, 0, 86_400)}
    return {name: str(given)}


def _url(text: str, source: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{source} {text!r} is not a URL with http:// or https:// and a host")
    return text


def _keys(given: Any, source: str) -> tuple[str, ...]:
    listed = re.split(r"[,\s]+", given.strip(", \t\n")) if isinstance(given, str) else list(given)
    for position, key in enumerate(listed, 1):
        try:
            signing.check_key(key)
        except SecretInvalid as error:
            which = f" ({position} of {len(listed)})" if len(listed) > 1 else ""
            raise SecretInvalid(f"{source}{which}: {error}") from None
        if not signing.can_verify(key):
            raise ConfigError(f"{source}: Ed25519 keys (whpk_, whsk_) need another package: pip install cryptography")
    return tuple(listed)


def _number(given: Any, source: str, low: float, high: float) -> float:
    try:
        number = float(given)
    except (TypeError, ValueError):
        raise ConfigError(f"{source} {given!r} is not a number") from None
    if not low <= number <= high:
        raise ConfigError(f"{source} {given!r} is not between {low:g} and {high:g}")
    return number

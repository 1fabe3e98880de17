"""The server's settings: the one place that reads its environment.

`Settings` is a value that anyone may build; `load_settings` reads it from `HURLBAT_…` variables and a `.env` file and
tells every mistake at once, in sentences that never repeat a secret.
"""

import base64
import binascii
import re
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from hurlbat_dispatcher.push.room import MAX_CONNECTIONS

PREFIX: Final = "HURLBAT_"
DAY: Final = 86_400.0
YEAR: Final = 365 * DAY

_DIALECTS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
_VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


class SettingsError(Exception):
    """The settings cannot be used; `problems` has one sentence for each mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


# -- the kinds of values ---------------------------------------------------------------------------------------------


def parse_duration(value: Any) -> float:
    """Return seconds from a number of them, or from text such as `90`, `15m`, `12h`, `30d`. Raises ValueError."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    else:
        match = _DURATION.fullmatch(str(value).strip().lower())
        if not match or match[2] not in _UNITS:
            raise ValueError("must be a number of seconds, or a number with a unit such as 90s, 15m, 12h or 30d")
        seconds = float(match[1]) * _UNITS[match[2]]
    if not 0 <= seconds < float("inf"):
        raise ValueError("must not be negative or infinite")
    return seconds


def normalise_database_url(value: Any) -> str:
    """Return the URL with the driver that is used for its kind of database. Raises ValueError for an unknown kind."""
    text = str(value).strip()
    kind, colon, rest = text.partition("://")
    if not colon:
        raise ValueError("must be a URL such as sqlite:///./hurlbat.db or postgresql://user:password@host/database")
    if kind.lower() not in _DIALECTS:
        raise ValueError(
            f"names the unknown kind of database {kind[:40]!r}; it must begin with sqlite:/// or postgresql://"
        )
    dialect = _DIALECTS[kind.lower()]
    if dialect.startswith("sqlite") and not rest.startswith("/"):
        raise ValueError("needs three slashes for a relative file (sqlite:///./hurlbat.db), four for an absolute one")
    return f"{dialect}://{rest}"


def _whole(low: int, high: int, hint: Callable[[str], str] = lambda _: "") -> BeforeValidator:
    def check(value: Any) -> int:
        text = str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(r"\d{1,15}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}{hint(text)}")
        return int(text)

    return BeforeValidator(check)


def _seconds(low: float, high: float) -> BeforeValidator:
    def check(value: Any) -> float:
        seconds = parse_duration(value)
        if not low <= seconds <= high:
            raise ValueError(f"must be from {low:g} to {high:g} seconds")
        return seconds

    return BeforeValidator(check)


def _one_of(*words: str) -> BeforeValidator:
    def check(value: Any) -> str:
        word = str(value).strip().lower()
        if word not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return word

    return BeforeValidator(check)


def _service_link(text: str) -> str:
    if text.startswith("tcp://"):
        return " (Kubernetes sets this variable for a service called hurlbat: set enableServiceLinks to false)"
    return ""


def _networks(value: Any) -> tuple[IPv4Network | IPv6Network, ...]:
    listed = value.split(",") if isinstance(value, str) else list(value)
    found = []
    for item in listed:
        if not str(item).strip():
            continue
        try:
            found.append(ip_network(str(item).strip()))
        except ValueError as error:
            raise ValueError(
                f"must be networks such as 10.0.0.0/8 with commas between, and {str(item).strip()[:60]!r} is none"
            ) from error
    return tuple(found)


def _token(value: Any) -> SecretStr | None:
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if text is None:
        return None
    if not isinstance(text, str) or not 16 <= len(text) <= 256 or not _VISIBLE.fullmatch(text):
        raise ValueError("must be 16 to 256 visible characters, without spaces")
    return SecretStr(text)


def _keys(value: Any) -> tuple[SecretStr, ...]:
    listed = value.split(",") if isinstance(value, str) else list(value)
    texts = [item.get_secret_value() if isinstance(item, SecretStr) else str(item).strip() for item in listed]
    for text in texts:
        try:
            size = len(base64.urlsafe_b64decode(text.encode()))
        except (binascii.Error, ValueError):
            size = 0
        if size != 32:
            raise ValueError(
                "must be keys of 32 bytes in urlsafe base64, the newest first, with commas between; make one with "
                '`python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"`'
            )
    return tuple(SecretStr(text) for text in texts)


def _http_url(value: Any) -> str | None:
    if value is None or value == "":
        return None
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment:
        raise ValueError("must be a URL such as https://hurlbat.example.com, without query and fragment")
    return text.rstrip("/")


# -- the settings ----------------------------------------------------------------------------------------------------


class Settings(BaseModel):
    """Everything that a server can be told. Durations are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, _whole(0, 65_535, _service_link)] = 8420
    """0 takes a free one."""
    external_url: Annotated[str | None, BeforeValidator(_http_url)] = None
    """How workers reach this server; `base_url` has the default."""
    database_url: Annotated[str, BeforeValidator(normalise_database_url), Field(repr=False)] = (
        "sqlite+aiosqlite:///./hurlbat.db"
    )
    api_token: Annotated[SecretStr | None, BeforeValidator(_token)] = None
    """None: the server makes one at its first start and says it once."""
    secret_key: Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_keys)] = ()
    """Fernet keys for secrets at rest, newest first. Empty: one is made beside the SQLite file."""
    allowed_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    """Workers in these networks may have private addresses and use plain http."""
    proxy: Annotated[str | None, BeforeValidator(_http_url)] = None
    """The proxy for requests to workers; the usual proxy variables are ignored."""
    retention: Annotated[float, _seconds(0, 100 * YEAR)] = 30 * DAY
    """How long finished runs are kept; 0 is for ever."""
    delivery_retention: Annotated[float, _seconds(0, 100 * YEAR)] = 3 * DAY
    """How long it is kept what was sent to workers and what came back; 0 keeps nothing of it."""
    max_body_bytes: Annotated[int, _whole(1024, 64 * 1_048_576)] = 1_048_576
    wait_max: Annotated[float, _seconds(1, 600)] = 60.0
    queue_limit: Annotated[int, _whole(1, 10_000_000)] = 10_000
    """Submits that may wait for the writer before more are refused with 503."""
    heartbeat: Annotated[float, _seconds(0.05, 3600)] = 5.0
    lease: Annotated[float, _seconds(0.1, 86_400)] = 15.0
    max_connections: Annotated[int, _whole(10, 60_000)] = MAX_CONNECTIONS
    """Connections to workers at once; one worker has half of them at most."""
    drain_seconds: Annotated[float, _seconds(0, 86_400)] = 25.0
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _one_of("debug", "info", "warning", "error")] = (
        "info"
    )
    log_format: Annotated[Literal["json", "text"], _one_of("json", "text")] = "text"

    @field_validator("secret_key")
    @classmethod
    def _required_with_postgresql(cls, keys: tuple[SecretStr, ...], info: ValidationInfo) -> tuple[SecretStr, ...]:
        if not keys and str(info.data.get("database_url", "")).startswith("postgresql"):
            raise ValueError(
                "is required with PostgreSQL, the same on every server; make one with "
                '`python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"`'
            )
        return keys

    @field_validator("lease")
    @classmethod
    def _outlives_heartbeats(cls, lease: float, info: ValidationInfo) -> float:
        heartbeat = info.data.get("heartbeat", 0.0)
        if lease < 2 * heartbeat:
            raise ValueError(f"must be at least twice {PREFIX}HEARTBEAT, which is {heartbeat:g} seconds")
        return lease

    @property
    def database_file(self) -> str | None:
        """The file that a SQLite database is in; None for other kinds."""
        kind, _, path = self.database_url.partition(":///")
        return path.partition("?")[0] if kind.startswith("sqlite") else None

    @property
    def base_url(self) -> str:
        """How the server is reached, without a slash at its end."""
        return self.external_url or self.local_url

    @property
    def local_url(self) -> str:
        """Where the server listens, as it is reached from this machine."""
        host = self.host
        try:
            address = ip_address(host)
        except ValueError:
            return f"http://{host}:{self.port}"
        if address.is_unspecified:
            return f"http://127.0.0.1:{self.port}"
        return f"http://[{host}]:{self.port}" if address.version == 6 else f"http://{host}:{self.port}"


class _Environment(Settings, BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", env_ignore_empty=True, extra="ignore", hide_input_in_errors=True
    )


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment and `.env`; `overrides` go first. Raises `SettingsError`."""
    try:
        found = _Environment(**overrides)
    except ValidationError as error:
        raise SettingsError([_sentence(one) for one in error.errors(include_input=False)]) from None
    return Settings.model_construct(**dict(found))


def _sentence(error: Any) -> str:
    name = f"{PREFIX}{'_'.join(str(part) for part in error['loc'][:1]).upper()}"
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{name} {message[0].lower()}{message[1:]}."

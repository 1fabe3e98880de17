"""How the sender of a webhook proves who it is: what is said of that in JSON, checked, and apart from its secrets."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hurlbat.errors import SecretInvalid
from hurlbat.signing import check_key
from hurlbat_dispatcher.errors import Invalid

MAX_SECRETS: Final = 8
"""Of one webhook at a time; two are enough to change one for the other."""
MAX_SECRET: Final = 512
"""Characters of a secret."""
MAX_HEADER: Final = 128
"""Characters of a header's name."""
MAX_PREFIX: Final = 64
"""Characters in front of a signature."""

_HEADER: Final = re.compile(rf"[A-Za-z0-9!#$%&'*+.^_`|~-]{{1,{MAX_HEADER}}}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_VISIBLE: Final = re.compile(r"[\x20-\x7e]*", re.ASCII)
_SHOWN: Final = 64


def _secret(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must have no control characters, such as a line break at its end")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be text, without half a surrogate pair") from None
    return text


def _standard(text: str) -> str:
    try:
        check_key(text)
    except SecretInvalid as error:
        raise ValueError(f"cannot be used: {error}") from None
    return text


def _header(text: str) -> str:
    if not _HEADER.fullmatch(text):
        raise ValueError(f"must be the name of a header, 1 to {MAX_HEADER} characters such as X-Signature")
    return text.lower()


def _prefix(text: str) -> str:
    if not _VISIBLE.fullmatch(text):
        raise ValueError("must be visible ASCII, such as sha256=")
    return text


def _username(text: str) -> str:
    if ":" in text:
        raise ValueError("must have no colon, which ends a name in Basic authentication")
    return _secret(text)


Secret = Annotated[str, Field(min_length=1, max_length=MAX_SECRET), AfterValidator(_secret)]
HeaderName = Annotated[str, AfterValidator(_header)]


class Auth(BaseModel):
    """What all ways have in common: `secrets`, any of which will do, and what is needed besides."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)
    secret_name: ClassVar[str] = "secret"
    """What one secret is called in JSON; several are called so with an s."""

    type: str
    secrets: Annotated[tuple[Secret, ...], Field(min_length=1, max_length=MAX_SECRETS, repr=False)]

    def settings(self) -> dict[str, Any]:
        """Return what may be shown, as JSON."""
        return self.model_dump(mode="json", exclude={"secrets"})


class StandardAuth(Auth):
    """Standard Webhooks: `whsec_` secrets, or `whpk_` keys of senders that sign by Ed25519."""

    type: Literal["standard"] = "standard"
    secrets: Annotated[
        tuple[Annotated[Secret, AfterValidator(_standard)], ...],
        Field(min_length=1, max_length=MAX_SECRETS, repr=False),
    ]


class GithubAuth(Auth):
    """`X-Hub-Signature-256`, as GitHub signs."""

    type: Literal["github"] = "github"


class StripeAuth(Auth):
    """`Stripe-Signature`, with its time."""

    type: Literal["stripe"] = "stripe"


class SlackAuth(Auth):
    """`X-Slack-Signature` and `X-Slack-Request-Timestamp`."""

    type: Literal["slack"] = "slack"


class HmacAuth(Auth):
    """An HMAC of the body in some header, `prefix` in front of it."""

    type: Literal["hmac"] = "hmac"
    header: HeaderName
    algorithm: Literal["sha256", "sha512", "sha1"] = "sha256"
    encoding: Literal["hex", "base64"] = "hex"
    prefix: Annotated[str, Field(max_length=MAX_PREFIX), AfterValidator(_prefix)] = ""


class BasicAuth(Auth):
    """Basic authentication (RFC 7617) in UTF-8; the secrets are passwords."""

    secret_name: ClassVar[str] = "password"
    type: Literal["basic"] = "basic"
    username: Annotated[str, Field(min_length=1, max_length=MAX_SECRET), AfterValidator(_username)]


class ApiKeyAuth(Auth):
    """A key that stands in a header as it is."""

    secret_name: ClassVar[str] = "key"
    type: Literal["api_key"] = "api_key"
    header: HeaderName = "x-api-key"


KINDS: Final[Mapping[str, type[Auth]]] = {
    "standard": StandardAuth,
    "github": GithubAuth,
    "stripe": StripeAuth,
    "slack": SlackAuth,
    "hmac": HmacAuth,
    "basic": BasicAuth,
    "api_key": ApiKeyAuth,
}


def read_auth(given: Any) -> Auth:
    """Return the way of authentication that JSON says. Raises `Invalid` with the member, never with its secrets."""
    if not isinstance(given, dict):
        raise Invalid("member_invalid", 'auth must be a JSON object such as {"type": "github", …}', field="auth")
    kind = given.get("type")
    model = KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise Invalid("member_invalid", f"auth.type must be one of {', '.join(KINDS)}", field="auth.type")
    named = {name: value for name, value in given.items() if value is not None}
    one, several = model.secret_name, f"{model.secret_name}s"
    _refuse_unknown(named, (model.model_fields.keys() - {"secrets"}) | {one, several})
    secrets = _one_or_several(named, one, several)
    try:
        return model.model_validate({**named, "secrets": secrets})
    except ValidationError as error:
        raise _refusal(error, one, several if several in given and given[several] is not None else None) from None


def stored_auth(settings: Mapping[str, Any], secrets: Sequence[str]) -> Auth:
    """Return the way of authentication that was stored."""
    return KINDS[settings["type"]].model_validate({**settings, "secrets": secrets})


def _refuse_unknown(named: Mapping[str, Any], known: set[str]) -> None:
    for name in named:
        if name not in known:
            place = f"auth.{name[:_SHOWN]}"
            listed = ", ".join(sorted(known))
            raise Invalid("member_unknown", f"the member {place!r} is not known here (known: {listed})", field=place)


def _one_or_several(named: dict[str, Any], one: str, several: str) -> Any:
    if one in named and several in named:
        raise Invalid("member_invalid", f"give auth.{one} or auth.{several}, not both", field=f"auth.{several}")
    if several in named:
        if not isinstance(named[several], list):
            raise Invalid("member_invalid", f"auth.{several} must be a list of texts", field=f"auth.{several}")
        return named.pop(several)
    if one not in named:
        said = f"the member 'auth.{one}' is required, or auth.{several} with several at a time"
        raise Invalid("member_missing", said, field=f"auth.{one}")
    return [named.pop(one)]


def _refusal(error: ValidationError, one: str, several: str | None) -> Invalid:
    """Say what the model refused first, at its place as it was sent."""
    first = error.errors(include_input=False, include_url=False)[0]
    steps = list(first["loc"])
    if steps[:1] == ["secrets"]:
        steps = [several, *steps[1:]] if several else [one]
    field = "auth" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    said = first["msg"].removeprefix("Value error, ")
    return Invalid("member_invalid", f"{field}: {said[0].lower()}{said[1:]}", field=field)

"""Paths with names in them that may have any characters."""

from urllib.parse import unquote

from starlette.routing import Match, Route
from starlette.types import Scope


class EncodedRoute(Route):
    """A route whose path is taken apart as it was sent, and decoded then: `a%2Fb` is one name, and none is two."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Tell whether a request is for this route, with the names that its path has."""
        raw: bytes | None = scope.get("raw_path")
        if raw is None:
            return super().matches(scope)
        match, found = super().matches({**scope, "path": raw.partition(b"?")[0].decode("latin-1")})
        if match is Match.NONE:
            return match, found
        try:
            names = {name: unquote(value, errors="strict") for name, value in found["path_params"].items()}
        except UnicodeDecodeError:
            return Match.NONE, {}
        return match, {**found, "path_params": names}

"""How the commands ask a server."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
import typer

from hurlbat.errors import ConfigError
from hurlbat.settings import read_settings
from hurlbat_app.cli.environment import environment
from hurlbat_app.cli.failure import Exit, Failure

Url = Annotated[str | None, typer.Option("--url", help="The server's URL.  [env var: HURLBAT_URL]")]
Token = Annotated[
    str | None, typer.Option("--token", help="The API token; better in the environment.  [env var: HURLBAT_TOKEN]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the server said it.")]

TIMEOUT = 30.0
_VISIBLE = re.compile(r"[!-~]+")


class Remote:
    """A server's API. Everything but an answer of success is a `Failure`."""

    def __init__(self, url: str | None, token: str | None) -> None:
        try:
            settings = read_settings({"url": url, "token": token}, environment())
        except ConfigError as error:
            raise Failure(f"{error}.", Exit.BAD_INPUT) from error
        if settings.token is not None and not _VISIBLE.fullmatch(settings.token):
            raise Failure(
                "the token (--token, HURLBAT_TOKEN) has a space, a line break or another sign that no token has.",
                Exit.BAD_INPUT,
            )
        self._url = settings.url.rstrip("/")
        headers = {"authorization": f"Bearer {settings.token}"} if settings.token else {}
        self._http = httpx.Client(headers=headers, timeout=TIMEOUT, trust_env=False)

    def get(self, path: str, query: Mapping[str, Any] | None = None, *, timeout: float = TIMEOUT) -> httpx.Response:
        """Ask for something."""
        return self._ask("GET", path, query, None, timeout)

    def find(self, path: str) -> Any:
        """Ask for something that may not be there: None."""
        response = self._response("GET", path, None, None, TIMEOUT)
        if response.status_code == 404:
            return None
        return self._good(response).json()

    def post(
        self,
        path: str,
        body: str | None = None,
        query: Mapping[str, Any] | None = None,
        *,
        timeout: float = TIMEOUT,
    ) -> httpx.Response:
        """Say something, in JSON."""
        return self._ask("POST", path, query, body, timeout)

    def put(self, path: str, body: str) -> httpx.Response:
        """Set something, in JSON."""
        return self._ask("PUT", path, None, body, TIMEOUT)

    def patch(self, path: str, body: str, *, timeout: float = TIMEOUT) -> httpx.Response:
        """Change something, in JSON."""
        return self._ask("PATCH", path, None, body, timeout)

    def delete(self, path: str) -> None:
        """Remove something."""
        self._ask("DELETE", path, None, None, TIMEOUT)

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str]) -> Iterator[Iterator[str]]:
        """Ask for something that comes in lines, while it happens."""
        try:
            with self._http.stream("GET", self._url + path, headers=headers, timeout=TIMEOUT) as response:
                if not response.is_success:
                    response.read()
                if response.is_server_error:  # it stops, or has too many of these
                    raise Failure(str(self._refusal(response)), Exit.NOT_REACHED)
                yield self._good(response).iter_lines()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failure(f"the server at {self._url} was lost ({error}).", Exit.NOT_REACHED) from error

    def _ask(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: str | None, timeout: float
    ) -> httpx.Response:
        return self._good(self._response(method, path, query, body, timeout))

    def _response(
        self, method: str, path: str, query: Mapping[str, Any] | None, body: str | None, timeout: float
    ) -> httpx.Response:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        headers = {"content-type": "application/json"} if body is not None else {}
        try:
            return self._http.request(
                method, self._url + path, params=given, content=body, headers=headers, timeout=timeout
            )
        except httpx.TimeoutException as error:
            raise Failure(f"the server at {self._url} did not answer in time.", Exit.NOT_REACHED) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Failure(
                f"no server was reached at {self._url} ({error}); start one with `hurlbat serve`, or set HURLBAT_URL.",
                Exit.NOT_REACHED,
            ) from error

    def _good(self, response: httpx.Response) -> httpx.Response:
        if not response.is_success:
            raise self._refusal(response)
        return response

    def _refusal(self, response: httpx.Response) -> Failure:
        try:
            problem = response.json()
            detail, code = str(problem["detail"]), str(problem["code"])
        except (ValueError, KeyError, TypeError):
            return Failure(
                f"{self._url} answered {response.status_code} and does not look like a Hurlbat server.",
                Exit.NOT_REACHED,
            )
        if response.status_code == 401:
            what = "wants a token, and none was given" if code == "token_missing" else f"refused the token: {detail}"
            return Failure(f"the server {what}. Set HURLBAT_TOKEN to the server's API token.", Exit.NOT_ALLOWED)
        status = Exit.BAD_INPUT if response.status_code == 422 else Exit.REFUSED
        return Failure(f"{detail} ({code}).", status)

"""The events that AWS makes of HTTP requests, and what it tells a function of its invocation.

A version is `url` (function URL), `http` (HTTP API), `rest` (REST API) or `balancer`.
"""

import base64
from typing import Any

VERSIONS = ("url", "http", "rest", "balancer")


class Invocation:
    """What a function is told of its invocation, as it begins: on a slow machine as much as on a fast one."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def get_remaining_time_in_millis(self) -> int:
        return int(self._seconds * 1000)


def event_of(version: str, method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """Return the event that AWS makes of a request."""
    if version == "url":
        context: dict[str, Any] = {"domainName": "abc.lambda-url.eu-west-1.on.aws", "http": {"method": method}}
        lower = {name.lower(): value for name, value in headers.items()}
        return {
            "version": "2.0",
            "rawPath": path,
            "headers": lower,
            "requestContext": context,
            "body": base64.b64encode(body).decode(),
            "isBase64Encoded": True,
        }
    try:
        text: dict[str, Any] = {"body": body.decode() or None, "isBase64Encoded": False}
    except UnicodeDecodeError:
        text = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    if version == "http":
        context = {"domainName": "abc.execute-api.eu-west-1.amazonaws.com", "stage": "prod", "http": {"method": method}}
        lower = {name.lower(): value for name, value in headers.items()}
        return {"version": "2.0", "rawPath": f"/prod{path}", "headers": lower, "requestContext": context} | text
    lists = {name.title(): [value] for name, value in headers.items()}
    if version == "rest":
        single = {name.title(): value for name, value in headers.items()}
        named = {"version": "1.0", "resource": "/{proxy+}", "httpMethod": method, "path": path}
        return named | {"headers": single, "multiValueHeaders": lists, "requestContext": {"stage": "prod"}} | text
    return {"httpMethod": method, "path": path, "multiValueHeaders": lists, "requestContext": {"elb": {}}} | text

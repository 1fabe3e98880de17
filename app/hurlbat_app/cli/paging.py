"""Lists as people see them: as long as asked for, though the server may find them in several short pages."""

import time
from collections.abc import Mapping
from typing import Any, Final

import typer

from hurlbat_app.cli.remote import Remote
from hurlbat_app.cli.wrapping import wrapped

PATIENCE: Final = 5.0
"""Seconds for which the next page is asked for, as long as there are fewer items than the list is to have."""


def listed(remote: Remote, path: str, query: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return up to `limit` items of a list, and the cursor of what comes next.

    The server ends a page before it is full where it has looked at very many and few were meant.
    """
    until = time.monotonic() + PATIENCE
    page: dict[str, Any] = remote.get(path, {**query, "limit": limit}).json()
    items = page["items"]
    while page["next_cursor"] and len(items) < limit and time.monotonic() < until:
        more = {**query, "limit": limit - len(items), "cursor": page["next_cursor"]}
        page = remote.get(path, more).json()
        items += page["items"]
    return {"items": items, "next_cursor": page["next_cursor"]}


def print_more(page: Mapping[str, Any], limit: int) -> None:
    """Say how to go on where there are more, or may be."""
    cursor = page["next_cursor"]
    if not cursor:
        return
    if len(page["items"]) < limit:
        typer.echo(wrapped(f"Very many were looked at, and not all yet. To go on: --cursor {cursor}"))
    else:
        typer.echo(f"There are more: --cursor {cursor}")

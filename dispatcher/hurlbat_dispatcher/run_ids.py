"""Ids of runs, as others name them."""

import re
from typing import Final

from hurlbat_dispatcher.errors import Invalid, NotFound

_RUN_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def unknown_run(run_id: str) -> NotFound:
    """Return the problem of a run that is not there."""
    return NotFound("run_unknown", f"there is no run {run_id[:64]}")


def unknown_parent(parent: str) -> Invalid:
    """Return the problem of a parent that is not there."""
    return Invalid("parent_unknown", f"there is no run {parent[:64]}", field="parent")


def is_run_id(text: str) -> bool:
    """Tell whether it may be the id of a run."""
    return _RUN_ID.fullmatch(text) is not None


def check_run_id(run_id: str) -> None:
    """Return when it may be the id of a run. Raises `NotFound`."""
    if not _RUN_ID.fullmatch(run_id):
        raise unknown_run(run_id)


def check_cursor(cursor: str) -> str:
    """Return the cursor of a page of runs, which is the id of its last. Raises `Invalid`."""
    if not _RUN_ID.fullmatch(cursor):
        raise Invalid("bad_cursor", "the cursor is not one that this server made", field="cursor")
    return cursor

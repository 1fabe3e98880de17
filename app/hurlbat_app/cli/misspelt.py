"""Find variables that look like settings and are none: a misspelt one would be ignored without a word."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Final

from hurlbat.settings import Settings as AppSettings
from hurlbat_dispatcher import Settings

_PREFIX: Final = "HURLBAT_"
_KNOWN: Final = sorted(
    {f"{_PREFIX}{name.upper()}" for name in Settings.model_fields}
    | {f"{_PREFIX}{field.name.upper()}" for field in fields(AppSettings) if field.name != "keys"}
    | {f"{_PREFIX}SIGNING_SECRET"}
)
_OTHERS: Final = re.compile(r"HURLBAT_(CHAOS|TEST|BENCH|SERVICE|PORT)_.*")
"""Variables of our own tools, and those that Kubernetes sets for a service called hurlbat."""


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each `HURLBAT_…` variable that is no setting, with the setting that may be meant."""
    return list(_unknown(environ))


def _unknown(environ: Mapping[str, str]) -> Iterator[str]:
    for given in sorted(environ):
        name = given.upper()
        if not name.startswith(_PREFIX) or name in _KNOWN or _OTHERS.fullmatch(name):
            continue
        near = get_close_matches(name, _KNOWN, n=1, cutoff=0.8)
        hint = f"; is {near[0]} meant?" if near else ""
        yield f"{given} is no setting and changes nothing{hint}"

"""Look at a worker: make the checks one after the other, and stop where the rest is hopeless."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hurlbat.settings import read_settings
from hurlbat_app.conform.bench import Bench, Target
from hurlbat_app.conform.catalogue import CHECKS, FIRST
from hurlbat_app.conform.checks import Check, Finding, Outcome
from hurlbat_app.conform.probe import Trouble, Unreachable
from hurlbat_app.conform.report import Report
from hurlbat_app.conform.verdicts import Failed, Hopeless, Skipped

TIMEOUT: Final = 10.0
MOST_CHARS: Final = 1_000
"""Of what is told about a check."""

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Audience:
    """Whoever wants to hear how far it is; of what is hopeless nothing is told any more."""

    def begins(self, check: Check) -> None:
        """Hear that a check begins."""

    def found(self, finding: Finding) -> None:
        """Hear what came of a check."""


def conform(url: str, secret: str | Sequence[str], **options: Any) -> Report:
    """Look at a worker from where no event loop runs; `examine` says what the options are."""
    return asyncio.run(examine(url, secret, **options))


async def examine(
    url: str,
    secret: str | Sequence[str],
    *,
    mode: str = "protocol",
    worker: str = "conform",
    task: str | None = None,
    input: str = "null",
    headers: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    audience: Audience | None = None,
) -> Report:
    """Look at the worker at a URL that has this secret, or these, and return what came of every check.

    `task` with its `input` (raw JSON) is one of the worker's own, for the checks that need any; `worker` is what it is
    called. `timeout` is how many seconds it gets for an answer. `only` and `skip` name groups of checks, or checks.
    Raises `ConfigError` for a secret that cannot sign.
    """
    keys = read_settings({"signing_secret": secret}, {}).keys
    target = Target(url, keys, mode, worker, task, input, dict(headers or {}), timeout)
    examination = _Examination(audience or Audience(), only, skip)
    began = time.monotonic()
    async with Bench(target) as bench:
        await examination.make(bench)
    manifest = bench.manifest
    return Report(
        url,
        mode,
        manifest.sdk if manifest else None,
        manifest.version if manifest else None,
        tuple(examination.findings),
        time.monotonic() - began,
        examination.stopped,
    )


def chosen(check: Check, mode: str, only: Sequence[str], skip: Sequence[str]) -> bool:
    """Tell whether a check is wanted of a worker of this mode."""
    named = {check.group, check.id}
    return mode in check.modes and (not only or not named.isdisjoint(only)) and named.isdisjoint(skip)


class _Examination:
    def __init__(self, audience: Audience, only: Sequence[str], skip: Sequence[str]) -> None:
        self.findings: list[Finding] = []
        self.stopped: str | None = None
        self._audience = audience
        self._only = only
        self._skip = skip
        self._unclear: set[str] = set()
        """The checks that failed, and those that were not made as one of these did."""

    async def make(self, bench: Bench) -> None:
        """Make all checks, the first ones first."""
        mode = bench.target.mode
        checks = sorted(CHECKS, key=lambda check: FIRST.index(check.id) if check.id in FIRST else len(FIRST))
        for check in checks:
            wanted = chosen(check, mode, self._only, self._skip)
            if mode not in check.modes or not (wanted or check.id in FIRST):
                continue
            finding = await self._made(check, bench)
            if wanted or self.stopped == check.id:
                self.findings.append(finding)
                if self.stopped in (None, check.id):
                    self._audience.found(finding)

    async def _made(self, check: Check, bench: Bench) -> Finding:
        if self.stopped is not None:
            return _finding(check, Outcome.SKIPPED, f"not looked at, as {self.stopped} failed")
        if unclear := [one for one in check.after if one in self._unclear]:
            self._unclear.add(check.id)
            return _finding(check, Outcome.SKIPPED, f"not looked at, as {unclear[0]} failed")
        self._audience.begins(check)
        try:
            return _finding(check, Outcome.PASSED, await check.look(bench))
        except Skipped as skipped:
            return _finding(check, Outcome.SKIPPED, skipped.reason)
        except Failed as failed:
            return self._failed(check, failed)
        except Unreachable as trouble:
            gone = Hopeless(f"the worker does not take connections any more: {trouble}", "Look into the worker's log.")
            return self._failed(check, gone)
        except Trouble as trouble:
            return self._failed(check, Hopeless(str(trouble)) if check.id in FIRST else Failed(str(trouble)))

    def _failed(self, check: Check, failed: Failed) -> Finding:
        self._unclear.add(check.id)
        if isinstance(failed, Hopeless):
            self.stopped = check.id
        return _finding(check, Outcome.FAILED, failed.seen, failed.fix)


def _finding(check: Check, outcome: Outcome, seen: str, fix: str | None = None) -> Finding:
    if outcome is not Outcome.FAILED:
        return Finding(check.id, check.group, outcome, check.says, _clean(seen))
    return Finding(check.id, check.group, outcome, check.says, _clean(seen), check.why, _clean(fix or check.fix))


def _clean(text: str) -> str:
    """Return words of a worker as they may be shown on a terminal, and not without end."""
    plain = _CONTROL.sub("\ufffd", text)
    return plain if len(plain) <= MOST_CHARS else f"{plain[:MOST_CHARS]}…"

"""What came of looking at a worker, and how it is told to people and to machines."""

import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import typer

from hurlbat_app.conform.checks import Check, Finding, Outcome

WIDTH: Final = 110
_MARKS: Final = {
    Outcome.PASSED: ("passed", typer.colors.GREEN),
    Outcome.FAILED: ("FAILED", typer.colors.RED),
    Outcome.SKIPPED: ("skipped", typer.colors.YELLOW),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What came of every check. `stopped` says after which one the rest was hopeless, or is None."""

    url: str
    mode: str
    sdk: str | None
    """Who the worker says it is."""
    version: str | None
    """The version of its manifest."""
    findings: tuple[Finding, ...]
    seconds: float
    stopped: str | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def passed(self) -> tuple[Finding, ...]:
        """The checks that passed."""
        return self._of(Outcome.PASSED)

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that failed."""
        return self._of(Outcome.FAILED)

    @property
    def skipped(self) -> tuple[Finding, ...]:
        """The checks that were skipped."""
        return self._of(Outcome.SKIPPED)

    @property
    def summary(self) -> str:
        """How it ended, in a sentence."""
        counts = f"{len(self.passed)} passed, {len(self.failed)} failed, {len(self.skipped)} skipped"
        stopped = f" Nothing more could be looked at after {self.stopped}." if self.stopped else ""
        return f"{counts}, in {self.seconds:.1f} s.{stopped}"

    def as_json(self) -> dict[str, Any]:
        """Return it as one object of JSON values."""
        return {
            "url": self.url,
            "mode": self.mode,
            "sdk": self.sdk,
            "version": self.version,
            "conforms": self.ok,
            "passed": len(self.passed),
            "failed": len(self.failed),
            "skipped": len(self.skipped),
            "stopped": self.stopped,
            "seconds": round(self.seconds, 3),
            "checks": [asdict(finding) for finding in self.findings],
        }

    def _of(self, outcome: Outcome) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.outcome is outcome)


def told(finding: Finding) -> Iterator[str]:
    """Give the lines that tell what came of a check."""
    word, colour = _MARKS[finding.outcome]
    yield f"{typer.style(f'{word:<8}', fg=colour)}{finding.check:<30}{finding.says}"
    match finding.outcome:
        case Outcome.SKIPPED:
            yield from _wrapped("", finding.seen)
        case Outcome.FAILED:
            yield from _wrapped("seen", finding.seen)
            yield from _wrapped("why", finding.why or "")
            yield from _wrapped("fix", finding.fix or "")


def listed(check: Check) -> Iterator[str]:
    """Give the lines that tell of a check."""
    modes = "" if len(check.modes) > 1 else f" ({min(check.modes)} workers)"
    yield f"{check.id:<30}{check.says}{modes}"
    yield from _wrapped("why", check.why)


def _wrapped(label: str, text: str) -> Iterator[str]:
    sentence = text[:1].upper() + text[1:]
    if sentence and sentence[-1] not in ".…!?":
        sentence += "."
    lines = textwrap.wrap(sentence, WIDTH - 16, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        yield f"{'':8}{label if not number else '':<6}{line}"

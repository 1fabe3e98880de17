"""Every fault of a worker gets the failures that it deserves, and no others."""

import asyncio
from itertools import zip_longest
from typing import Any

import pytest

from hurlbat_app.conform import CHECKS, Report, examine
from tests.conform.plain_worker import PlainHandler
from tests.conform.sloppy import SECRET, Sloppy

AT_ONCE = 8
PATIENCE = 60.0
"""Seconds for an answer: these workers, and who looks at them, are all in one process, which may stand still."""
LARGE = ("sizes",)
REFUSALS = {
    *("signatures.unsigned", "signatures.wrong-key", "signatures.changed-body", "signatures.old", "signatures.ahead"),
    *("signatures.garbage-id", "signatures.garbage-timestamp", "signatures.garbage-signature"),
    *("signatures.other-id", "signatures.other-message", "rotation.foreign"),
    *("signatures.part", "signatures.other-kind", "signatures.two-values", "signatures.every-message"),
}
NO_AGE_CHECK = {"signatures.old", "signatures.ahead", "signatures.two-values"}
OF_SIGNATURES: dict[str, set[str]] = {
    "no-age-check": NO_AGE_CHECK,
    "takes-the-future": {"signatures.ahead"},
    "first-signature-only": {"signatures.good-among-bad", "rotation.last", "rotation.after-unknown"},
    "last-signature-only": {"signatures.good-among-bad", "rotation.first"},
    "takes-unsigned": {"signatures.unsigned", "signatures.garbage-signature", "signatures.every-message"},
    "believes": REFUSALS
    - {"signatures.unsigned", "signatures.old", "signatures.ahead", "signatures.garbage-timestamp"},
    "exact-case": {"signatures.header-case"},
    "500-on-bad-signature": REFUSALS,
    "403-for-401": REFUSALS,
    "garbage-crashes": {
        *("reachable.mark-on-errors", "signatures.unsigned", "signatures.good-among-bad"),
        *("signatures.garbage-timestamp", "signatures.garbage-signature"),
        *("signatures.part", "signatures.every-message"),
    },
    "crashes-on-other-lengths": {"signatures.part", "signatures.garbage-signature", "signatures.good-among-bad"},
    "compares-a-prefix": {"signatures.part"},
    "compares-a-suffix": {"signatures.part"},
    "compares-what-came": {"signatures.part", "signatures.garbage-signature"},
    "stops-at-no-base64": {"signatures.part"},
    "ignores-letter-case": {"signatures.part"},
    "any-of-good-length": {
        *("signatures.wrong-key", "signatures.changed-body", "signatures.other-id", "signatures.other-message"),
        *("signatures.part", "signatures.every-message", "signatures.two-values", "rotation.foreign"),
        "signatures.garbage-id",
    },
    "ignores-the-kind": {"signatures.other-kind"},
    "age-by-the-last": {"signatures.two-values"},
    "verifies-probes-alone": {"signatures.every-message"},
    "no-skew": {"signatures.skew"},
    "signs-latin-1": {"signatures.other-letters", "delivery.echo", "failures.failed"},
}
OF_THE_HEAD: dict[str, set[str]] = {
    "no-mark": {"reachable.mark", "reachable.mark-on-errors", "delivery.mark"},
    "no-mark-on-errors": {"reachable.mark-on-errors"},
    "get-crashes": {"reachable.get"},
    "manifest-as-html": {"manifest.typed"},
    "version-changes": {"manifest.version"},
    "another-mark": {"manifest.version"},
    "crashes-on-unknown-members": {"manifest.unknown-members", "delivery.unknown-members"},
    "crashes-on-unknown-type": {"manifest.unknown-type"},
    "crashes-on-no-message": {"manifest.no-message"},
    "compresses": {"streams.identity"},
}
OF_RUNS: dict[str, set[str]] = {
    "null-is-empty": {"delivery.echo"},
    "loses-names": {"delivery.echo"},
    "short-numbers": {"batches.long-numbers"},
    "forgets": {"delivery.again"},
    "ascii": {"delivery.echo", "failures.failed"},
    "unknown-task-crashes": {"delivery.unknown-task", "batches.one-fails"},
    "unknown-task-by-another-name": {"delivery.unknown-task"},
    "checks-target+crashes-on-another-target": {"delivery.wrong-target"},
    "runs-twice": {"delivery.twice", "delivery.again"},
    "answers-one-of-many": {"batches.all"},
    "failure-stops-neighbours": {"batches.one-fails"},
    "one-after-the-other": {"batches.slow"},
    "no-error-type": {"failures.failed"},
    "always-retryable": {"failures.retryable"},
    "drops-retry-after": {"failures.retry-after"},
    "remembers-run-ids": {"failures.again"},
    "says-attempt-1": {"failures.again"},
}
_NONE: tuple[str, set[str]] = ("", set())
TOGETHER: dict[str, set[str]] = {
    "+".join(fault for fault, _ in faults): set().union(*(deserved for _, deserved in faults))
    for faults in zip_longest(OF_SIGNATURES.items(), OF_THE_HEAD.items(), OF_RUNS.items(), fillvalue=_NONE)
}
"""Faults that have nothing to do with each other, looked at together as that takes less time."""
ALONE: dict[str, set[str]] = {
    "": set(),
    "redirects": {"reachable.no-redirect"},
    "login-page": {"reachable.mark"},
    "bad-manifest": {"manifest.valid"},
    "two-results": {"delivery.result"},
    "names-another-run": {"delivery.result"},
    "checks-target": set(),
    "max-batch-1": set(),
}
"""Faults after which other checks are skipped, and what is no fault."""
OF_STREAMS: dict[str, set[str]] = {
    "whole": {"streams.type"},
    "whole-and-says-so": set(),
    "no-started": {"streams.lines"},
    "bad-lines": {"streams.lines"},
    "buffers": {"streams.started"},
    "no-heartbeats": {"streams.heartbeats"},
    "ignores-cancel": {"cancel.stopped"},
    "goes-on-when-stopped": {"cancel.ends"},
    "says-stopped-of-all": {"cancel.unknown"},
    "202": set(),
    "202+wrong-token": {"reports.token"},
    "202+no-reported-heartbeats": {"reports.heartbeats"},
    "202+beats-after-the-end": {"reports.over"},
}
NEVER_REPORTED = {"delivery.result", "reports.complete"}
TRIES = 8
"""How often a worker is looked at with no patience: one that stands still in that time has other failures as well."""
OF_PLAIN_WORKERS: dict[str, set[str]] = {
    "": set(),
    "refuses-with-400": set(),
    "no-age-check": NO_AGE_CHECK,
    "first-signature-only": {"signatures.good-among-bad", "rotation.last", "rotation.after-unknown"},
    "redirects": {"reachable.no-redirect"},
    "knows-one-task": {"signatures.good"},
    "no-echo": set(),
    "compresses": {"delivery.identity"},
    "no-retry-words": {"failures.no-retry"},
    "no-retry-after": {"failures.retry-words"},
    "unreadable-retry-after": {"failures.retry-words"},
    "retry-after-on-500": {"failures.retry-words"},
    "remembers-failures": {"failures.same-id"},
    "remembers-success": {"delivery.done-again"},
    "fails-as-200": {"failures.no-retry", "failures.retry-words", "failures.same-id"},
    "202": set(),
}


async def looked_at(faults: list[str], **options: Any) -> dict[str, Report]:
    """Look at workers with these faults, a few at a time."""
    turn = asyncio.Semaphore(AT_ONCE)
    handler = PlainHandler if options.get("mode") == "plain" else None

    async def look(fault: str) -> Report:
        async with turn:
            with Sloppy(*fault.split("+"), handler=handler) as worker:
                return await examine(worker.url, SECRET, timeout=PATIENCE, **options)

    return dict(zip(faults, await asyncio.gather(*[look(fault) for fault in faults]), strict=True))


def failures(reports: dict[str, Report]) -> dict[str, set[str]]:
    return {fault: {finding.check for finding in report.failed} for fault, report in reports.items()}


@pytest.mark.anyio
@pytest.mark.parametrize("deserved", [TOGETHER, ALONE, OF_STREAMS], ids=["together", "alone", "streams"])
async def test_every_fault_gets_the_failures_it_deserves_and_no_others(deserved: dict[str, set[str]]) -> None:
    reports = await looked_at(list(deserved), skip=LARGE)

    assert failures(reports) == deserved


@pytest.mark.anyio
async def test_a_sloppy_worker_without_age_check_and_rotation_that_buffers_its_streams() -> None:
    fault = "no-age-check+first-signature-only+buffers"

    reports = await looked_at([fault], skip=LARGE)

    deserved = OF_SIGNATURES["no-age-check"] | OF_SIGNATURES["first-signature-only"] | OF_STREAMS["buffers"]
    assert failures(reports) == {fault: deserved}
    assert all(finding.seen and finding.why and finding.fix for finding in reports[fault].failed)


@pytest.mark.anyio
async def test_every_fault_of_a_plain_worker_gets_the_failures_it_deserves_and_no_others() -> None:
    reports = await looked_at(list(OF_PLAIN_WORKERS), mode="plain", skip=LARGE)

    assert failures(reports) == OF_PLAIN_WORKERS


@pytest.mark.anyio
async def test_what_is_never_reported_is_told_when_the_patience_is_at_its_end() -> None:
    for _ in range(TRIES):
        with Sloppy("202", "reports-nothing") as worker:
            report = await examine(worker.url, SECRET, timeout=1, skip=LARGE)
        if {finding.check for finding in report.failed} == NEVER_REPORTED:
            break

    assert {finding.check for finding in report.failed} == NEVER_REPORTED


@pytest.mark.anyio
async def test_what_is_too_small_or_too_large_is_told() -> None:
    deserved = {
        "": set[str](),
        "limit-1048576": {"sizes.input"},
        "limit-4194304": {"sizes.delivery"},
        "limit-99999999": {"sizes.too-large"},
        "long-lines": {"sizes.long-answer"},
    }

    assert failures(await looked_at(list(deserved), only=LARGE)) == deserved


@pytest.mark.anyio
async def test_a_stream_that_stays_open_is_told() -> None:
    reports = await looked_at(["stays-open", "never-ends"], only=("delivery.result", "streams", "failures"))

    assert failures(reports) == {"stays-open": {"streams.ends"}, "never-ends": {"streams.ends"}}


def test_every_check_has_a_fault_that_it_finds() -> None:
    found = {"streams.ends", "sizes.input", "sizes.delivery", "sizes.too-large", "sizes.long-answer", *NEVER_REPORTED}
    for deserved in (TOGETHER, ALONE, OF_STREAMS, OF_PLAIN_WORKERS):
        found = found.union(*deserved.values())

    # looked at elsewhere: no answer at all, several secrets, a plain worker that fails
    assert {check.id for check in CHECKS} - found == {
        "reachable.answers",
        "rotation.each",
        "delivery.completes",
        "delivery.plain-echo",
    }

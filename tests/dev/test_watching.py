"""How often a watched worker is asked and proved: a proof leaves three refusals in its log."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from hurlbat_app.dev import watching
from hurlbat_app.dev.screen import Screen
from hurlbat_app.dev.watching import Watch
from hurlbat_dispatcher import WorkerState

pytestmark = pytest.mark.anyio
SECONDS = 60


class Far:
    """A worker and the server that proves it, without a network between them."""

    def __init__(self, state: WorkerState, problem: str | None = None) -> None:
        self.state = state
        self.problem = problem
        self.manifest = "1"
        self.is_here = True
        self.proofs = 0
        self.asked = 0
        self.looks = 0
        self.bell = asyncio.Event()

    def _worker(self) -> SimpleNamespace:
        return SimpleNamespace(state=self.state, problem=self.problem, tasks=("echo",), manifest=self.manifest)

    async def register_worker(self, _: object) -> SimpleNamespace:
        """Register it, which proves it."""
        return SimpleNamespace(worker=self._worker())

    async def sync_worker(self, _: str) -> SimpleNamespace:
        """Prove it."""
        self.proofs += 1
        self.bell.set()
        return self._worker()

    async def describe(self, *_: str) -> SimpleNamespace:
        """Say what it serves."""
        self.asked += 1
        self.bell.set()
        return SimpleNamespace(version=self.manifest)

    async def answers(self, _: Watch) -> bool:
        """Tell whether it is there."""
        self.looks += 1
        self.bell.set()
        return self.is_here


async def _until(far: Far, member: str, more: int) -> None:
    """Wait until something was done so often from now on."""
    wanted = getattr(far, member) + more
    async with asyncio.timeout(SECONDS):
        while getattr(far, member) < wanted:
            far.bell.clear()
            await far.bell.wait()


def _watch(monkeypatch: pytest.MonkeyPatch, far: Far) -> "asyncio.Task[None]":
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("LOOK_SECONDS", "PROVE_SECONDS", "SYNC_SECONDS"):
        monkeypatch.setattr(watching, name, 0.001)
    monkeypatch.setattr(watching, "described", far.describe)
    monkeypatch.setattr(Watch, "_answers", lambda watch: far.answers(watch))
    engine: Any = far
    return asyncio.create_task(Watch("http://127.0.0.1:9000/", "whsec_x", Screen()).run(engine))


async def test_a_ready_worker_is_asked_again_and_again_and_proved_when_it_has_changed_or_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    far = Far(WorkerState.READY)
    watch = _watch(monkeypatch, far)
    await _until(far, "asked", 5)
    assert far.proofs == 1  # when it was first seen to be there

    far.manifest = "2"
    await _until(far, "proofs", 1)
    await _until(far, "asked", 5)
    assert far.proofs == 2

    far.is_here = False
    await _until(far, "looks", 2)
    far.is_here = True
    await _until(far, "proofs", 1)
    await _until(far, "asked", 5)
    assert far.proofs == 3
    watch.cancel()


async def test_a_worker_that_is_not_ready_is_proved_until_it_is_and_its_problem_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    far = Far(WorkerState.REJECTED, "the clocks differ by 400 s")
    watch = _watch(monkeypatch, far)
    await _until(far, "proofs", 3)
    far.problem = "the clocks differ by 401.5 s"
    await _until(far, "proofs", 3)
    assert far.asked == 0
    far.state, far.problem = WorkerState.READY, None
    await _until(far, "asked", 2)
    watch.cancel()

    told = capsys.readouterr().out
    assert told.count("is rejected: the clocks differ by 400 s") == told.count("is rejected") == 1
    assert told.count("is ready: serves echo") == told.count("the server's own") == 1

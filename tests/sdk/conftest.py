"""What several tests of the SDK share: each call is made in async and in sync code, and pauses are short."""

import asyncio

import pytest

from tests.sdk.fake_server import Caller


@pytest.fixture(params=["async", "sync"])
def call(request: pytest.FixtureRequest) -> Caller:
    """Makes calls in one of the two manners."""
    return Caller(request.param)


@pytest.fixture
def noted_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Note the pauses between tries, and make them short."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        noted.append(seconds)
        await sleep(0)

    monkeypatch.setattr("hurlbat.client.asyncio.sleep", pause)
    monkeypatch.setattr("hurlbat.sync_client.outside.sleep", noted.append)
    return noted

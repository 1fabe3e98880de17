"""What these tests share: connections that are kept however slow a machine is, and an authority for TLS."""

import pytest

from hurlbat_dispatcher.push import connections
from tests.push.far_side import LONG, Authority, make_authority


@pytest.fixture(autouse=True)
def kept_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep idle connections for longer than a machine stands still: whether one is used again is not left to chance."""
    monkeypatch.setattr(connections, "IDLE_SECONDS", LONG)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts unless told."""
    return make_authority(tmp_path_factory.mktemp("certificates"))

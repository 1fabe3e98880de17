"""What tests of TLS share: an authority whose certificates the far side shows."""

import pytest

from tests.push.far_side import Authority, make_authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts unless told."""
    return make_authority(tmp_path_factory.mktemp("certificates"))

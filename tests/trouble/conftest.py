"""A PostgreSQL that only one test uses."""

from collections.abc import Iterator

import pytest

from tests.support.postgres import Cluster, running_cluster


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL to be restarted, and to be told other settings."""
    with running_cluster() as cluster:
        yield cluster

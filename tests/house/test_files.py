"""A server has files for as many connections as it may open, or says that it has not."""

import subprocess
import sys

_TRY = """
import logging, resource, sys
from hurlbat_app.files import make_room
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, (200, int(sys.argv[1])))
make_room(int(sys.argv[2]))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


def _tried(hard: int, connections: int) -> tuple[int, str]:
    command = [sys.executable, "-c", _TRY, str(hard), str(connections)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout), done.stderr


def test_the_limit_is_raised_to_what_is_wanted() -> None:
    assert _tried(4_000, 500) == (1_500, "")


def test_where_it_cannot_be_raised_so_far_it_is_said() -> None:
    limit, said = _tried(900, 500)
    assert limit == 900
    assert "HURLBAT_MAX_CONNECTIONS" in said
    assert "to 1500" in said

"""What stands in front of a handler: it works where it can, and says in a sentence why where it cannot."""

from collections.abc import Iterator

import pytest

from tests.frameworks.stand import Stand
from tests.support.processes import Server


@pytest.fixture(scope="module")
def worker(stand: Stand) -> Iterator[Server]:
    """The app, behind a proxy that has taken `/api` off the path."""
    command = ("tests.frameworks.middleware_app:app", "--root-path", "/api", "--port", "{port}")
    started = stand.start("uvicorn", *command, "--log-level", "warning")
    yield started
    started.terminate()


@pytest.mark.parametrize(
    "path",
    [
        *("/gzip/hurlbat/", "/read/hurlbat/", "/parsed/hurlbat/", "/in-front/hurlbat", "/in-front/hurlbat/"),
        *("/outer/inner/hurlbat", "/outer/inner/hurlbat/"),
    ],
)
def test_a_worker_runs_its_tasks_where_its_body_and_its_answer_come_through(
    stand: Stand, worker: Server, path: str
) -> None:
    shown = stand.register(worker, "behind", path)
    assert (shown["state"], shown["problem"]) == ("ready", None)
    assert stand.api.run("behind.shout", "hello")["output"] == "HELLO"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/used-up/hurlbat/", "the body was read before it came here: content-length says "),
        ("/written-anew/hurlbat/", "the body was changed before it came here: content-length says "),
        ("/compressed/hurlbat/", "content-encoding: gzip, which was not offered"),
        ("/gzip/hurlbat", "the worker answered 307; "),
    ],
)
def test_a_worker_that_cannot_be_reached_as_it_is_mounted_says_why(
    stand: Stand, worker: Server, path: str, said: str
) -> None:
    shown = stand.register(worker, "behind", path)
    assert shown["state"] == "rejected"
    assert said in shown["problem"]
    assert "its secret or its clock is wrong" not in shown["problem"]

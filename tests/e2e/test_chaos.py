"""Killed servers, killed and absent workers: no acknowledged run is lost, and every repeat has its reason."""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.chaos import Count, Submitters, count, kills, size
from tests.e2e.stage import Api, Journal, Object, assert_no_faults, start_both, start_worker, until
from tests.support.postgres import Cluster
from tests.support.processes import Processes, Server
from tests.support.stands import UNHURRIED

QUICK: dict[str, Any] = {"HURLBAT_LEASE": "2", "HURLBAT_HEARTBEAT": "0.7"}
"""A shared database is taken over when a lease has run out; tests need not wait for the usual 15 s."""
AWAY = {"503 database_unavailable", "503 outcome_unknown"}
"""What clients are told while the database is away."""
DUTY = "a background duty failed"
LOST = {"unknown_outcome", "lease_expired"}


class Scene:
    """Servers and one worker that are killed, stopped and started again, always at the same ports."""

    def __init__(
        self, processes: Processes, folder: Path, database_url: str, servers: int = 1, *, kills: bool = True
    ) -> None:
        self._processes = processes
        self._url = database_url
        self._settings = QUICK if kills else UNHURRIED
        self.journal = Journal(folder / "journal")
        server, self.worker = start_both(processes, self.journal, database_url, **self._settings)
        self.servers = [server, *(processes.serve(database_url, **self._settings) for _ in range(servers - 1))]
        self._past: list[Server] = []
        with self.api() as api:
            api.register(self.worker)

    def api(self) -> Api:
        """Return a client of a server; they are all the same."""
        return Api(self.servers[-1].url)

    def start_server(self, place: int) -> None:
        """Start a server where one has ended."""
        self._past.append(self.servers[place])
        self.servers[place] = self._processes.serve(self._url, port=self.servers[place].port, **self._settings)

    def start_worker(self) -> None:
        """Start the worker where it has ended."""
        self.worker = start_worker(self._processes, self.journal, port=self.worker.port)

    def kill_server(self, place: int = 0) -> None:
        """End a server as a power cut would, and start it again."""
        self.servers[place].kill()
        self.start_server(place)

    def deploy_server(self) -> None:
        """End the server as a deploy does, and start it again."""
        assert self.servers[0].terminate() == 0
        self.start_server(0)

    def kill_worker(self) -> None:
        """End the worker as a power cut would, and start it again."""
        self.worker.kill()
        self.start_worker()

    def deploy_worker(self) -> None:
        """End the worker as a deploy does, and start it again."""
        self.worker.terminate()
        self.start_worker()

    def assert_no_faults(self, but: str = "") -> None:
        """No server has logged what ought not to happen."""
        for server in (*self._past, *self.servers):
            assert_no_faults(server, but)


Blow = Callable[[], None]


def suffer(scene: Scene, blows: list[Blow], runs: int, *, task: str = "work", seed: int = 1) -> Count:
    """Submit runs to all servers while the blows fall at random; return what became of the runs."""
    submitters = Submitters([server.url for server in scene.servers], runs, task)
    began = time.monotonic()
    with submitting(submitters):
        for threshold, blow in zip(kills(runs, len(blows), seed), blows, strict=True):
            submitters.until(threshold)
            blow()
    with scene.api() as api:
        found = count(api, submitters, scene.journal, began)
    print(found)
    return found


@contextmanager
def submitting(submitters: Submitters) -> Iterator[None]:
    """Submit while the block lasts, and until all is acknowledged."""
    submitters.start()
    try:
        yield
    except BaseException:
        submitters.give_up()
        raise
    finally:
        submitters.join()


def test_runs_survive_a_server_that_is_killed_again_and_again(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    scene, wanted = Scene(processes, tmp_path, database_url), size()

    found = suffer(scene, [scene.kill_server] * wanted.kills, wanted.runs)

    assert_all_done(found)
    scene.assert_no_faults()


def test_runs_survive_a_worker_that_is_killed_again_and_again(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    scene, wanted = Scene(processes, tmp_path, database_url), size()

    found = suffer(scene, [scene.kill_worker] * wanted.kills, wanted.runs, seed=2)

    assert_all_done(found)
    scene.assert_no_faults()


def test_runs_survive_a_database_that_is_killed_again_and_again(
    processes: Processes, tmp_path: Path, own_cluster: Cluster
) -> None:
    scene, wanted = Scene(processes, tmp_path, own_cluster.url("postgres")), size()

    def kill_database() -> None:
        own_cluster.stop("immediate")
        own_cluster.start()

    found = suffer(scene, [kill_database] * wanted.kills, wanted.runs, seed=3)

    assert_all_done(found, AWAY)
    scene.assert_no_faults(but=DUTY)


def test_runs_survive_two_servers_that_are_killed_in_turn(
    processes: Processes, tmp_path: Path, postgres_url: str
) -> None:
    scene, wanted = Scene(processes, tmp_path, postgres_url, servers=2), size()

    found = suffer(scene, [partial(scene.kill_server, number % 2) for number in range(wanted.kills)], wanted.runs)

    assert_all_done(found)
    scene.assert_no_faults()


def test_deploys_of_the_server_and_the_worker_repeat_nothing(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    scene, wanted = Scene(processes, tmp_path, database_url, kills=False), size()

    found = suffer(scene, [scene.deploy_server, scene.deploy_worker], wanted.runs, seed=5)

    assert_all_done(found, {"503 stopping"})
    assert found.duplicates == 0
    # a request that crosses the end of an idle connection may have been read, for all that the server knows
    assert set(found.charged_for) <= {"connection_reset"}
    scene.assert_no_faults()


def test_a_run_with_one_try_is_executed_at_most_once_whatever_is_killed(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    scene, wanted = Scene(processes, tmp_path, database_url), size()

    found = suffer(scene, [scene.kill_server, scene.kill_worker], wanted.runs, task="once", seed=6)

    assert (found.duplicates, found.unexplained) == (0, [])
    assert found.acknowledged == found.submitted
    assert found.completed + len(found.lost) == found.submitted
    assert {code_of(run) for run in found.lost} <= LOST
    assert found.completed > wanted.runs // 2
    scene.assert_no_faults()


def test_no_run_fails_or_is_charged_because_its_worker_is_away(
    processes: Processes, tmp_path: Path, database_url: str
) -> None:
    journal, wanted = Journal(tmp_path / "journal"), size()
    server, worker = start_both(processes, journal, database_url)
    with Api(server.url) as api:
        api.register(worker)
        api.run("add", {"first": 1})
        worker.terminate()
        left = time.monotonic()
        submitters = Submitters([server.url], wanted.runs)
        with submitting(submitters):
            until(lambda: api.call("GET", "/workers/app")["state"] == "unreachable", "unreachable worker")
        until(lambda: time.monotonic() - left >= wanted.away, "worker away for long", wanted.away + 60)
        assert {run["state"] for run in api.listed(task="work")} <= {"queued", "running"}
        start_worker(processes, journal, port=worker.port)

        found = count(api, submitters, journal, time.monotonic())

        print(found)
        assert_all_done(found)
        assert (found.duplicates, found.charged_for) == (0, {})
        until(lambda: api.call("GET", "/workers/app")["state"] == "ready", "ready worker")
    assert_no_faults(server)


def assert_all_done(found: Count, refusals: Collection[str] = ()) -> None:
    """Every acknowledged run completed, every repeated execution is explained, and nobody was refused otherwise."""
    assert found.lost == []
    assert found.unexplained == []
    assert found.completed == found.acknowledged == found.submitted
    assert set(found.refused) <= {"503 starting", *refusals}  # as a server says that was just started again


def code_of(run: Object) -> str:
    """Return why a run has failed."""
    code: str = run["error"]["code"]
    return code

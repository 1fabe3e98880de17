"""A real PostgreSQL for the tests: a cluster of its own in a temporary folder, on loopback, with fsync on."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.binaries import postgres_binaries
from tests.support.ports import free_port

PREFIX = "hurlbat-postgres-"
STARTS = 5
DROPS = 12
PATIENCE = "300"
"""Seconds for a start and for a stop, as `pg_ctl` takes them."""


class Cluster:
    """One PostgreSQL server and its databases."""

    def __init__(self, binaries: Path, root: Path, owner: pwd.struct_passwd | None) -> None:
        self._binaries = binaries
        self._data = root / "data"
        self._log = root / "log"
        self._owner = owner
        self.port = 0
        self._known = False

    def create(self) -> None:
        """Make the files of the cluster and start it."""
        self._call("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()

    def start(self) -> None:
        """Start the server: at first on a new port if somebody else was quicker, and then always where it was."""
        for _ in range(STARTS):
            self.port = self.port or free_port()
            options = (
                f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=on "
                "-c max_connections=200 -c shared_buffers=64MB -c jit=off -c autovacuum_naptime=5s"
            )
            arguments = ("-D", self._data, "-l", self._log, "-w", "-t", PATIENCE, "-o", options, "start")
            if self._call("pg_ctl", *arguments, check=False).returncode == 0 and self._recovered():
                self._known = True
                return
            self.port = self.port if self._known else 0
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log.read_text()[-4000:]}")

    def _recovered(self) -> bool:
        """Wait until it takes connections: `pg_ctl` may be content while the log of a crash is still replayed."""
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", "postgres")
        for _ in range(600):
            if self._call("psql", "-X", "-q", *address, "-c", "SELECT 1", check=False).returncode == 0:
                return True
            time.sleep(0.1)
        return False

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server: `fast` as an operator would, `immediate` as a power cut would."""
        self._call("pg_ctl", "-D", self._data, "-w", "-t", PATIENCE, "-m", mode, "stop", check=False)

    def url(self, database: str) -> str:
        """Return the URL of a database for SQLAlchemy."""
        return f"postgresql+asyncpg://postgres@127.0.0.1:{self.port}/{database}"

    def query(self, sql: str, database: str = "postgres") -> str:
        """Run SQL from outside, e.g. to look over a server's shoulder; return the rows as unaligned text."""
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database)
        return self._call("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *address, "-c", sql).stdout.strip()

    @contextmanager
    def database(self, like: str = "template0") -> Iterator[str]:
        """Make a database, an empty one or a copy, yield its name, and drop it with whoever is still connected."""
        name = f"test_{uuid.uuid4().hex}"
        self.query(f"CREATE DATABASE {name} TEMPLATE {like}")
        try:
            yield name
        finally:
            self._drop(name)

    def _drop(self, name: str) -> None:
        """Drop a database, again if a connection that was told to end has not done it in the 5 s that it is given."""
        for _ in range(DROPS):
            try:
                self.query(f"DROP DATABASE {name} WITH (FORCE)")
            except RuntimeError as error:
                if "is being accessed by other users" not in str(error):
                    raise
            else:
                return
        raise RuntimeError(f"{name} is still in use after {DROPS} tries to drop it")

    def _call(self, program: str, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(self._binaries / program), *map(str, arguments)]
        owner = self._owner
        # pg_ctl leaves the server with its streams: they must be files, as a pipe would never end
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                check=False,
                user=owner.pw_uid if owner else None,
                group=owner.pw_gid if owner else None,
                extra_groups=[] if owner else None,
            )
            output.seek(0)
            text = output.read()
        if check and done.returncode != 0:
            raise RuntimeError(f"{program} failed with {done.returncode}: {text}")
        return subprocess.CompletedProcess(command, done.returncode, text, "")


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Bring up a cluster and take it down again with all its files.

    PostgreSQL refuses to run as root, so root lends it to `postgres` or `nobody`.
    """
    _sweep()
    binaries = postgres_binaries()
    if binaries is None:
        raise RuntimeError("no PostgreSQL server binaries: `make venv` brings them, or install your system's package")
    root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    owner = _somebody_else() if os.geteuid() == 0 else None
    try:
        if owner:
            binaries = _within_reach(binaries, root)
            os.chown(root, owner.pw_uid, owner.pw_gid)
        cluster = Cluster(binaries, root, owner)
        cluster.create()
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _somebody_else() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError("root cannot run PostgreSQL, and there is neither a user postgres nor nobody")


def _within_reach(binaries: Path, root: Path) -> Path:
    """Return the binaries where every user can read them: root's own folders are closed to others."""
    if all(parent.stat().st_mode & 0o001 for parent in (binaries, *binaries.parents)):
        return binaries
    wheel = binaries.parent.parent
    shutil.copytree(wheel, root / wheel.name, symlinks=True)
    libraries = wheel.with_name(f"{wheel.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, root / libraries.name)
    return root / wheel.name / binaries.relative_to(wheel)


def _sweep() -> None:
    """Remove the clusters of test processes that were killed before they could do it."""
    for root in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        maker = int(root.name.removeprefix(PREFIX).split("-")[0])
        if _alive(maker):
            continue
        with suppress(OSError, ValueError, IndexError):
            postmaster = int((root / "data" / "postmaster.pid").read_text().splitlines()[0])
            if str(root) in Path(f"/proc/{postmaster}/cmdline").read_text():  # and not a stranger with its old number
                os.kill(postmaster, signal.SIGQUIT)
        shutil.rmtree(root, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

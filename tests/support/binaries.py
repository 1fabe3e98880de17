"""Find a PostgreSQL server on this machine. As a script: print its folder, or leave with 1 where there is none."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

NEEDED = ("initdb", "pg_ctl", "postgres", "psql")


def postgres_binaries() -> Path | None:
    """Return the folder with `initdb`, `pg_ctl`, `postgres` and `psql`.

    `HURLBAT_TEST_POSTGRES` names it where it is unusual. Distributions keep it off the PATH; where there is none, the
    `pgserver` wheel brings one.
    """
    for folder in _candidates():
        if all((folder / name).is_file() for name in NEEDED):
            return folder
    return None


def _candidates() -> Iterator[Path]:
    if named := os.environ.get("HURLBAT_TEST_POSTGRES"):
        yield Path(named)
    if config := shutil.which("pg_config"):
        yield Path(subprocess.run([config, "--bindir"], capture_output=True, text=True, check=True).stdout.strip())
    for root in ("/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt"):
        versions = Path(root).glob("*/bin")
        yield from sorted(versions, key=lambda folder: folder.parent.name.zfill(32), reverse=True)
    if initdb := shutil.which("initdb"):
        yield Path(initdb).resolve().parent
    if wheel := importlib.util.find_spec("pgserver"):
        for place in wheel.submodule_search_locations or ():
            yield Path(place) / "pginstall" / "bin"


if __name__ == "__main__":
    found = postgres_binaries()
    print(found or "no PostgreSQL server here; taking the one from the pgserver wheel")
    sys.exit(found is None)

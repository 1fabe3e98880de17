"""The page on testing: its files are saved and run as they stand, by pytest without any plugin of ours."""

import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hurlbat.testing import Faults, World
from tests.docs.pages import blocks, first_column
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "testing.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page."""
    made = tmp_path_factory.mktemp("testing")
    for block in blocks(PAGE, "python"):
        if block.file is not None:
            (made / block.file).write_text(block.text)
    return made


def python(folder: Path, *arguments: str) -> str:
    """Run Python in the folder; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_of_the_page_pass_with_no_asyncio_plugin(folder: Path) -> None:
    said = python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio", ".")
    tests = (folder / "test_shop.py").read_text().count("def test_")
    assert f"{tests + 3} passed" in said


def test_the_script_of_the_page_prints_the_end_of_its_run(folder: Path) -> None:
    assert python(folder, "script.py").splitlines()[-1] == "completed"


def test_every_fault_is_told_and_no_other() -> None:
    rates = [one.name for one in fields(Faults) if not one.name.endswith("_seconds")]
    assert sorted(first_column(PAGE, "## Faults")) == sorted(rates)


def test_every_method_of_a_world_is_told() -> None:
    public = [name for name in vars(World) if not name.startswith("_")]
    text = PAGE.read_text()
    assert [name for name in public if not re.search(rf"\bworld\.{name}\b", text)] == []

"""The page on failures: its files are saved and run as they stand, and its commands are ones that there are."""

import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from hurlbat_app.cli.main import app
from tests.docs.pages import blocks, first_column
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "failures.md"


def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    for block in blocks(PAGE, "python"):
        assert block.file is not None
        (tmp_path / block.file).write_text(block.text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_orders.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_commands_on_the_page_have_the_options_that_it_gives_them() -> None:
    lines = [line for block in blocks(PAGE, "sh") for line in block.text.splitlines()]
    assert len(lines) == 5
    for line in lines:
        words = line.partition("#")[0].split()
        assert words[0] == "hurlbat"
        told = CliRunner().invoke(app, [*words[1:3], "--help"], env={"COLUMNS": "200"})
        assert told.exit_code == 0, told.output
        assert [word for word in words if word.startswith("--") and word not in told.output] == [], line


def test_the_members_of_a_filter_are_those_that_there_are() -> None:
    from hurlbat_app.api.operations import FILTER

    named = [name for cell in first_column(PAGE, "## Many at once") for name in cell.split(", ")]
    assert {name.strip("`") for name in named} == FILTER

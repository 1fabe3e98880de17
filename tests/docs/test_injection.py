"""The page on dependencies: its app is tested as it stands, and its tables are true."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hurlbat.execution import LEAVE_SECONDS
from tests.docs.pages import blocks, file_block
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "injection.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page."""
    made = tmp_path_factory.mktemp("injection")
    for block in blocks(PAGE, "python"):
        assert block.file is not None, f"docs/injection.md:{block.line} does not say which file it is"
        (made / block.file).write_text(block.text)
    return made


def test_the_tests_of_the_page_pass(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    env = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{file_block(PAGE, 'test_shop.py').count('def test_')} passed" in done.stdout


def test_the_app_of_the_page_has_the_types_that_it_says(folder: Path) -> None:
    (folder / "types.txt").write_text(
        (folder / "shop.py").read_text() + "\nreveal_type(charge)\nreveal_type(store)\nreveal_type(count)\n"
    )
    command = [str(Path(sys.executable).with_name("mypy")), "--follow-imports=silent", "--shadow-file"]
    done = subprocess.run(
        [*command, str(folder / "shop.py"), str(folder / "types.txt"), str(folder / "shop.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    revealed = [line.partition("Revealed type is ")[2] for line in done.stdout.splitlines() if "Revealed" in line]
    assert revealed == [
        f'"hurlbat.task.Task[{types}]"' for types in ("shop.Order, str", "shop.Order, int", "None, int")
    ]


def test_the_time_for_leaving_is_the_one_that_is_told() -> None:
    assert LEAVE_SECONDS == 3
    assert "for more than three seconds" in PAGE.read_text()

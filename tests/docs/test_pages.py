"""All pages: what they link to and name is there, and they speak of the product alone."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, blocks
from tests.support.processes import ROOT

PACKAGES = ("", "sdk/hurlbat", "dispatcher/hurlbat_dispatcher", "app/hurlbat_app", "tests", "examples/workers/python")
MADE = {"main.py", "hurlbat.db", "hurlbat.db.key", "hurlbat.db.lock"}
"""Files that appear when something is run, and are in no folder of ours."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _words(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.is_file() or (anchor and anchor not in _anchors(linked)):
            lost.append(target)
    assert lost == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`(\w[\w./-]*(?:\.(?:py|yaml|md|db|key|lock)|/))`", _words(page))
    lost = [
        name for name in named if name not in MADE and not any((ROOT / folder / name).exists() for folder in PACKAGES)
    ]
    assert lost == []


def test_every_dependency_has_its_reason_and_no_other_has_one() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [_name(one) for one in (*project["dependencies"], *extras["server"], *extras["postgres"])]
    section = _section(ROOT / "CONTRIBUTING.md", "## Why each dependency is there")
    given = [
        name for row in re.findall(r"^\| (`.+?) \|", section, re.MULTILINE) for name in re.findall(r"`([\w-]+)`", row)
    ]
    assert sorted(given) == sorted(wanted)


def test_every_dependency_of_the_developers_is_named() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    section = _section(ROOT / "CONTRIBUTING.md", "## Why each dependency is there")
    unsaid = [_name(one) for one in groups["dev"] if f"`{_name(one)}`" not in section]
    assert [name for name in unsaid if not name.startswith("types-")] == []


def test_the_commands_that_are_told_are_those_that_there_are() -> None:
    from hurlbat_app.cli.main import COMMANDS

    section = _section(ROOT / "docs" / "running.md", "## Command line")
    assert sorted(re.findall(r"^\| `hurlbat ([\w-]+)`", section, re.MULTILINE)) == sorted(COMMANDS)


def test_the_metrics_that_are_told_are_those_that_there_are() -> None:
    from hurlbat_dispatcher.telemetry import Telemetry

    section = _section(ROOT / "docs" / "running.md", "## Health and metrics")
    told = re.findall(r"^\| `(hurlbat_\w+)`", section, re.MULTILINE)
    text = Telemetry().text(in_flight=0, queued=0).decode()
    families = re.findall(r"^# TYPE (\S+) (\w+)", text, re.MULTILINE)
    assert sorted(told) == sorted(name for name, _ in families if not name.endswith("_created"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_line_is_not_too_long_to_be_read(page: Path) -> None:
    prose = [line for line in _words(page).splitlines() if not line.startswith("|")]
    assert [line for line in prose if len(line) > 140] == []


def _words(page: Path) -> str:
    """Return the page without its blocks of code."""
    text = page.read_text()
    for block in blocks(page):
        text = text.replace(block.text, "")
    return text


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _words(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _section(page: Path, heading: str) -> str:
    return page.read_text().split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]


def _name(requirement: str) -> str:
    match = re.match(r"[\w-]+", requirement)
    assert match is not None
    return match[0]

"""Read the documentation as its readers do: code blocks to run, tables to rely on, links to follow."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

PAGES = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"# ([\w./-]+)\n")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: what it is written in, what it says, and the line of the page on which it begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name of the file that the block is, where its first line is a comment with one."""
        match = _NAME.match(self.text)
        return match[1] if match else None


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page, in order; with languages only those."""
    text = page.read_text()
    found = [Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(text)]
    return [block for block in found if not languages or block.language in languages]


def file_block(page: Path, name: str) -> str:
    """Return the one block of a page that is the file of that name."""
    [text] = [block.text for block in blocks(page) if block.file == name]
    return text


def first_column(page: Path, heading: str) -> list[str]:
    """Return what stands in backticks in the first column of the first table below a heading."""
    section = page.read_text().split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None, f"{page.name} has no table below {heading}"
    cells = [row.split("|")[1].strip() for row in rows[0].splitlines()[2:]]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]

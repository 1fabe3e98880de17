"""What the page of guarantees tells of the doctor is what the doctor can find."""

import re

from hurlbat_dispatcher.checkup import Code
from tests.support.processes import ROOT


def test_every_code_of_the_doctor_is_told_once_and_no_other() -> None:
    page = (ROOT / "docs" / "guarantees.md").read_text()
    section = page.split("\n## The doctor\n", 1)[1].split("\n## ", 1)[0]
    cells = [row.split("|")[1] for row in section.splitlines() if row.startswith("| `")]
    told = [code for cell in cells for code in re.findall(r"`(\w+)`", cell)]
    assert sorted(told) == sorted(Code)

"""The trial of one client: generated, compiled, and run against a server, with its example of docs/clients.md."""

import re
import time
from collections.abc import Callable
from pathlib import Path

from tests.clients import expected
from tests.clients.clients import Client, contract_for
from tests.docs.pages import blocks
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "clients.md"
_NAME = re.compile(r"(?:#|//) ([\w.]+)\n")


def example(name: str) -> str:
    """Return the one block of docs/clients.md whose first line is a comment with this name."""
    [text] = [
        block.text for block in blocks(PAGE) if (found := _NAME.match(block.text)) is not None and found[1] == name
    ]
    return text


def attempt(client: Client, folder: Path, env: dict[str, str], tell: Callable[[str, str], None]) -> None:
    """Try a client in an empty folder, and tell each operation and its result. Raises `Failed`, `Unexpected`."""
    name = folder.name
    contract_for(folder)
    shown = folder / "page" / client.example
    shown.parent.mkdir()
    shown.write_text(example(client.example))

    began = time.monotonic()
    client.generate(folder)
    tell("generate", f"{time.monotonic() - began:.1f} s")

    began = time.monotonic()
    client.compile(folder, client.program, shown)
    tell("compile", f"{time.monotonic() - began:.1f} s")

    printed = client.run(folder, client.program, env | {"CLIENT_NAME": name})
    for operation, result in expected.check(printed, name):
        tell(operation, result)

    printed = client.run(folder, shown, env)
    if not re.search(r"Hello, Ada!\n(.*\n)*.*run_unknown", printed):
        raise expected.Unexpected(f"{client.example} of docs/clients.md printed {printed!r}")
    tell("example", f"{client.example} of docs/clients.md: {len(printed.splitlines())} lines")

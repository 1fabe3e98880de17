"""`python -m tests.clients`: generate, compile and run the clients of several languages, and print a transcript."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.clients import stage
from tests.clients.clients import CLIENTS, LANGUAGES, Client
from tests.clients.expected import Unexpected
from tests.clients.tools import Failed, Missing
from tests.clients.trial import attempt


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything went well, 1 when something failed or is missing, 2 for a wrong argument."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("languages", nargs="*", metavar="LANGUAGE", help=f"one of {', '.join(LANGUAGES)}; all of them")
    chosen = parser.parse_args(arguments).languages
    unknown = [language for language in chosen if language not in LANGUAGES]
    if unknown:
        print(f"no clients are generated for {', '.join(unknown)}; choose of {', '.join(LANGUAGES)}", file=sys.stderr)
        return 2
    clients = [client for client in CLIENTS if not chosen or client.language in chosen]
    missing = {str(error): client.language for client in clients if (error := _missing(client)) is not None}
    for sentence, language in missing.items():
        print(f"{language}: {sentence}", file=sys.stderr)
    if missing:
        return 1
    with tempfile.TemporaryDirectory() as folder, stage.set_up(Path(folder)) as env:
        broken = [client.name for client in clients if not _tried(client, Path(folder), env)]
    print(f"{len(clients) - len(broken)} of {len(clients)} clients went well{_names(broken)}")
    return 1 if broken else 0


def _missing(client: Client) -> Missing | None:
    try:
        client.need()
    except Missing as error:
        return error
    return None


def _tried(client: Client, folder: Path, env: dict[str, str]) -> bool:
    own = folder / f"{client.language}-{client.generator}"
    own.mkdir()
    try:
        attempt(client, own, env, lambda operation, result: _tell(client, operation, result))
    except (Failed, Unexpected) as error:
        _tell(client, "FAILED", str(error))
        return False
    return True


def _tell(client: Client, operation: str, result: str) -> None:
    print(f"{client.name:<32}  {operation:<12}  {result}", flush=True)


def _names(broken: list[str]) -> str:
    return f"; these did not: {', '.join(broken)}" if broken else ""

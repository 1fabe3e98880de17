"""Where the command `hurlbat` begins: it is there without the server's parts, too, and says then how to get them."""

import sys

_OURS = ("hurlbat", "hurlbat_dispatcher", "hurlbat_app")


def run() -> None:
    """Be the command, or say what it lacks."""
    try:
        from hurlbat_app.cli.main import run as run_command

        run_command()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("", *_OURS):
            raise
        print("hurlbat: the command line needs the server's parts: pip install 'hurlbat[server]'", file=sys.stderr)
        sys.exit(2)

"""The app's process: `python -m hurlbat_app.dev.child MODULE:NAME PORT WORDS LEASH`.

It imports the app, tells what it found, serves it, and ends when it is told to, or when whoever started it is gone:
`LEASH` is a pipe of which the other holds the end, and which nobody writes to.
"""

import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn

import hurlbat
from hurlbat.errors import HurlbatError
from hurlbat_app.dev import finding, words, wsgi
from hurlbat_app.dev.finding import NoApp
from hurlbat_app.dev.mounts import hurlbats, paths_in

HOST = "127.0.0.1"
ORPHAN_SECONDS = 10.0
"""How long an app may take to stop whose parent is gone."""
_OURS = str(Path(__file__).parent)
_SDK = str(Path(hurlbat.__file__).parent)
_MACHINERY = ("<frozen importlib", str(Path(importlib.__file__).parent))


class Words:
    """The pipe to whoever started this process."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor

    def say(self, word: words.Word) -> None:
        """Tell something; nobody may be listening any more."""
        try:
            os.write(self._descriptor, words.written(word))
        except BrokenPipeError:
            pass


class _Uvicorn(uvicorn.Server):
    """uvicorn, and it says when it serves."""

    def __init__(self, config: uvicorn.Config, told: Words) -> None:
        super().__init__(config)
        self._told = told

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._told.say(words.Serving())


def main(arguments: list[str]) -> int:
    """Be the process; return its status."""
    target, port, descriptor, leash = arguments[0], *map(int, arguments[1:])
    told = Words(descriptor)
    threading.Thread(target=_heed, args=(leash,), daemon=True).start()
    if not sys.path or sys.path[0] != os.getcwd():
        sys.path.insert(0, os.getcwd())
    try:
        app, interface = finding.load_app(target)
        found = _look(app, interface)
    except NoApp as error:
        told.say(words.Refused(str(error), error.mistaken))
        return 1
    except (Exception, SystemExit) as error:  # the app's own, as it is
        _show(error)
        told.say(words.Refused(f"{target} cannot be imported: {type(error).__name__}: {_first_line(error)}"))
        return 1
    told.say(found)
    quiet = set(found.paths) or set(words.CANDIDATES) - {"/"}
    return _serve(app, interface, port, told, quiet, found.grace)


def _look(app: Any, interface: finding.Interface) -> words.Found:
    """Tell what the app has of Hurlbat, and make that ready for development."""
    ours = hurlbats()
    for one in ours:
        one.manifest()  # what is wrong with it is told now
        # the server that started this process registers it, at the address that it has here
        one.settings = replace(one.settings, public_url=None)
    return words.Found(
        interface=interface,
        paths=paths_in(app),
        hurlbats=len(ours),
        secrets=_different(one.settings.keys[0] for one in ours if one.settings.keys),
        names=_different(one.settings.worker for one in ours if one.settings.worker),
        servers=_different(one.settings.url for one in ours),
        grace=max([one.settings.grace for one in ours], default=0.0),
    )


def _different(values: Any) -> list[str]:
    return list(dict.fromkeys(values))


def _serve(app: Any, interface: finding.Interface, port: int, told: Words, quiet: Collection[str], grace: float) -> int:
    """Serve the app until told to stop; requests to the `quiet` paths are not logged."""
    if interface == "wsgi":
        try:
            wsgi.serve(app, HOST, port, quiet=quiet, began=lambda: told.say(words.Serving()), grace=grace)
        except OSError as error:
            told.say(words.Refused(f"the app cannot listen on {HOST}:{port}: {error.strerror}"))
            return 1
        return 0
    config = uvicorn.Config(app, host=HOST, port=port, timeout_graceful_shutdown=int(grace) + 1)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.levelno > logging.INFO)
    logging.getLogger("uvicorn.access").addFilter(lambda record: _path_of(record) not in quiet)
    server = _Uvicorn(config, told)
    server.run()
    return 0 if server.started else 3


def _path_of(record: logging.LogRecord) -> str:
    """Return the path of a request that uvicorn logs."""
    given = record.args if isinstance(record.args, tuple) else ()
    return str(given[2]).partition("?")[0] if len(given) > 2 else ""


def _show(error: BaseException) -> None:
    """Print where in the app something was raised, without what stands around the app."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    around: tuple[str, ...] = (_OURS, *_MACHINERY)
    if isinstance(error, HurlbatError):  # which says itself what is wrong: of interest is for what the app has asked
        around = (*around, _SDK)
        told.__cause__ = told.__context__ = None
    inner = [frame for frame in told.stack if not frame.filename.startswith(around)]
    told.stack = traceback.StackSummary.from_list(inner)
    sys.stderr.write("".join(told.format()))
    sys.stderr.flush()


def _first_line(error: BaseException) -> str:
    return (str(error) or "no words").splitlines()[0]


def _heed(leash: int) -> None:
    """Wait until whoever started this process is gone, and end with it."""
    os.set_inheritable(leash, False)
    os.read(leash, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(ORPHAN_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

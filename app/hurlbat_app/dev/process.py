"""One process of the app: started, listened to, and ended with all that it has started itself."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping

from hurlbat_app.dev import words

END_SECONDS = 5.0
"""How long an app may take to end, beyond the grace of its tasks."""
LOOK_SECONDS = 0.05


class AppProcess:
    """A process that serves the app. Its words are heard by `word`; what it prints is the terminal's."""

    def __init__(self, target: str, port: int, env: Mapping[str, str]) -> None:
        heard, said = os.pipe()
        leash, self._leash = os.pipe()
        command = [sys.executable, "-m", "hurlbat_app.dev.child", target, str(port), str(said), str(leash)]
        try:
            self._popen = subprocess.Popen(
                command,
                env=dict(env),
                pass_fds=(said, leash),
                start_new_session=True,  # a Ctrl-C at the terminal is ours to pass on, in the right order
            )
        finally:
            os.close(said)
            os.close(leash)
        self._heard = os.fdopen(heard, "rb")
        self._let_go = False
        self._reader: asyncio.StreamReader | None = None
        self._transport: asyncio.ReadTransport | None = None

    async def word(self) -> words.Word | None:
        """Return what it says next, or None when it has ended."""
        if self._reader is None:
            self._reader = reader = asyncio.StreamReader()
            self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(reader), self._heard
            )
        line = await self._reader.readline()
        return words.read(line) if line.endswith(b"\n") else None

    def hear_no_more(self) -> None:
        """Close the pipe of its words; called while the event loop runs."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._heard.close()

    async def ended(self) -> int:
        """Return its status as soon as it has ended."""
        while self._popen.poll() is None:  # noqa: ASYNC110 -- there is no event for its end
            await asyncio.sleep(LOOK_SECONDS)
        return self._popen.returncode

    def stop(self, grace: float) -> None:
        """End it: by SIGTERM, and whatever is left of it and of its children after a while by SIGKILL."""
        if self._popen.poll() is None:
            self._popen.terminate()
            try:
                self._popen.wait(grace + END_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self._popen.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self._popen.wait()
        if not self._let_go:
            self._let_go = True
            os.close(self._leash)

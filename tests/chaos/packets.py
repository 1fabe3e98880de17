"""Packets that vanish: nftables rules in a network namespace of our own, where root and the tools are there for it.

The whole run goes into a namespace that has nothing but a loopback; it ends with its last process, and the rules with
it. Without it the links between the processes are cut and silenced in this process alone (`links`).
"""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence

MARK = "HURLBAT_CHAOS_NAMESPACE"
_TOOLS = ("unshare", "ip", "nft")
_TABLE = """
table inet chaos {
    set gone { type inet_service; }
    chain out {
        type filter hook output priority 0;
        tcp dport @gone drop
        tcp sport @gone drop
    }
}
"""


def enter(module: str, arguments: Sequence[str]) -> None:
    """Start this program anew in a namespace of its own; return where that cannot be, or is so already."""
    if missing() is None and not inside():
        up = 'ip link set lo up && exec "$@"'
        command = ["unshare", "--net", "sh", "-c", up, "sh", sys.executable, "-m", module, *arguments]
        os.execvpe("unshare", command, os.environ | {MARK: "1"})


def inside() -> bool:
    """Tell whether this process is in a namespace that it may do with as it likes."""
    return MARK in os.environ


def missing() -> str | None:
    """Say what keeps us from a namespace of our own."""
    if os.geteuid() != 0:
        return "not root"
    lacking = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if lacking:
        return f"no {', '.join(lacking)} here"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode != 0:
        return "network namespaces are not allowed here"
    return None


class Packets:
    """Drops what goes to or comes from ports. Only in a namespace that is ours alone."""

    def __init__(self) -> None:
        if not inside() or [name for _, name in socket.if_nameindex()] != ["lo"]:
            raise RuntimeError("this is no network namespace of our own")
        _nft("-f", "-", text=_TABLE)

    def drop(self, port: int) -> None:
        """Let every packet of the port vanish."""
        _nft("add", "element", "inet", "chaos", "gone", f"{{ {port} }}")

    def mend(self, port: int) -> None:
        """Let them pass again."""
        _nft("delete", "element", "inet", "chaos", "gone", f"{{ {port} }}")


def available() -> Packets | None:
    """Return the means to drop packets, if this process is in a namespace of its own."""
    return Packets() if inside() else None


def _nft(*words: str, text: str | None = None) -> None:
    subprocess.run(["nft", *words], input=text, text=True, check=True, capture_output=True)

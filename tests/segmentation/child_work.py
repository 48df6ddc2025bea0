"""What the child processes of `test_child` do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from paxray.errors import CaseError, ResourceError


def surroundings(given: str) -> dict[str, str]:
    """Tell what the process was given."""
    variables = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "XDG_CONFIG_HOME", "EXTRA")
    return {
        "given": given,
        "home": str(Path.home()),
        "temporary": tempfile.gettempdir(),
        "folder": str(Path.cwd()),
        **{name: os.environ.get(name, "unset") for name in variables},
    }


def refuse(kind: str) -> None:
    """Raise an error of this package."""
    error = {"case": CaseError, "resource": ResourceError}[kind]
    raise error("not this one", where="here", expected="a", found="b", do="c", code="some_code")


def die_of(number: int) -> None:
    """End by a signal."""
    print("about to die", flush=True)
    os.kill(os.getpid(), number)
    time.sleep(60)


def leave(code: int, lines: int) -> None:
    """Print, and exit without a result."""
    for line in range(lines):
        print(f"line {line} in {Path.cwd()}")
    sys.exit(code)


def family(pids: str) -> None:
    """Start a further process, write both ids down, and hang."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    partial = Path(f"{pids}.partial")
    partial.write_text(f"{os.getpid()} {grandchild.pid}")
    partial.replace(pids)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(120)


def call_home(port: int) -> list[str]:
    """Try to reach the network in several ways, and tell what came of each; a local socket is allowed."""
    outcomes = []
    for attempt in (
        lambda: socket.create_connection(("127.0.0.1", port), timeout=5),
        lambda: socket.socket().connect(("127.0.0.1", port)),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", port)),
        lambda: socket.gethostbyname("localhost"),
        lambda: socket.getaddrinfo("localhost", port),
    ):
        try:
            attempt()
            outcomes.append("went through")
        except PermissionError:
            outcomes.append("refused")
    here, there = socket.socketpair(socket.AF_UNIX)
    here.sendall(b"fine")
    outcomes.append(there.recv(4).decode())
    return outcomes

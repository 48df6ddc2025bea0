"""The child's side of `paxray.segmentation.child`: ``python -m paxray.segmentation.childmain JOB REPORT``."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from paxray.errors import PaxrayError
from paxray.segmentation.child import TOLD


def main(job: Path, report: Path) -> int:
    """Call what the job names, and report what it returned or why it refused."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.addaudithook(_stay_offline)
    asked = json.loads(job.read_text(encoding="utf-8"))
    module, _, name = asked["function"].partition(":")
    try:
        result = getattr(import_module(module), name)(**asked["arguments"])
    except PaxrayError as error:
        traceback.print_exc()
        # A kind that the other process need not have imported is told as the one that it stems from.
        kind = next(kind for kind in type(error).__mro__ if kind.__module__ == PaxrayError.__module__)
        words = {key: getattr(error, key) for key in ("what", "where", "expected", "found", "do", "code")}
        _write(report, {"kind": kind.__name__, **words})
        return TOLD
    _write(report, {"result": result})
    return 0


def _write(report: Path, content: dict[str, Any]) -> None:
    partial = report.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(report)


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of the standard input, and end this process and the rest of its group.

    The parent never writes to it, so that its end means that the parent is gone, however it went.
    """
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def _stay_offline(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would leave the machine: a look-up of a host, a connection that is not a local socket's.

    It sees what Python's own sockets do in this process alone: it guards against calling home, not against malice.
    """
    if event in ("socket.getaddrinfo", "socket.gethostbyname") or (
        event in ("socket.connect", "socket.sendto", "socket.sendmsg") and isinstance(arguments[1], tuple)
    ):
        raise PermissionError(f"segmenters do not use the network ({event} refused)")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))

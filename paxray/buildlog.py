"""One build at a time on a data set, and the log of each."""

from __future__ import annotations

import fcntl
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TextIO

from paxray.dataset.layout import Layout
from paxray.errors import ConfigError, PaxrayError


@dataclass(frozen=True)
class Event:
    """Something that happened during a build, for progress and log; `findings` are those of a case, a line each."""

    kind: str  # case | shard | segmenting | note
    name: str
    status: str
    message: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mib: float = 0.0
    findings: tuple[str, ...] = ()


@contextmanager
def only_build(layout: Layout) -> Iterator[None]:
    """Hold the data set's lock; the system releases it however the process ends."""
    existed = layout.root.exists()
    layout.logs.mkdir(parents=True, exist_ok=True)
    with (layout.logs / "build.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                "another build is at work on this data set", where=layout.root.name, do="wait for it to end"
            ) from None
        try:
            yield
        except PaxrayError:
            if not existed:
                # Nothing was begun: leave no folder behind that looks like a data set.
                (layout.logs / "build.lock").unlink(missing_ok=True)
                for folder in (layout.logs, layout.root):
                    if folder.exists() and not any(folder.iterdir()):
                        folder.rmdir()
            raise


def open_log(layout: Layout, workers: int) -> TextIO:
    """Open the log of a build that begins now."""
    now = datetime.now(UTC)
    log = (layout.logs / f"build-{now:%Y%m%dT%H%M%S}.log").open("a", encoding="utf-8", buffering=1)
    log.write(f"{now.isoformat(timespec='seconds')} build on {platform.node()}, {workers} workers\n")
    return log


def log_event(log: TextIO, event: Event) -> None:
    """Write an event, with seconds by stage and the process's peak memory."""
    stages = " ".join(f"{name}={seconds:.2f}s" for name, seconds in event.seconds.items())
    memory = f" peak={event.memory_mib:.0f}MiB" if event.memory_mib else ""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = f"{now} {event.kind} {event.name} {event.status} {stages}{memory}"
    log.write(line.rstrip() + "\n")
    for finding in event.findings:
        log.write(f"    {finding}\n")
    if event.message:
        log.write("    " + event.message.replace("\n", "\n    ") + "\n")

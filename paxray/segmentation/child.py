"""A segmenter's work in a process of its own: a time limit, offline, no trace left, and a coded error if it dies.

Networks crash, hang, leak memory, read and write their home directory and call home. None of that may reach the build.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paxray import errors
from paxray.errors import CaseError

if TYPE_CHECKING:
    from paxray.segmentation.contract import Request

#: Exit code of a child whose own error stands in its report.
TOLD = 77
#: As much of what the child printed last is quoted in an error.
_QUOTED_LINES, _QUOTED_CHARACTERS = 5, 600
#: multiprocessing puts sockets into the folder for temporary files, and a socket's path has at most about 100 bytes.
_LONGEST_FOLDER = 60
_THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)


def run_child(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    request: Request,
    *,
    segmenter: str,
    time_limit_s: float,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Call a function in a process of its own, and return what it returns.

    The process has an empty home directory and a folder for temporary files within the scratch, may use
    ``request.threads`` threads, and sees no GPU unless told to use one. Python's own sockets in it are refused the
    network; programs that it starts, and compiled code that opens sockets itself, are not. It and the rest of its
    process group end with this call, with this process, or when the time is up; what left for a session of its own
    does not.

    Parameters
    ----------
    function
        Of a module's top level, cheap to import. What it raises of `paxray.errors` is raised here.
    arguments
        Its keyword arguments, as JSON; so is what it returns.
    request
        Its scratch takes the report and, as ``child.log``, what the process printed.
    segmenter
        Name in messages.
    time_limit_s
        Wall clock.
    environment
        Variables to set besides. Where the process prints a value of theirs, an error quotes the variable's name.

    Raises
    ------
    CaseError
        ``segmenter_timeout``; ``segmenter_crashed`` where a signal ended it; ``segmenter_failed`` for any other end
        without a result, with the last lines that it printed.
    """
    scratch = request.scratch.resolve()
    job, report, log = scratch / "child_job.json", scratch / "child_report.json", scratch / "child.log"
    asked = {"function": f"{function.__module__}:{function.__qualname__}", "arguments": dict(arguments)}
    job.write_text(json.dumps(asked), encoding="utf-8")
    report.unlink(missing_ok=True)
    with _temporary_folder(scratch) as temporary, log.open("wb") as output:
        home = scratch / "home"
        home.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "paxray.segmentation.childmain", str(job), str(report)],
            env=_environment(request, home, temporary) | dict(environment or {}),
            cwd=scratch,
            stdin=subprocess.PIPE,  # never written: its end tells the child that this process is gone
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            raise CaseError(
                f"segmenter '{segmenter}' was stopped, its time was up",
                where=request.where,
                expected=f"a result within {time_limit_s:g} s",
                do="give it more time (time_limit_s), a faster mode or a GPU",
                code="segmenter_timeout",
            ) from None
        finally:
            _end(process)
    told = _read_report(report)
    names = {**{value: f"${name}" for name, value in (environment or {}).items()}, str(scratch): "SCRATCH"}
    if code < 0:
        raise _crashed(segmenter, -code, _last_words(log, names), request)
    if code == TOLD and told is not None:
        kind = getattr(errors, told["kind"])
        raise kind(told["what"], **{key: told[key] for key in ("where", "expected", "found", "do", "code")})
    if code != 0 or told is None:
        raise CaseError(
            f"segmenter '{segmenter}' failed",
            where=request.where,
            found=f"exit code {code}; {_last_words(log, names)}",
            code="segmenter_failed",
        )
    return told["result"]


def _environment(request: Request, home: Path, temporary: Path) -> dict[str, str]:
    """This process's own, without what leads to the user's home, further threads or a GPU not asked for."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    kept |= dict.fromkeys(_THREADS, str(request.threads))
    kept |= {"HOME": str(home), "USERPROFILE": str(home), "TMPDIR": str(temporary)}
    # Another home is another place for packages that a user installed: the path stays as it is here.
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(os.path.abspath(entry) for entry in sys.path))
    kept |= {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
    # What outlives a child is matplotlib's list of fonts: networks' packages want it, and it takes ten seconds to make.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept.setdefault("MPLCONFIGDIR", str(cache / "paxray" / "matplotlib"))
    if request.device == "cpu":
        kept["CUDA_VISIBLE_DEVICES"] = ""
    return kept


@contextmanager
def _temporary_folder(scratch: Path) -> Iterator[Path]:
    inside = scratch / "tmp"
    if len(str(inside)) <= _LONGEST_FOLDER:
        inside.mkdir(exist_ok=True)
        yield inside
        return
    elsewhere = tempfile.mkdtemp(prefix="paxray-")
    try:
        yield Path(elsewhere)
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the child and whatever it started and left behind."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it ended, and left nothing behind
    except PermissionError:
        process.kill()  # macOS says so of a group of which only the ended child is left
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _read_report(path: Path) -> dict[str, Any] | None:
    """What the child wrote, or None if it came to no end of its own."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return report if isinstance(report, dict) else None


def _crashed(segmenter: str, number: int, words: str, request: Request) -> CaseError:
    memory = "so the system ends what takes too much memory: give fewer workers, a faster mode or more memory"
    return CaseError(
        f"segmenter '{segmenter}' crashed: its process was ended by {signal.Signals(number).name}",
        where=request.where,
        found=words,
        do=memory if number == signal.SIGKILL else "",
        code="segmenter_crashed",
    )


def _last_words(log: Path, names: Mapping[str, str]) -> str:
    """The last lines that the child printed, with names for the folders of this machine."""
    text = log.read_bytes()[-20000:].decode("utf-8", "replace")
    for value, name in names.items():
        if os.sep in value:
            text = text.replace(value, name)
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    words = " / ".join(lines[-_QUOTED_LINES:])[-_QUOTED_CHARACTERS:]
    return f"it said last: {words}" if words else "it said nothing"

"""How every benchmark's command ends."""

from __future__ import annotations

import sys
from collections.abc import Callable

from paxray.errors import PaxrayError


def exit_code_of(work: Callable[[], None]) -> int:
    """Do the work; 0, or the code of an error whose message goes to standard error."""
    try:
        work()
    except PaxrayError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0

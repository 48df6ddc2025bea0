"""``python -m paxray``: the same as the command ``paxray``."""

from paxray.cli import main

main()

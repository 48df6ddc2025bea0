"""paxray: annotated X-ray data sets made from CT. A research tool, not for clinical use."""

from __future__ import annotations

from paxray._version import __version__

__all__ = ["__version__"]

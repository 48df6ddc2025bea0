"""Disk to `Volume` and masks on one lattice; bad files are refused with a clear error."""

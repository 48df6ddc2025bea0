"""Measures paxray beside other tools on the same work; not part of the installed package."""

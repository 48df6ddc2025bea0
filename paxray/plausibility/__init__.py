"""Masks that cannot be, or rarely are: named findings of a case, and what a pipeline makes of them."""

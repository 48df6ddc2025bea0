"""A procedural thorax: CT in HU and exact masks from a seed."""

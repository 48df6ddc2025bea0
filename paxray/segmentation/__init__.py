"""CT to named 3D masks."""

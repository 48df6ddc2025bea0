"""What this machine can do, what is missing for the rest, and how to get it."""

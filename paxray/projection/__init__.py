"""Views and detectors, and one traversal of the rays that yields the image and every class."""

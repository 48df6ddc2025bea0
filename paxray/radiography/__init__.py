"""Line integrals to a picture: the stored signal and the display that people look at."""

"""The projector on NVIDIA GPUs: a kernel in CUDA C that is compiled at run time for what is asked for."""

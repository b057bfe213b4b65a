"""Kernels of linear algebra: systems of equations. Arrays in, arrays out. May import jax and `placement` alone."""

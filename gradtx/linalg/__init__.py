"""Kernels of linear algebra: equations, eigenvalues, roots, matrices in arrays. Arrays in, arrays out. May import jax
and `placement` alone.
"""

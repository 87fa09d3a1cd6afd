"""Compiled kernels. `_cpu`, built from `cpu/`, is missing where there was no compiler."""

"""Kernels for NVIDIA GPUs of compute capability 8.0 and later, in Triton; on the CPU in Triton's interpreter.

Needs the package `triton`, which the Linux wheels of torch for CUDA bring.
"""

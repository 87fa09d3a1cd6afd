"""Kernels for NVIDIA GPUs of compute capability 8.0 and later, in Triton; on the CPU in Triton's interpreter.

Needs the package `triton`, which torch's Linux wheels for CUDA install.

Conventions of all kernels here:

- A docstring names the shape of every pointer: (rows, columns) is row-major and contiguous unless strides are passed.
  Types are float32 unless said otherwise. Pointers are never null: an unused one is any tensor.
- Memory belongs to the caller. A kernel allocates nothing and writes only what its docstring says.
- MXFP4: a block is 32 consecutive columns of a row in 16 bytes, columns 2j and 2j + 1 in the low and high half of byte
  j, with one E8M0 scale byte s that means 2^(s - 127). See `gptoss.model.tensors.mxfp4`.
- 8-bit weights: int8 (rows, columns), bfloat16 scales (rows, columns / 32); a weight is its integer times the scale.
- Sizes in capitals are compile-time constants; BLOCK_* say how much one program computes.
"""

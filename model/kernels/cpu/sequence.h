// The operations between the matrices: norm, rotary positions, attention.
#pragma once
#include "dispatch.h"

namespace gptoss {

// x (tokens, columns) -> out.
void rms_norm(const Kernels& kernels, const float* x, const float* scale, int tokens, int columns, float eps, float* out);

// x (tokens, heads, 2 * half), cos and sin (tokens, half) -> out.
void rope(const Kernels& kernels, const float* x, const float* cos, const float* sin, int tokens, int heads, int half,
          float* out);

// Keys or values of all heads: position p of head h begins at data + p * position_stride + h * head_stride.
struct KeyValues {
    const void* data;
    bool bf16;
    ptrdiff_t position_stride, head_stride;
};

// Causal attention of the last `tokens` of `keys` positions; q and out (tokens, kv_heads * group, head_dim).
void attention(const Kernels& kernels, const float* q, const KeyValues& k, const KeyValues& v, const float* sinks,
               int tokens, int64_t keys, int kv_heads, int group, int head_dim, int64_t window, float* out);

} // namespace gptoss
